"""Records of arrays: frozen dataclasses that are JAX pytrees."""

import typing

import chex

T = typing.TypeVar("T")


@typing.dataclass_transform(kw_only_default=True, frozen_default=True)
def pytree_dataclass(cls: type[T]) -> type[T]:
    """Make a class of annotated fields a frozen `chex.dataclass`.

    Every field is a leaf (or a subtree of them), so a number becomes an array under
    jit. `chex.dataclass` alone hides the fields from type checkers.
    """
    return chex.dataclass(frozen=True, mappable_dataclass=False)(cls)
