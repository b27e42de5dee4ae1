"""Two kinds of constraint on a sample.

Equalities (start, goal, history) are a `Clamp`: the known entries are written over x_t
at every level, as in the inpainting of Diffuser [Janner et al. 2022, section 3.3], and
the same mask tells the loss which entries a network is shown clean and never asked to
predict. Inequalities (boxes, keep-out regions) are projections of the estimate of x0
and of the final sample only: truncating a noisy x_t would bend its distribution.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.record import record


@record
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


def clip_box(low: Any, high: Any) -> Callable[[jax.Array], jax.Array]:
    """Build the projection onto the box `low <= x <= high`; both broadcast to x."""
    return lambda x: jnp.clip(x, low, high)
