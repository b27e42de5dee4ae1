"""A linear model of one step, and the dynamics error of a planned trajectory.

With normalised rows [action a | observation s], least squares over the transitions of a
dataset gives W in

(1) s[h+1] ~ W^T (a[h], s[h], 1).

A trajectory of horizon H has the residuals and the dynamics error

(2) residual[h] = max over dims of |s[h+1] - W^T (a[h], s[h], 1)| / scale,
(3) dynamics_error = mean of the largest tenth of residual[0 .. H-2],

where `scale` is the root mean square error of (1) in each dimension. The mean over the
worst steps finds the few impossible ones, such as a jump through an obstacle, that a
mean over all steps would hide.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.pytree import pytree_dataclass


@pytree_dataclass
class Dynamics:
    """The linear model and its error on the data it was fitted to.

    Attributes:
      weights: `[A + O + 1, O]`, W of equation (1).
      scale: `[O]`, root mean square of the error of equation (1).
    """

    weights: Any
    scale: Any


def fit_dynamics(rows: np.ndarray, following: np.ndarray) -> Dynamics:
    """Fit the model by least squares.

    Args:
      rows: `[M, A + O]`, normalised, one a transition.
      following: `[M, O]`, the normalised observation after it.
    """
    inputs = np.concatenate([rows, np.ones_like(rows[:, :1])], axis=1)
    weights = np.linalg.lstsq(inputs, following, rcond=None)[0].astype(np.float32)
    error = inputs @ weights - following
    # A dimension that the model predicts exactly must not divide by zero.
    scale = np.maximum(np.sqrt(np.mean(error**2, axis=0)), 1e-6).astype(np.float32)
    return Dynamics(weights=weights, scale=scale)


def dynamics_error(
    dynamics: Dynamics, trajectories: Any, length: jax.Array | None = None
) -> jax.Array:
    """Compute the dynamics error of trajectories, equation (3).

    Args:
      dynamics: the model.
      trajectories: `[..., H, A + O]`, normalised.
      length: `[...]` rows that count, in place of H.

    Returns:
      `[...]`, the larger the less like the data.
    """
    trajectories = jnp.asarray(trajectories)
    observation_dim = dynamics.scale.shape[0]
    before, after = trajectories[..., :-1, :], trajectories[..., 1:, -observation_dim:]
    expected = before @ dynamics.weights[:-1] + dynamics.weights[-1]
    residual = jnp.max(jnp.abs(after - expected) / dynamics.scale, axis=-1)
    worst = max(1, residual.shape[-1] // 10)
    if length is None:
        return jax.lax.top_k(residual, worst)[0].mean(-1)
    steps = length[..., None] - 1
    residual = jnp.where(jnp.arange(residual.shape[-1]) < steps, residual, 0.0)
    largest, count = jax.lax.top_k(residual, worst)[0], jnp.maximum(1, steps // 10)
    return jnp.where(jnp.arange(worst) < count, largest / count, 0.0).sum(-1)
