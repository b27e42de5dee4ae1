"""Rows that stay in the memory of the host; programs fetch the rows that they index.

Training keeps its data on the device. Pictures may be too large for that: 45,000 of
150 x 280 pixels take 5.7 GB. `HostRows` stay on the host, and a program calls back for
the rows of each batch.
"""

from typing import Any

import jax
import numpy as np


@jax.tree_util.register_pytree_node_class
class HostRows:
    """An array on the host that is indexed inside of programs: a pytree of no leaves.

    Args:
      rows: `[M, ...]`; it must not change later.
    """

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def __getitem__(self, index: jax.Array) -> jax.Array:
        """Fetch rows by index `[...]`; under vmap all rows of a batch at once."""
        shape = (*index.shape, *self.rows.shape[1:])
        return jax.pure_callback(
            lambda index: self.rows[np.asarray(index)],
            jax.ShapeDtypeStruct(shape, self.rows.dtype),
            index,
            vmap_method="expand_dims",
        )

    def tree_flatten(self) -> tuple[tuple[()], "HostRows"]:
        """Return no leaves; jit compares the array itself between two calls."""
        return (), self

    @classmethod
    def tree_unflatten(cls, rows: "HostRows", leaves: Any) -> "HostRows":
        """Return the same rows."""
        del leaves
        return rows
