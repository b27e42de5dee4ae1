"""The learner of a planner's denoiser.

(1) min_theta E w |target - network(x_t, t)|^p,   x_t = alpha x0 + sigma noise,

where what is known of a window (`jaxdiff.algorithms.planning.trajectories`) is shown
clean and weighs nothing. Windows of several lengths take turns, an update each. The
logged loss is the mean over all entries of a window, known ones included, in normalised
units.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from jaxdiff.algorithms.base import Averaging, Learner, supervised
from jaxdiff.algorithms.planning.options import PlannerConfig, training_horizons
from jaxdiff.algorithms.planning.trajectories import known_mask
from jaxdiff.data.spec import Spec
from jaxdiff.diffusion import (
    SCHEDULES,
    NoiseLevels,
    denoising_loss,
    shift_noise,
    trajectory_weights,
    uniform_row,
)


def noise_levels(config: PlannerConfig) -> NoiseLevels:
    """Tabulate the noise levels of training, leaves `[N + 1]`."""
    levels = SCHEDULES[config.schedule](config.diffusion_steps, time="index")
    return shift_noise(levels, config.noise_shift)


def denoiser_learner(
    config: PlannerConfig,
    spec: Spec,
    *,
    prepare: Callable[..., Any],
    draw: Callable[..., Any],
    init_params: Callable[..., Any],
    predict: Callable[..., Any],
    diffused: slice = slice(None),
) -> Learner:
    """Build the learner of equation (1).

    Args:
      config: options.
      spec: of the data.
      prepare: as in a `Learner`.
      draw: as in a `Learner`; windows are as long as the longest of training.
      init_params: `(key, batch) -> params`.
      predict: `(params, keys [B], batch) -> (x0 [B, H, D'], network, keys [B])`: the
        clean windows, `network(x_t, time)`, and keys that it did not use.
      diffused: the entries of a row that windows hold, D'.
    """
    levels = noise_levels(config)

    def loss_of(horizon):
        weight = _weights(config, spec, horizon)[:, diffused]
        mask = known_mask(config, spec, horizon)[:, diffused]

        def loss(params, keys, batch):
            x0, network, keys = predict(params, keys, batch)
            losses = denoising_loss(
                keys,
                network,
                uniform_row(levels),
                x0[:, :horizon],
                prediction=config.prediction,
                norm=config.norm,
                weight=weight,
                mask=mask,
            )
            return losses.mean(), {"loss": losses.mean()}

        return loss

    return supervised(
        prepare,
        draw,
        init_params,
        [loss_of(horizon) for horizon in training_horizons(config)],
        optimizer(config),
        **descent_options(config),
    )


def optimizer(config: PlannerConfig) -> optax.GradientTransformation:
    """Build the optimizer that all learners of a planner use."""
    return optax.adam(config.learning_rate)


def descent_options(config: PlannerConfig) -> dict[str, Any]:
    """Return the keywords of `supervised` that all learners of a planner use."""
    return {
        "averaging": Averaging(config.ema_decay, config.ema_every, config.ema_start),
        "accumulate": config.accumulate,
        "learning_rate_decay": config.learning_rate_decay,
    }


def told_examples(keys: jax.Array, share: float) -> jax.Array:
    """Draw which examples are told their condition, `[B]`; a `share` of them is not.

    Args:
      keys: `[B]`, consumed.
      share: of those that are not told.
    """
    return ~jax.vmap(lambda key: jax.random.bernoulli(key, share))(keys)


def _weights(config: PlannerConfig, spec: Spec, horizon: int) -> np.ndarray:
    """Compute the weights `[H, A + O]` of equation (1)."""
    actions, states = spec.action_dim, spec.observation_dim
    weights = trajectory_weights(
        horizon,
        actions + states,
        discount=config.loss_discount,
        dim_weights=[config.action_weight] * actions + [1.0] * states,
    )
    if config.first_action_weight is not None:
        weights[config.history - 1, :actions] = config.first_action_weight
    return weights
