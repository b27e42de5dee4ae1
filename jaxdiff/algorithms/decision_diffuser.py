"""Decision Diffuser: plan states by conditional denoising (Ajay et al., 2023).

"Is conditional generative modeling all you need for decision making?",
arXiv:2211.15657. A network denoises windows of states s, told what they are to be, a
condition y (`jaxdiff.algorithms.conditions`) that it is not told a quarter of the time:

(1) min_theta E |target - network(x_t, t, drop(y))|^2,   x_t = alpha s + sigma noise,

the last K states that were seen, the history, being shown clean. In a sample the same
rows are clamped, and predictions with and without the condition are combined,

(2) u + w (c - u),   or   u + sum_i w_i (c_i - u)

of several conditions, asked for or ruled out, none of which was seen together with
another (`jaxdiff.diffusion.compose`). Noise is low, at the start and in the steps: what
is likeliest is wanted, and not a fair draw. The action comes from a model of its own,

(3) a = f(s[h], s[h+1])

(`jaxdiff.algorithms.inverse_dynamics`), with what is observed now as s[h]: a plan that
is followed for several steps is so corrected on the way.

With `actions="diffused"` rows are `[action | state]` as in Diffuser, and nothing else
changes: classifier-free Diffuser, the ablation that says what (3) is worth. The paper
trains (1) and the model of (3) by the sum of their losses; their parameters are apart,
so here they are two learners.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdiff.algorithms import diffuser as _diffuser
from jaxdiff.algorithms import following
from jaxdiff.algorithms.backbone import (
    check_width,
    require_horizons,
    trajectory_network,
)
from jaxdiff.algorithms.base import (
    Algorithm,
    Averaging,
    Learner,
    TrainState,
    decaying,
    supervised,
)
from jaxdiff.algorithms.conditions import (
    ConditionedWindows,
    Returns,
    condition_size,
    draw_conditioned,
    measure_returns,
    regions_kept,
    window_conditions,
)
from jaxdiff.algorithms.diffuser import acting_horizons, declared_horizons
from jaxdiff.algorithms.dynamics import inconsistency
from jaxdiff.algorithms.following import Plans, follow
from jaxdiff.algorithms.inverse_dynamics import (
    Inverse,
    Moves,
    autoregressive,
    direct,
    inverse_learner,
)
from jaxdiff.algorithms.support import departure
from jaxdiff.data.episodes import Episodes, acted_rows
from jaxdiff.data.normalizer import (
    Normalizer,
    fit_limits,
    normalize,
    take_dimensions,
    unnormalize,
)
from jaxdiff.data.windows import Windows, padded_windows, window_starts
from jaxdiff.diffusion import (
    Clamp,
    NoiseLevels,
    add_noise,
    compose,
    cosine_schedule,
    ddim,
    ddpm,
    denoiser,
    denoising_loss,
    dpm_solver_pp,
    sample,
    shift_noise,
    subgrid,
    take,
    trajectory_weights,
    uniform_row,
)
from jaxdiff.errors import UserError
from jaxdiff.networks import Conditioned
from jaxdiff.options import check_options
from jaxdiff.record import record

_POSITIVE = (
    *("history", "diffusion_steps", "dim", "dim_mults", "patch", "dit_width"),
    *("dit_depth", "inverse_width", "bins", "accumulate", "ema_every"),
    *("sampling_steps", "candidates"),
)
_NOT_NEGATIVE = (
    *("clip", "goal_dim", "learning_rate", "learning_rate_decay", "ema_decay"),
    *("ema_start", "temperature", "init_temperature", "slack", "replan_every"),
    *("lost", "first_action_weight", "inverse_depth", "discount"),
    *("condition_dropout", "guidance_weight", "warm_start"),
)
_SAMPLERS = {"ddpm": ddpm, "ddim": ddim, "dpmpp2m": dpm_solver_pp}


@dataclasses.dataclass(frozen=True)
class DecisionDiffuserConfig:
    """Options of Decision Diffuser; those that Diffuser has too mean the same here.

    See `jaxdiff.algorithms.diffuser.DiffuserConfig` and, for those of the paper and its
    code, `jaxdiff.presets`.

    Attributes:
      condition: "return", "goal" or "region", see `jaxdiff.algorithms.conditions`.
      regions: for "region", x, y and radius of each, one after another, in the units of
        the observation's first two entries.
      discount: of rewards in a return.
      termination_penalty: added to the last reward of an episode that terminated.
      return_range: the returns that are y = 0 and y = 1, in place of those measured.
      target: the y that is asked for, in place of the one measured.
      condition_dropout: share of examples that are not told the condition.
      guidance_weight: w of equation (2); 1 for the condition alone, 0 for none.
      actions: "inverse" for equation (3), "diffused" for actions in the plan.
      inverse_kind: "direct" or "autoregressive".
      inverse_width, inverse_depth: hidden layers of the model of actions.
      bins: of each dimension of an action, for "autoregressive".
      history: K, states known at the beginning of a window, the present one included;
        those before an episode's first are that first one again.
      horizon: steps of a training window, history included; a plan has
        `horizon - history + 1`.
      horizons, train_horizons: likewise.
      diffusion_steps, noise_shift, backbone, dit_width, dit_depth, dim, dim_mults,
      attention, show_ends, patch, norm_by_row, prediction, clip, normalizer, padding,
      first_action_weight, goal_dim: as in Diffuser. The condition joins the embedding
        of the noise level.
      learning_rate, learning_rate_decay, accumulate, ema_decay, ema_every, ema_start:
        likewise, for every learner.
      sampler, sampling_steps, candidates: likewise.
      temperature: scale of the noise in denoising steps, a standard deviation.
      init_temperature: scale of the noise that a plan begins from.
      choose, slack, controller, kp, kd, replan_every, lost, warm_start: likewise; the
        controller "action" asks equation (3) at every step.
    """

    condition: Literal["return", "goal", "region"] = "return"
    regions: tuple[float, ...] = ()
    discount: float = 0.997
    termination_penalty: float = -100.0
    return_range: tuple[float, ...] = ()
    target: float | None = None
    condition_dropout: float = 0.25
    guidance_weight: float = 1.2
    actions: Literal["inverse", "diffused"] = "inverse"
    inverse_kind: Literal["direct", "autoregressive"] = "direct"
    inverse_width: int = 256
    inverse_depth: int = 2
    bins: int = 80
    history: int = 1
    horizon: int = 32
    horizons: tuple[int, ...] = ()
    train_horizons: tuple[int, ...] = ()
    diffusion_steps: int = 20
    noise_shift: float = 1.0
    backbone: Literal["unet", "dit"] = "unet"
    dit_width: int = 320
    dit_depth: int = 2
    dim: int = 32
    dim_mults: tuple[int, ...] = (1, 2, 4)
    attention: bool = False
    show_ends: bool = False
    patch: int = 1
    norm_by_row: bool = False
    prediction: Literal["x0", "noise", "v"] = "v"
    clip: float | None = 1.0
    normalizer: Literal["limits", "gaussian", "cdf"] = "cdf"
    padding: bool = True
    first_action_weight: float | None = None
    goal_dim: int = 0
    learning_rate: float = 1e-3
    learning_rate_decay: int = 0
    accumulate: int = 1
    ema_decay: float = 0.995
    ema_every: int = 1
    ema_start: int = 0
    sampler: Literal["ddpm", "ddim", "dpmpp2m"] = "ddpm"
    sampling_steps: int | None = None
    temperature: float = 0.5
    init_temperature: float = 0.5
    candidates: int = 1
    choose: Literal["fixed", "earliest"] = "fixed"
    slack: float = 2.5
    controller: Literal["track", "action"] = "action"
    kp: float = 10.0
    kd: float = 4.2
    replan_every: int = 1
    lost: float = 0.0
    warm_start: int = 0

    # What candidates are ranked by; `following` asks.
    rank = "consistency"

    def __post_init__(self) -> None:
        check_options(
            self,
            **dict.fromkeys(("horizon", "horizons", "train_horizons"), 2),
            **dict.fromkeys(_POSITIVE, 1),
            **dict.fromkeys(_NOT_NEGATIVE, 0),
        )
        check_width(self)
        if self.dim % 8:
            raise UserError(f"--dim is {self.dim}; it must be a multiple of 8")
        for name in ("ema_decay", "discount"):
            if getattr(self, name) > 1:
                flag = name.replace("_", "-")
                raise UserError(
                    f"--{flag} is {getattr(self, name)}; it must be at most 1"
                )
        if self.noise_shift <= 0:
            raise UserError(f"--noise-shift is {self.noise_shift}; it must be above 0")
        shortest = min((self.horizon, *self.horizons, *self.train_horizons))
        if self.history >= shortest:
            raise UserError(
                f"--history is {self.history}, and a window of {shortest} steps must "
                "hold it and at least one step to come; choose fewer states"
            )
        self._check_condition()
        self._check_acting()

    def _check_condition(self) -> None:
        regions = np.array(self.regions, np.float64)
        if (self.condition == "region") != bool(self.regions):
            raise UserError(
                "--condition region needs --regions, and --regions needs it; give both "
                "or neither"
            )
        if regions.size % 3 or (regions[2::3] <= 0).any():
            raise UserError(
                f"--regions is {' '.join(map(str, self.regions))}; it must be x, y and "
                "a radius above 0 for each region, such as 1 0 0.5"
            )
        bounds = self.return_range
        if bounds and (len(bounds) != 2 or bounds[0] >= bounds[1]):
            raise UserError(
                f"--return-range is {' '.join(map(str, bounds))}; it must be the "
                "return that is 0 and a larger one that is 1, such as 0 400"
            )
        if self.condition_dropout >= 1:
            raise UserError(
                f"--condition-dropout is {self.condition_dropout}; it must be below 1, "
                "or no condition is ever learned from"
            )
        if self.guidance_weight != 1 and not self.condition_dropout:
            raise UserError(
                f"--guidance-weight is {self.guidance_weight}, and the network never "
                "learned what is done without a condition; train it with "
                "--condition-dropout 0.25"
            )

    def _check_acting(self) -> None:
        levels = self.sampling_steps or self.diffusion_steps
        if levels > self.diffusion_steps:
            raise UserError(
                f"--sampling-steps is {levels}; it must be at most the "
                f"{self.diffusion_steps} of --diffusion-steps"
            )
        if self.warm_start > levels:
            raise UserError(
                f"--warm-start is {self.warm_start}; it must be at most the {levels} "
                "denoising steps of a plan"
            )
        if self.choose == "earliest" and (self.warm_start or not self.goal_dim):
            raise UserError(
                "--choose earliest compares plans of many horizons to a goal, all made "
                "alike; choose --choose fixed, or --goal-dim 2 and --warm-start 0"
            )
        if self.lost and self.controller != "track":
            raise UserError(
                f"--lost is {self.lost}, and only the controller 'track' knows where a "
                "plan should be; choose --controller track or --lost 0"
            )


@record
class Statistics(_diffuser.Statistics):
    """What planning must know of the dataset, beside the network.

    Attributes:
      actions: normalizer of actions to [-1, 1], for the model of actions.
      goals: of the dataset's goals, of no entries where it has none.
      returns: their scale, and what is asked for.
    """

    actions: Normalizer
    goals: Normalizer
    returns: Returns


@record
class Asked:
    """What plans are asked for, as arrays, in place of the options.

    Attributes:
      conditions: `[N, C]`: returns on the scale of the dataset, one-hot regions, or
        goals as the dataset holds them.
      weights: `[N]`, w_i of equation (2), below 0 for a condition that is ruled out.
    """

    conditions: Any
    weights: Any


@record
class Carry:
    """What acting remembers.

    Attributes:
      seen: `[B, K, O]`, the history, the oldest first.
      followed: the plan, see `jaxdiff.algorithms.following`.
    """

    seen: jax.Array
    followed: following.Carry


def measure(config: DecisionDiffuserConfig, train: Episodes) -> Statistics:
    """Measure a dataset: what Diffuser measures, actions, goals and returns.

    Raises:
      UserError: the condition is a goal, and the dataset has none.
    """
    common: Any = config
    found = _diffuser.measure(common, train)
    returns = measure_returns(
        train,
        discount=config.discount,
        termination_penalty=config.termination_penalty,
    )
    if config.return_range:
        low, high = map(np.float32, config.return_range)
        asked = returns.low + returns.target * (returns.high - returns.low)
        returns = dataclasses.replace(
            returns, low=low, high=high, target=(asked - low) / (high - low)
        )
    goals = train.goals
    if goals is None:
        goals = np.zeros((len(train.rewards), 0), np.float32)
    condition_size(config, goals.shape[1])
    return Statistics(
        normalizer=found.normalizer,
        dynamics=found.dynamics,
        support=found.support,
        actions=fit_limits(train.actions[acted_rows(train)]),
        goals=fit_limits(goals),
        returns=returns,
    )


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
    plan = _planner(config, statistics, action_dim)
    invert = _inverter(config, statistics, action_dim)
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


# --- training ------------------------------------------------------------------------


def _denoiser_learner(
    config: DecisionDiffuserConfig, statistics: Statistics, action_dim: int
) -> Learner:
    network: Any = _network(config)
    levels = _levels(config)
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
        mask = _clamp_mask(config, horizon, dim, action_dim, config.goal_dim)

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
        _inverse(config, action_dim),
        cut,
        optax.adam(decaying(config.learning_rate, config.learning_rate_decay)),
        averaging=_averaging(config),
        accumulate=config.accumulate,
    )


# --- planning ------------------------------------------------------------------------


def _planner(
    config: DecisionDiffuserConfig, statistics: Statistics, action_dim: int
) -> Callable[..., Plans]:
    network: Any = _network(config)
    normalizer = statistics.normalizer
    dim = normalizer.low.shape[-1]
    diffused = config.actions == "diffused"
    kept = slice(0 if diffused else action_dim, dim)
    supported = slice(action_dim, action_dim + statistics.support.states.shape[-1])
    levels, past = _levels(config), config.history - 1
    walked = levels
    if config.sampling_steps is not None:
        walked = subgrid(levels, config.sampling_steps)
    tabulate = _SAMPLERS[config.sampler]
    invert = _inverter(config, statistics, action_dim)

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
        mask = _clamp_mask(config, horizon, dim, action_dim, goal_dim)
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
            inconsistency=inconsistency(statistics.dynamics, x),
            # Where there are no goals, there is nowhere to lead away.
            departure=departure(statistics.support, x[..., supported])
            if statistics.support.states.shape[-1]
            else None,
            path=rows(out.path) if return_path else None,
        )

    return plan


def _combined(
    network: Any, params: Any, told: list[jax.Array], weights: list[Any]
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Build the prediction of equation (2), `told` being one `[B, C]` a condition."""
    if weights == [1.0]:  # by the options, and not by an array: the condition alone
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


