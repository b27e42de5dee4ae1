"""Plans of Decision Diffuser: what is asked for, how it is denoised, its actions.

Equations are those of `jaxdiff.algorithms.planning.decision_diffuser`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.algorithms.base import TrainState
from jaxdiff.algorithms.planning.conditions import condition_size
from jaxdiff.algorithms.planning.decision_options import (
    DecisionDiffuserConfig,
    Statistics,
)
from jaxdiff.algorithms.planning.dynamics import dynamics_error
from jaxdiff.algorithms.planning.inverse_dynamics import Inverse, autoregressive, direct
from jaxdiff.algorithms.planning.network import trajectory_network
from jaxdiff.algorithms.planning.receding_horizon import Plans
from jaxdiff.algorithms.planning.support import ood_distance
from jaxdiff.data.normalizer import normalize, take_dimensions, unnormalize
from jaxdiff.diffusion import (
    Clamp,
    NoiseLevels,
    add_noise,
    compose,
    cosine_schedule,
    ddim,
    ddpm,
    denoiser,
    dpm_solver_pp,
    sample,
    shift_noise,
    subgrid,
    take,
)
from jaxdiff.errors import UserError
from jaxdiff.networks import Conditioned
from jaxdiff.pytree import pytree_dataclass

_SAMPLERS = {"ddpm": ddpm, "ddim": ddim, "dpmpp2m": dpm_solver_pp}


@pytree_dataclass
class Asked:
    """What plans are asked for, as arrays, in place of the options.

    Attributes:
      conditions: `[N, C]`: returns on the scale of the dataset, one-hot regions, or
        goals as the dataset holds them.
      weights: `[N]`, w_i of equation (2), below 0 for a condition that is ruled out.
    """

    conditions: Any
    weights: Any


def planner(
    config: DecisionDiffuserConfig, statistics: Statistics, action_dim: int
) -> Callable[..., Plans]:
    """Build `plan`, see `jaxdiff.algorithms.planning.decision_diffuser.decision_diffuser`."""
    network: Any = conditioned_network(config)
    normalizer = statistics.normalizer
    dim = normalizer.low.shape[-1]
    diffused = config.actions == "diffused"
    kept = slice(0 if diffused else action_dim, dim)
    supported = slice(action_dim, action_dim + statistics.support.states.shape[-1])
    levels, past = noise_levels(config), config.history - 1
    walked = levels
    if config.sampling_steps is not None:
        walked = subgrid(levels, config.sampling_steps)
    tabulate = _SAMPLERS[config.sampler]
    invert = inverter(config, statistics, action_dim)

    def plan(
        states: Mapping[str, TrainState],
        key: jax.Array,
        observation: jax.Array,
        goal: jax.Array | None = None,
        *,
        horizon: int | None = None,
        candidates: int | None = None,
        return_path: bool = False,
        init: jax.Array | None = None,
        init_level: int | None = None,
        guidance: Asked | None = None,
    ) -> Plans:
        horizon = config.horizon if horizon is None else horizon
        candidates = config.candidates if candidates is None else candidates
        observation = jnp.asarray(observation)
        if observation.ndim == 2:
            observation = jnp.repeat(observation[:, None], config.history, axis=1)
        batch = len(observation)

        def of_problems(x):
            """Repeat `[B, ...]` or `[1, ...]` for all candidates of all problems."""
            x = jnp.broadcast_to(x, (batch, *x.shape[1:]))
            return jnp.repeat(x, candidates, axis=0)

        known = jnp.zeros((batch, horizon, dim))
        known = known.at[:, : past + 1, action_dim:].set(observation)
        if goal is not None:
            end = action_dim + min(config.goal_dim, goal.shape[-1])
            known = known.at[:, -1, action_dim:end].set(goal[:, : end - action_dim])
        goal_dim = 0 if goal is None else config.goal_dim
        mask = clamp_mask(config, horizon, dim, action_dim, goal_dim)
        clamp = Clamp(
            values=of_problems(normalize(normalizer, known))[..., kept],
            mask=mask[:, kept],
        )
        conditions, weights = _asked(config, statistics, goal, guidance)
        told = [of_problems(each) for each in conditions]
        params = states["denoiser"].slow["ema"]
        denoise = denoiser(
            _combined(network, params, told, weights),
            prediction=config.prediction,
            clip=config.clip,
        )
        shape = (batch * candidates, horizon, kept.stop - kept.start)
        steps, start = tabulate(walked), None
        if init is not None:
            key, noise_key = jax.random.split(key)
            noise = config.init_temperature * jax.random.normal(noise_key, shape)
            # What came before the plan is clamped, whatever stands there.
            earlier = ((0, 0), (past, 0), (0, 0))
            clean = normalize(normalizer, jnp.pad(init, earlier, mode="edge"))
            count = init_level or config.warm_start or len(walked.alpha) - 1
            steps = tabulate(take(walked, np.arange(count + 1)))
            clean = of_problems(clean)[..., kept]
            start = jnp.asarray(add_noise(clean, noise, take(walked, count)))
        key, action_key = jax.random.split(key)
        out = sample(
            key,
            denoise,
            steps,
            shape,
            clamp=clamp,
            init=start,
            temperature=config.temperature,
            init_temperature=config.init_temperature,
            return_path=return_path,
        )

        def rows(x):
            """Give rows in environment units, of actions zeros if none are diffused."""
            x = x[..., past:, :]
            x = x.reshape(*x.shape[:-3], batch, candidates, *x.shape[-2:])
            missing = [(0, 0)] * (x.ndim - 1) + [(dim - x.shape[-1], 0)]
            x = unnormalize(normalizer, jnp.pad(x, missing))
            return x if diffused else x.at[..., :action_dim].set(0.0)

        trajectories = rows(out.x)
        if not diffused:
            here = trajectories[..., action_dim:]
            following = jnp.concatenate([here[..., 1:, :], here[..., -1:, :]], axis=-2)
            found = invert(states, action_key, here, following)
            trajectories = trajectories.at[..., :action_dim].set(found)
        x = normalize(normalizer, trajectories)
        return Plans(
            trajectories=trajectories,
            dynamics_error=dynamics_error(statistics.dynamics, x),
            # Where there are no goals, there is nowhere to lead away.
            ood_distance=ood_distance(statistics.support, x[..., supported])
            if statistics.support.states.shape[-1]
            else None,
            path=rows(out.path) if return_path else None,
        )

    return plan


def _combined(
    network: Any, params: Any, told: list[jax.Array], weights: list[Any]
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Build the prediction of equation (2), `told` being one `[B, C]` a condition."""
    # By the options, and not by an array, which may change: the condition alone.
    if all(isinstance(weight, float) for weight in weights) and weights == [1.0]:
        everyone = jnp.ones(len(told[0]), bool)
        return lambda x, time: network.apply(params, x, time, told[0], everyone)
    many = jnp.concatenate([*told, jnp.zeros_like(told[0])])
    return compose(
        lambda x, time, keep: network.apply(params, x, time, many, keep), weights
    )


