"""Trajectories of different lengths in arrays of one shape.

A compiled program knows one horizon. So that it serves shorter ones too, networks of
trajectories x [B, H, C] take a `length` [B]: the first `length[b]` rows of x[b] count,
and the network computes of them what it would compute of x[b, :length[b]] alone, up to
rounding. The rows beyond hold anything. Every layer that mixes rows ignores them, by
`counted`, and no other layer needs to know. None counts all rows and costs nothing.
"""

import jax
import jax.numpy as jnp


def rows_counted(rows: int, length: jax.Array) -> jax.Array:
    """Mark the rows that count, bool `[B, rows, 1]`."""
    return (jnp.arange(rows) < length[:, None])[..., None]


def counted(x: jax.Array, length: jax.Array | None) -> jax.Array:
    """Put zeros into the rows of x `[B, H, C]` beyond `length [B]`."""
    if length is None:
        return x
    return jnp.where(rows_counted(x.shape[1], length), x, 0.0)


def shortened(length: jax.Array | None, factor: int) -> jax.Array | None:
    """Return the lengths where every `factor` rows became one."""
    return None if length is None else length // factor
