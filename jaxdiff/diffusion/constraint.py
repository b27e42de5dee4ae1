"""Two kinds of constraint on a sample.

A `Clamp` holds equalities: start, goal, history. It writes the known entries over x_t
at every level, as in the inpainting of Diffuser [Janner et al. 2022, section 3.3]. In
training, the same mask shows the network those entries clean and gives them no weight
in the loss.

A projection holds inequalities: boxes, regions to keep out of. It acts on the estimate
of x0 and on the final sample only, because truncating a noisy x_t would bend its
distribution.

The point nearest to p that is not inside the disc |p - c| < r is

(1) p <- c + max(1, r / |p - c|) (p - c).

Projections act on each row of a trajectory separately. Two rows on opposite sides of a
disc are both outside of it, so a fast path can still cross the disc between them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.pytree import pytree_dataclass

# Length of the offset that stands for the centre itself.
_TINY = 1e-6


@pytree_dataclass
class Clamp:
    """Known entries of a sample: a pytree that is built for each batch.

    Attributes:
      values: broadcasts to x; only read where the mask is true.
      mask: bool, broadcasts to x; True where an entry is known.
    """

    values: Any
    mask: Any


def apply(clamp: Clamp, x: jax.Array) -> jax.Array:
    """Write the known entries over x, bit-equal to `clamp.values`."""
    return jnp.where(clamp.mask, jnp.asarray(clamp.values, x.dtype), x)


def clip_box(
    low: Any, high: Any, *, dims: Sequence[int] | None = None
) -> Callable[[jax.Array], jax.Array]:
    """Build the projection onto the box `low <= x <= high`.

    Args:
      low: smallest value; broadcasts to x, or to its entries `dims`.
      high: largest value; broadcasts as `low` does.
      dims: entries of the last axis to limit, such as velocities; None limits all.
    """
    if dims is None:
        return lambda x: jnp.clip(x, low, high)
    index = np.asarray(dims)
    return lambda x: x.at[..., index].set(jnp.clip(x[..., index], low, high))


def keep_out(
    center: Any, radius: Any, *, dims: Sequence[int]
) -> Callable[[jax.Array], jax.Array]:
    """Build the projection out of a disc, or a ball in three dimensions, equation (1).

    Points inside move radially to the rim, and the centre itself moves along the first
    of `dims`. Points outside stay. A path may still cross the disc between two rows.

    Args:
      center: `[..., len(dims)]`, broadcasts to the points.
      radius: `[...]`, broadcasts to the points without their last axis.
      dims: entries of the last axis of x that hold the point.
    """
    index = np.asarray(dims)

    def project(x: jax.Array) -> jax.Array:
        offset, distance = from_center(x[..., index], center)
        inside = (distance < radius)[..., None]
        rim = center + offset * jnp.asarray(radius / distance)[..., None]
        return x.at[..., index].set(jnp.where(inside, rim, x[..., index]))

    return project


def from_center(point: jax.Array, center: Any) -> tuple[jax.Array, jax.Array]:
    """Return points relative to a centre, and their distance, which is never zero.

    Args:
      point: `[..., D]`.
      center: `[..., D]`.

    Returns:
      Offset `[..., D]` and its length `[...]`. At the centre the offset is a tiny step
      along the first axis, so that the gradient of the length is a unit vector
      everywhere.
    """
    offset = point - jnp.asarray(center)
    first = jnp.zeros(offset.shape[-1]).at[0].set(_TINY)
    at_center = jnp.all(offset == 0, axis=-1, keepdims=True)
    offset = offset + jnp.where(at_center, first, 0.0)
    return offset, jnp.linalg.norm(offset, axis=-1)