def _asked(
    config: DecisionDiffuserConfig,
    statistics: Statistics,
    goal: jax.Array | None,
    guidance: Asked | None,
) -> tuple[list[jax.Array], list[Any]]:
    """Say what plans are asked for: conditions `[1 or B, C]`, and their weights.

    Raises:
      UserError: a goal is the condition and there is none, or conditions of another
        size than those of training.
    """
    size = condition_size(config, statistics.goals.low.shape[-1])
    weight = float(config.guidance_weight)
    if guidance is not None:
        conditions = [jnp.asarray(each)[None] for each in guidance.conditions]
        weights = list(guidance.weights)
    elif config.condition == "return":
        target = statistics.returns.target if config.target is None else config.target
        conditions, weights = [jnp.full((1, 1), target)], [weight]
    elif config.condition == "region":
        conditions = [each[None] for each in jnp.eye(size)]
        weights = [weight] * size
    elif goal is None:
        raise UserError(
            "this run was trained on data with goals and asks for one; give it a goal"
        )
    else:
        conditions, weights = [goal], [weight]
    if any(each.shape[-1] != size for each in conditions):
        raise UserError(
            f"a condition of {conditions[0].shape[-1]} numbers was asked for, and this "
            f"run was trained on conditions of {size}; give as many"
        )
    if config.condition == "goal":
        conditions = [normalize(statistics.goals, each) for each in conditions]
    return conditions, weights


def inverter(
    config: DecisionDiffuserConfig, statistics: Statistics, action_dim: int
) -> Callable[..., jax.Array]:
    """Build `(states, key, before [..., O], after [..., O]) -> actions [..., A]`."""
    inverse = inverse_model(config, action_dim)
    states_scale = take_dimensions(statistics.normalizer, slice(action_dim, None))

    def invert(states, key, before, after):
        pair = [normalize(states_scale, each) for each in (before, after)]
        flat = jnp.concatenate(pair, axis=-1)
        found = inverse.act(
            states["inverse"].slow["ema"], key, flat.reshape(-1, flat.shape[-1])
        )
        found = unnormalize(statistics.actions, found)
        return found.reshape(*before.shape[:-1], action_dim)

    return invert


def inverse_model(config: DecisionDiffuserConfig, action_dim: int) -> Inverse:
    """Build the model of equation (3) that the options name."""
    if config.inverse_kind == "direct":
        return direct(action_dim, (config.inverse_width,) * config.inverse_depth)
    return autoregressive(
        action_dim,
        hidden=config.inverse_width,
        depth=config.inverse_depth,
        bins=config.bins,
    )


def conditioned_network(config: DecisionDiffuserConfig) -> Conditioned:
    """Build the denoiser that the options name."""
    return Conditioned(trajectory_network(config), dim=config.dim)


def noise_levels(config: DecisionDiffuserConfig) -> NoiseLevels:
    """Tabulate the noise levels of training."""
    return shift_noise(cosine_schedule(config.diffusion_steps), config.noise_shift)


def clamp_mask(
    config: DecisionDiffuserConfig,
    horizon: int,
    dim: int,
    action_dim: int,
    goal_dim: int,
) -> np.ndarray:
    """Mark the known entries `[H, A + O]`: the history and the goal's at the end.

    The same mask serves the loss and the sampler, so they cannot disagree.
    """
    mask = np.zeros((horizon, dim), bool)
    mask[: config.history, action_dim:] = True
    mask[-1, action_dim : action_dim + goal_dim] = True
    return mask
