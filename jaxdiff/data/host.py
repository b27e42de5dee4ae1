"""Rows that stay in the memory of the host; programs fetch those that they index.

Training keeps its data on the device. Pictures may be too many for that: 45,000 of
150 x 280 pixels are 5.7 GB, as bytes. Wrapped, they are no argument of a program but
part of it, and a batch travels when the program asks for it.
"""

from typing import Any

import jax
import numpy as np


@jax.tree_util.register_pytree_node_class
class HostRows:
    """An array on the host that is indexed inside of programs: a pytree of no leaves.

    Args:
      rows: `[M, ...]`; it must not change any more.
    """

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def __getitem__(self, index: jax.Array) -> jax.Array:
        """Fetch rows, `[...]` -> `[..., ...]`; all of a batch at once under vmap."""
        shape = (*index.shape, *self.rows.shape[1:])
        return jax.pure_callback(
            lambda index: self.rows[np.asarray(index)],
            jax.ShapeDtypeStruct(shape, self.rows.dtype),
            index,
            vmap_method="expand_dims",
        )

    def tree_flatten(self) -> tuple[tuple[()], "HostRows"]:
        """Give no leaves: what is compared between two calls is which array it is."""
        return (), self

    @classmethod
    def tree_unflatten(cls, rows: "HostRows", leaves: Any) -> "HostRows":
        """Give the same rows again."""
        del leaves
        return rows
