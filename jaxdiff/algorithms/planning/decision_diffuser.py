"""Decision Diffuser: plan states by conditional denoising (Ajay et al., 2023).

"Is conditional generative modeling all you need for decision making?",
arXiv:2211.15657. A network denoises windows of states s, told what they are to be, a
condition y (`jaxdiff.algorithms.planning.conditions`) that it is not told a quarter of the time:

(1) min_theta E |target - network(x_t, t, drop(y))|^2,   x_t = alpha s + sigma noise,

the last K states that were seen, the history, being shown clean. In a sample the same
rows are clamped, and predictions with and without the condition are combined,

(2) u + w (c - u),   or   u + sum_i w_i (c_i - u)

of several conditions, asked for or ruled out, none of which was seen together with
another (`jaxdiff.diffusion.compose`). Noise is low, at the start and in the steps: what
is likeliest is wanted, and not a fair draw. The action comes from a model of its own,

(3) a = f(s[h], s[h+1])

(`jaxdiff.algorithms.planning.inverse_dynamics`), with what is observed now as s[h]: a plan that
is followed for several steps is so corrected on the way.

With `actions="diffused"` rows are `[action | state]` as in Diffuser, and nothing else
changes: classifier-free Diffuser, the ablation that says what (3) is worth. The paper
trains (1) and the model of (3) by the sum of their losses; their parameters are apart,
so here they are two learners.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdiff.algorithms.base import Algorithm, Averaging, Learner, decaying, supervised
from jaxdiff.algorithms.planning import receding_horizon as following
from jaxdiff.algorithms.planning.conditions import (
    ConditionedWindows,
    draw_conditioned,
    regions_kept,
    window_conditions,
)
from jaxdiff.algorithms.planning.decision_options import (
    DecisionDiffuserConfig,
    Statistics,
    measure,
)
from jaxdiff.algorithms.planning.decision_plans import (
    Asked,
    clamp_mask,
    conditioned_network,
    inverse_model,
    inverter,
    noise_levels,
    planner,
)
from jaxdiff.algorithms.planning.diffuser import acting_horizons, declared_horizons
from jaxdiff.algorithms.planning.inverse_dynamics import Moves, inverse_learner
from jaxdiff.algorithms.planning.network import require_horizons
from jaxdiff.algorithms.planning.receding_horizon import follow
from jaxdiff.data.episodes import Episodes, acted_rows
from jaxdiff.data.normalizer import Normalizer, normalize, take_dimensions, unnormalize
from jaxdiff.data.windows import Windows, padded_windows, window_starts
from jaxdiff.diffusion import denoising_loss, trajectory_weights, uniform_row
from jaxdiff.pytree import pytree_dataclass

__all__ = [
    "Asked",
    "DecisionDiffuserConfig",
    "Statistics",
    "decision_diffuser",
    "measure",
]


@pytree_dataclass
class Carry:
    """What acting remembers.

    Attributes:
      seen: `[B, K, O]`, the history, the oldest first.
      followed: the plan, see `jaxdiff.algorithms.planning.receding_horizon`.
    """

    seen: jax.Array
    followed: following.Carry


def decision_diffuser(
    config: DecisionDiffuserConfig, statistics: Statistics, *, action_dim: int
) -> Algorithm:
    """Build Decision Diffuser for a dataset.

    Args:
      config: options.
      statistics: of the dataset, from `measure`.
      action_dim: A, how many entries of a row are actions.

    Returns:
      An algorithm with the learner "denoiser" and, unless actions are diffused,
      "inverse", whose `plan` is

        plan(states, key, observation [B, O] or [B, K, O], goal [B, G] or None, *,
             horizon=None, candidates=None, return_path=False, init=None,
             init_level=None, guidance=None) -> Plans

      of trajectories `[B, C, H - K + 1, A + O]` from the present state on, for
      histories the oldest first; of one observation it takes the episode to begin
      there. A last row has the action that would stay in it. Of `path` only the states
      are meant. `guidance`, which `act` takes too, is what is `Asked` for; by default
      that is the target, the goal, or to keep out of all regions.

    Raises:
      UserError: a horizon that the network cannot take.
    """
    common: Any = config
    declared_horizons(common)
    _trained_horizons(config)
    plan = planner(config, statistics, action_dim)
    invert = inverter(config, statistics, action_dim)
    dim, past = statistics.normalizer.low.shape[-1], config.history - 1
    ahead = dataclasses.replace(
        config,
        history=1,
        horizon=config.horizon - past,
        horizons=(),
        train_horizons=(),
    )

    def plan_ahead(*arguments, horizon, **options):
        return plan(*arguments, horizon=horizon + past, **options)

    step, init_followed = follow(
        plan_ahead,
        ahead,
        [horizon - past for horizon in acting_horizons(common)],
        dim=dim,
        action_dim=action_dim,
    )

    def act(states, carry, key, observation, reset, goal=None, *, guidance=None):
        seen = _remembered(carry.seen, observation, reset)
        output, followed = step(
            states,
            carry.followed,
            key,
            observation,
            reset,
            goal,
            guidance=guidance,
            history=seen,
        )
        if config.actions == "inverse" and config.controller == "action":
            # `follow` counts on: index is the row that should be reached by this step.
            row = jnp.minimum(followed.index, followed.last)
            target = jax.vmap(lambda rows, i: rows[i])(followed.plan, row)
            action = invert(states, key, observation, target[:, action_dim:])
            output = dataclasses.replace(output, action=action)
        return output, Carry(seen=seen, followed=followed)

    def init_carry(batch):
        seen = jnp.zeros((batch, config.history, dim - action_dim))
        return Carry(seen=seen, followed=init_followed(batch))

    learners = {"denoiser": _denoiser_learner(config, statistics, action_dim)}
    if config.actions == "inverse":
        learners["inverse"] = _inverse_learner(config, statistics, action_dim)
    return Algorithm(learners=learners, act=act, init_carry=init_carry, plan=plan)


def _remembered(seen: jax.Array, observation: jax.Array, reset: jax.Array) -> jax.Array:
    """Let an observation `[B, O]` join histories `[B, K, O]`, or begin new ones."""
    longer = jnp.concatenate([seen[:, 1:], observation[:, None]], axis=1)
    return jnp.where(reset[:, None, None], observation[:, None], longer)


def _denoiser_learner(
    config: DecisionDiffuserConfig, statistics: Statistics, action_dim: int
) -> Learner:
    network: Any = conditioned_network(config)
    levels = noise_levels(config)
    horizons = _trained_horizons(config)
    dim = statistics.normalizer.low.shape[-1]
    # Of rows `[action | state]`, the entries that are diffused.
    kept = slice(0 if config.actions == "diffused" else action_dim, dim)
    regions = jnp.asarray(config.regions, jnp.float32).reshape(-1, 3)

    def prepare(data, frozen, key):
        del frozen, key
        windows = _windows(config, statistics.normalizer, data, max(horizons))
        found = window_conditions(
            config, statistics.returns, data, np.asarray(windows.starts)
        )
        if config.condition == "goal":
            found = normalize(statistics.goals, found)
        return ConditionedWindows(windows=windows, conditions=jnp.asarray(found))

    def draw(data, key):
        key, region_key = jax.random.split(key)
        window, condition = draw_conditioned(
            data, key, horizon=max(horizons), before=config.history - 1
        )
        told = jnp.asarray(True)
        if config.condition == "region":
            rows = unnormalize(statistics.normalizer, window)
            positions = rows[:, action_dim : action_dim + 2]
            condition, told = regions_kept(region_key, positions, regions)
        return window[:, kept], condition, told

    def init_params(key, batch):
        x, condition, told = (leaf[:1] for leaf in batch)
        return network.init(key, x, jnp.zeros(1), condition, told)

    def loss_of(horizon):
        weight = trajectory_weights(horizon, dim)
        if config.first_action_weight is not None:
            weight[config.history - 1, :action_dim] = config.first_action_weight
        mask = clamp_mask(config, horizon, dim, action_dim, config.goal_dim)

        def loss(params, keys, batch):
            x, condition, told = batch
            drop_keys, keys = jax.vmap(jax.random.split, out_axes=1)(keys)
            share = config.condition_dropout
            dropped = jax.vmap(lambda key: jax.random.bernoulli(key, share))(drop_keys)
            losses = denoising_loss(
                keys,
                lambda x, time: network.apply(
                    params, x, time, condition, told & ~dropped
                ),
                uniform_row(levels),
                x[:, :horizon],
                prediction=config.prediction,
                weight=weight[:, kept],
                mask=mask[:, kept],
            )
            return losses.mean(), {"loss": losses.mean()}

        return loss

    return supervised(
        prepare,
        draw,
        init_params,
        [loss_of(horizon) for horizon in horizons],
        optax.adam(decaying(config.learning_rate, config.learning_rate_decay)),
        averaging=_averaging(config),
        accumulate=config.accumulate,
    )


def _windows(
    config: DecisionDiffuserConfig,
    normalizer: Normalizer,
    episodes: Episodes,
    horizon: int,
) -> Windows:
    """Cut windows whose starts are present rows, with what came before them."""
    rows = np.concatenate([episodes.actions, episodes.observations], axis=1)
    rows = normalize(normalizer, rows)
    if config.padding:
        # Zeros before normalising, as the released code pads.
        fill = normalize(normalizer, jnp.zeros(rows.shape[-1]))
        windows = padded_windows(rows, episodes, fill=fill)
    else:
        ahead = horizon - config.history + 1
        starts = window_starts(episodes, ahead)
        windows = Windows(rows=rows, starts=jnp.asarray(starts))
    episode = np.searchsorted(episodes.starts, windows.starts, side="right") - 1
    first = jnp.asarray(episodes.starts[episode], jnp.int32)
    return dataclasses.replace(windows, first=first)


def _inverse_learner(
    config: DecisionDiffuserConfig, statistics: Statistics, action_dim: int
) -> Learner:
    states = take_dimensions(statistics.normalizer, slice(action_dim, None))

    def cut(episodes):
        rows = acted_rows(episodes)
        before, after = (
            normalize(states, episodes.observations[rows + step]) for step in (0, 1)
        )
        actions = normalize(statistics.actions, episodes.actions[rows])
        return Moves(before=before, after=after, actions=actions)

    return inverse_learner(
        inverse_model(config, action_dim),
        cut,
        optax.adam(decaying(config.learning_rate, config.learning_rate_decay)),
        averaging=_averaging(config),
        accumulate=config.accumulate,
    )


def _averaging(config: DecisionDiffuserConfig) -> Averaging:
    return Averaging(config.ema_decay, config.ema_every, config.ema_start)


def _trained_horizons(config: DecisionDiffuserConfig) -> list[int]:
    """The horizons of training windows, in the order of their turns, checked."""
    return require_horizons(
        config, list(dict.fromkeys((config.horizon, *config.train_horizons)))
    )
