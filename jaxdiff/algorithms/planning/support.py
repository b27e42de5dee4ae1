"""Where the data have been: the out-of-distribution distance of a trajectory.

A model of one step finds no fault with a plan that runs through an obstacle at a steady
speed, but no trajectory of the dataset was ever there. With the entries that goals are
given in of K states q of the dataset,

(1) distance(s) = min_k |s - q_k|,
(2) ood_distance = max over steps of distance(s[h]) / limit.

999 of 1,000 other states of the dataset stay below `limit`, so that an
out-of-distribution distance of 1 or less is nothing unusual. It says less the more
entries a goal has: states become rare in their space, and the limit grows.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.pytree import pytree_dataclass

_STATES = 4096
_USUAL = 0.999


@pytree_dataclass
class Support:
    """States of a dataset, and how far from them its other states are.

    Attributes:
      states: `[K, G]`, normalised.
      limit: `[]`, see equation (2).
    """

    states: Any
    limit: Any


def fit_support(states: np.ndarray, *, seed: int = 0) -> Support:
    """Keep some states, and measure how near the others are.

    Args:
      states: `[M, G]`, normalised; G may be 0, where there are no goals.
      seed: of the choice.
    """
    states = np.asarray(states, np.float32)
    order = np.random.default_rng(seed).permutation(len(states))
    count = min(_STATES, (len(states) + 1) // 2)
    kept, others = states[order[:count]], states[order[count : 5 * count]]
    distances = np.append(_distance(kept, others), 0.0)
    # Where all states are the same nothing may divide by zero.
    limit = max(float(np.quantile(distances, _USUAL)), 1e-6)
    return Support(states=kept, limit=np.float32(limit))


def ood_distance(support: Support, trajectories: Any) -> jax.Array:
    """Compute the out-of-distribution distance of trajectories, equation (2).

    Args:
      support: of the data.
      trajectories: `[..., H, G]`, normalised.

    Returns:
      `[...]`, the larger the farther.
    """
    distances = _distance(support.states, jnp.asarray(trajectories))
    return distances.max(-1) / support.limit


def _distance(states: Any, x: Any) -> jax.Array:
    """Distances of x `[..., G]` to the nearest state, equation (1)."""
    # |s - q|^2 = |s|^2 - 2 s q + |q|^2 is one matrix product, and below zero by
    # rounding alone; the root of a negative number would be NaN.
    products = jnp.square(x).sum(-1, keepdims=True) - 2 * x @ states.T
    squares = products + jnp.square(states).sum(-1)
    return jnp.sqrt(jnp.maximum(squares.min(-1), 0.0))
