"""Two kinds of constraint on a sample.

Equalities (start, goal, history) are a `Clamp`: the known entries are written over x_t
at every level, as in the inpainting of Diffuser [Janner et al. 2022, section 3.3], and
the same mask tells the loss which entries a network is shown clean and never asked to
predict. Inequalities (boxes, keep-out regions) are projections of the estimate of x0
and of the final sample only: truncating a noisy x_t would bend its distribution.

The nearest point to p that is not inside the disc |p - c| < r is

(1) p <- c + max(1, r / |p - c|) (p - c).

Projections act on each row of a trajectory by itself. Two rows on opposite sides of a
disc are both outside, so a fast path may still cross it between two rows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.pytree import pytree_dataclass


@pytree_dataclass
class Clamp:
    """Known entries of a sample; a pytree, built for each batch.

    Attributes:
      values: broadcasts to x; read where the mask is true.
      mask: boolean, broadcasts to x; true where an entry is known.
    """

    values: Any
    mask: Any


def apply(clamp: Clamp, x: jax.Array) -> jax.Array:
    """Write the known entries over x; they come out bit-equal to `clamp.values`."""
    return jnp.where(clamp.mask, jnp.asarray(clamp.values, x.dtype), x)


def clip_box(
    low: Any, high: Any, *, dims: Sequence[int] | None = None
) -> Callable[[jax.Array], jax.Array]:
    """Build the projection onto the box `low <= x <= high`.

    Args:
      low: smallest value; broadcasts to x, or to its entries `dims`.
      high: largest value, likewise.
      dims: entries of the last axis that are limited, such as the velocities; None for
        all of them.
    """
    if dims is None:
        return lambda x: jnp.clip(x, low, high)
    index = np.asarray(dims)
    return lambda x: x.at[..., index].set(jnp.clip(x[..., index], low, high))


def keep_out(
    center: Any, radius: Any, *, dims: Sequence[int]
) -> Callable[[jax.Array], jax.Array]:
    """Build the projection out of a disc (in three dimensions, a ball), equation (1).

    Points inside are pushed radially to the rim, the very centre along the first of
    `dims`; points outside stay as they are. See the head of this module for what lies
    between the rows of a path.

    Args:
      center: `[..., len(dims)]`, broadcasts to the points.
      radius: `[...]`, broadcasts to the points without their last axis.
      dims: entries of the last axis of x that are the point.
    """
    index = np.asarray(dims)

    def project(x: jax.Array) -> jax.Array:
        offset, distance = from_center(x[..., index], center)
        inside = (distance < radius)[..., None]
        rim = center + offset * jnp.asarray(radius / distance)[..., None]
        return x.at[..., index].set(jnp.where(inside, rim, x[..., index]))

    return project


def from_center(point: jax.Array, center: Any) -> tuple[jax.Array, jax.Array]:
    """Give points relative to a centre, and their distance, which is never zero.

    Args:
      point: `[..., D]`.
      center: `[..., D]`.

    Returns:
      Offset `[..., D]`, at the very centre a tiny step along the first axis, and its
      length `[...]`, whose gradient is a unit vector everywhere.
    """
    offset = point - jnp.asarray(center)
    first = jnp.zeros(offset.shape[-1]).at[0].set(_TINY)
    at_center = jnp.all(offset == 0, axis=-1, keepdims=True)
    offset = offset + jnp.where(at_center, first, 0.0)
    return offset, jnp.linalg.norm(offset, axis=-1)


_TINY = 1e-6
