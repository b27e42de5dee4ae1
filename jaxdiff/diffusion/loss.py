"""The denoising loss of each example.

(1) x_t = alpha x0 + sigma noise, at a level drawn for each example
(2) loss = mean over entries of w |output - target(x0, x_t)|^p, p = 2 or 1
    [Ho et al. 2020, eq. 14, for a noise target with w = 1]
(3) w[h, d] = discount^h / mean_h(discount^h) dim_weight[d], then
    w[0, actions] = first_action_weight
    [the released code of Janner et al. 2022]

Entries that a `Clamp` fixes in sampling enter the network clean and have no weight. The
mean is over *all* entries, clamped ones included, and is not divided by the sum of the
weights, so that gradients are those of the released code, and published learning rates
carry over. So do losses of x0. Where noise is predicted, that code counts clamped
entries, which adds a constant to its losses, (x0 - noise)^2 of these entries.
"""

from collections.abc import Callable
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.diffusion.schedule import (
    LevelFn,
    NoiseLevels,
    Prediction,
    add_noise,
    from_x0,
    take,
)

Network = Callable[[jax.Array, jax.Array], jax.Array]
DrawLevel = Callable[[jax.Array], NoiseLevels]


def uniform_row(levels: NoiseLevels) -> DrawLevel:
    """Build `key -> level`, uniform over the noisy rows 1..N of stacked levels."""
    last = len(levels.alpha) - 1
    return lambda key: take(levels, jax.random.randint(key, (), 1, last + 1))


def uniform_time(level_fn: LevelFn, low: float, high: float) -> DrawLevel:
    """Build `key -> level_fn(time)`, with time uniform in [low, high).

    `low` must be positive, because noise, v and score are not defined at the clean
    level.
    """
    return lambda key: level_fn(jax.random.uniform(key, (), minval=low, maxval=high))


def noise_examples(
    keys: jax.Array, draw_level: DrawLevel, x0: jax.Array
) -> tuple[jax.Array, NoiseLevels]:
    """Noise each example to a level of its own, eq. (1).

    Args:
      keys: `[B]`, one for each example; consumed. Example i depends on keys[i] only, so
        that a batch may be split over devices in any way.
      draw_level: `key -> scalar level`, such as `uniform_row(levels)`.
      x0: `[B, ...]`, clean and normalised.

    Returns:
      x_t, like `x0`, and its levels `[B]`.
    """
    chex.assert_equal(keys.shape, x0.shape[:1])

    def draw(key: jax.Array, example: jax.Array) -> tuple[NoiseLevels, jax.Array]:
        level_key, noise_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, example.shape, example.dtype)
        return draw_level(level_key), noise

    level, noise = jax.vmap(draw)(keys, x0)
    return jnp.asarray(add_noise(x0, noise, level)), level


def denoising_loss(
    keys: jax.Array,
    network: Network,
    draw_level: DrawLevel,
    x0: jax.Array,
    *,
    prediction: Prediction,
    norm: Literal["l2", "l1"] = "l2",
    weight: Any = 1.0,
    mask: Any = None,
) -> jax.Array:
    """Noise each example and score the network's prediction, eqs. (1) and (2).

    Args:
      keys: `[B]`, one for each example; consumed. See `noise_examples`.
      network: `(x_t [B, ...], time [B]) -> output [B, ...]`; it holds parameters and
        conditions.
      draw_level: `key -> scalar level`, such as `uniform_row(levels)`.
      x0: `[B, ...]`, clean and normalised.
      prediction: what the network predicts: `"noise"`, `"x0"`, `"v"` or `"score"`.
      norm: `"l2"` squares the error, `"l1"` takes its absolute value.
      weight: of each entry; broadcasts to `x0`.
      mask: bool, broadcasts to `x0`; True where a `Clamp` fixes the entry.

    Returns:
      `[B]`, each a mean over all entries of the example.

    Raises:
      ValueError: unknown norm or prediction.
    """
    if norm not in ("l2", "l1"):
        raise ValueError(f"norm must be 'l2' or 'l1', got {norm!r}")
    x_t, level = noise_examples(keys, draw_level, x0)
    target = from_x0(x0, x_t, level, prediction=prediction)
    if mask is not None:
        x_t = jnp.where(mask, x0, x_t)
    output = network(x_t, level.time)
    chex.assert_equal_shape([output, x0])
    error = output - target
    cost = weight * (jnp.square(error) if norm == "l2" else jnp.abs(error))
    if mask is not None:
        cost = jnp.where(mask, 0.0, cost)
    return cost.reshape(cost.shape[0], -1).mean(axis=1)


def trajectory_weights(
    horizon: int,
    dim: int,
    *,
    discount: float = 1.0,
    first_action_weight: float | None = None,
    action_dim: int = 0,
    dim_weights: Any = None,
) -> np.ndarray:
    """Compute the weights of a window's entries, eq. (3).

    Args:
      horizon: H, steps of the window.
      dim: D, entries of a step, actions first.
      discount: weight of a step relative to the step before; the mean over steps is 1.
      first_action_weight: replaces the weight of the actions of the first step.
      action_dim: number of actions among the D entries.
      dim_weights: `[D]`, all 1 by default.

    Returns:
      `[H, D]`.
    """
    discounts = np.float64(discount) ** np.arange(horizon)
    per_dim = np.ones(dim) if dim_weights is None else np.asarray(dim_weights)
    weights = np.outer(discounts / discounts.mean(), per_dim)
    if first_action_weight is not None:
        weights[0, :action_dim] = first_action_weight
    return weights