def _inverter(
    config: DecisionDiffuserConfig, statistics: Statistics, action_dim: int
) -> Callable[..., jax.Array]:
    """Build `(states, key, before [..., O], after [..., O]) -> actions [..., A]`."""
    inverse = _inverse(config, action_dim)
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


def _inverse(config: DecisionDiffuserConfig, action_dim: int) -> Inverse:
    if config.inverse_kind == "direct":
        return direct(action_dim, (config.inverse_width,) * config.inverse_depth)
    return autoregressive(
        action_dim,
        hidden=config.inverse_width,
        depth=config.inverse_depth,
        bins=config.bins,
    )


def _network(config: DecisionDiffuserConfig) -> Conditioned:
    return Conditioned(trajectory_network(config), dim=config.dim)


def _levels(config: DecisionDiffuserConfig) -> NoiseLevels:
    return shift_noise(cosine_schedule(config.diffusion_steps), config.noise_shift)


def _averaging(config: DecisionDiffuserConfig) -> Averaging:
    return Averaging(config.ema_decay, config.ema_every, config.ema_start)


def _trained_horizons(config: DecisionDiffuserConfig) -> list[int]:
    """The horizons of training windows, in the order of their turns, checked."""
    return require_horizons(
        config, list(dict.fromkeys((config.horizon, *config.train_horizons)))
    )


def _clamp_mask(
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
