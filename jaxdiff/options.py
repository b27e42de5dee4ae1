"""Options: frozen dataclasses of plain values, checked when made, stored as JSON.

An options class inherits from `Options` and says in `faults` what its values must obey:

    @dataclasses.dataclass(frozen=True)
    class MyConfig(Options):
        width: int = 256
        sampler: Annotated[str, Named(SAMPLERS)] = "ddpm"

        def faults(self):
            yield from super().faults()
            yield from at_least(self, 1, "width")

Messages name an option in backticks, as Python spells it: `` `width` `` or, with a
value, `` `width=64` ``. The command line turns both into flags.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from jaxdiff.errors import UserError

T = TypeVar("T")


class Named(NamedTuple):
    """Marks an option whose value is a name of a table, such as `SAMPLERS`.

    Attributes:
      table: the names there are; read when a value is checked, so that it may grow.
    """

    table: Mapping[str, Any]


class Options:
    """Base of options: checks types and values when an instance is made.

    Raises:
      UserError: all faults in one message.
    """

    def __post_init__(self) -> None:
        refuse(list(_type_faults(self)) or list(self.faults()))

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used; types are right."""
        yield from ()


@dataclasses.dataclass(frozen=True)
class NoOptions(Options):
    """No options at all."""


def refuse(faults: Iterable[str]) -> None:
    """Raise a `UserError` that names all faults, if there are any."""
    faults = list(dict.fromkeys(faults))
    if faults:
        raise UserError("; also, ".join(faults))


def at_least(options: Any, bound: float, *names: str) -> Iterator[str]:
    """Yield a fault for each named option below a bound.

    An option that is None passes. All entries of a tuple must obey the bound.
    """
    yield from _bounded(options, names, lambda x: x < bound, f"at least {bound}")


def at_most(options: Any, bound: float, *names: str) -> Iterator[str]:
    """Yield a fault for each named option above a bound; see `at_least`."""
    yield from _bounded(options, names, lambda x: x > bound, f"at most {bound}")


def above(options: Any, bound: float, *names: str) -> Iterator[str]:
    """Yield a fault for each named option that is not above a bound."""
    yield from _bounded(options, names, lambda x: x <= bound, f"above {bound}")


def below(options: Any, bound: float, *names: str) -> Iterator[str]:
    """Yield a fault for each named option that is not below a bound."""
    yield from _bounded(options, names, lambda x: x >= bound, f"below {bound}")


def _bounded(
    options: Any, names: Iterable[str], wrong: typing.Callable[[Any], bool], must: str
) -> Iterator[str]:
    for name in names:
        value = getattr(options, name)
        entries = value if isinstance(value, tuple) else (value,)
        if any(x is not None and wrong(x) for x in entries):
            yield f"`{name}` is {value!r}; it must be {must}"


def override(options: T, values: Mapping[str, Any], owner: str) -> T:
    """Return options with some values replaced.

    Args:
      options: an instance of `Options`.
      values: new values by name.
      owner: what the options belong to, for the message.

    Raises:
      UserError: a name that the options do not have, or values that they refuse.
    """
    known = [field.name for field in dataclasses.fields(options)]  # type: ignore
    unknown = sorted(values.keys() - set(known))
    if unknown:
        names = ", ".join(f"`{name}`" for name in unknown)
        raise UserError(
            f"{owner} has no option {names}; its options here are "
            f"{', '.join(f'`{name}`' for name in known) or 'none'}"
        )
    return dataclasses.replace(options, **values)  # type: ignore


def to_plain(options: Any) -> dict[str, Any]:
    """Return a dataclass as JSON would give it back: lists for tuples."""
    return json.loads(json.dumps(dataclasses.asdict(options)))


def from_plain(kind: type[T], values: Mapping[str, Any]) -> T:
    """Build options from JSON values.

    Raises:
      TypeError: names that `kind` does not have.
      UserError: values that it does not take.
    """
    return kind(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    )


def hints(kind: type) -> dict[str, Any]:
    """Return the annotations of an options class, with what `Annotated` adds."""
    return typing.get_type_hints(kind, include_extras=True)


def names_of(hint: Any) -> list[str] | None:
    """Return the names that an option may have, or None if it is not a name."""
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, Named):
            return list(extra.table)
    return None


# Beyond it a product of two options leaves float32. Whole numbers are those of int32,
# in which devices count.
_LARGEST = 1e12


def _type_faults(options: Any) -> Iterator[str]:
    for name, hint in hints(type(options)).items():
        if not (dataclasses.is_dataclass(options) and hasattr(options, name)):
            continue
        value = getattr(options, name)
        if not _fits(value, hint):
            yield f"`{name}` is {value!r}; it must be {_words(hint)}"


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value may be stored under an annotation."""
    names = names_of(hint)
    if names is not None:
        return value in names
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _fits(value, arguments[0])
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple:
        # Every tuple among the options is `tuple[kind, ...]`.
        kind = arguments[0]
        return isinstance(value, tuple) and all(_fits(x, kind) for x in value)
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and abs(value) <= _LARGEST
    if hint is int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and abs(value) < 2**31
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    """Describe an annotation in words."""
    names = names_of(hint)
    if names is not None:
        return f"one of {', '.join(names)}"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _words(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(argument) for argument in arguments)
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        return f"a list, each {_words(arguments[0])}"
    words = {
        int: "a whole number below 2^31",
        float: "a finite number up to 1e12",
        bool: "true or false",
        str: "a word",
        types.NoneType: "none",
    }
    return words.get(hint, str(hint))
