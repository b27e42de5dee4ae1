"""Diffuser: plan by denoising whole trajectories (Janner et al., 2022).

A trajectory of horizon H is an array `[H, A + O]`, actions first. A temporal U-Net
learns to denoise windows of the dataset whose first state (and, for goals, whose last
position) is shown to it clean,

(1) min_theta E |x0 - network(x_t, t)|^2,   x_t = alpha x0 + sigma noise, clamped,

and a plan is a sample of the learned distribution with the same entries clamped to the
present state and to the goal. Any horizon that the U-Net divides may be asked for.

With a model of returns V (`jaxdiff.algorithms.planning.returns`) plans are guided towards
reward, before each denoising step (the released code) or after it (the paper's
algorithm 1),

(2) x <- x + scale * variance * grad V(x, t),   clamped,

and the candidate that V expects most of may be the one to follow.

A plan that is renewed need not begin from pure noise: what is left of the old one,
noised to level k, is denoised in k steps (section 5.4).

`jaxdiff.algorithms.planning.dynamics` measures how well a plan agrees with a model of one step;
`jaxdiff.algorithms.planning.receding_horizon` chooses a plan and turns it into actions.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdiff.algorithms.base import (
    Algorithm,
    Averaging,
    Learner,
    TrainState,
    decaying,
    supervised,
)
from jaxdiff.algorithms.planning.dynamics import Dynamics, dynamics_error, fit_dynamics
from jaxdiff.algorithms.planning.network import (
    check_width,
    require_horizons,
    trajectory_network,
)
from jaxdiff.algorithms.planning.receding_horizon import Plans, follow
from jaxdiff.algorithms.planning.returns import (
    expected_return,
    return_value,
    returns_learner,
)
from jaxdiff.algorithms.planning.support import Support, fit_support, ood_distance
from jaxdiff.data.episodes import Episodes, acted_rows
from jaxdiff.data.normalizer import Normalizer, fit_normalizer, normalize, unnormalize
from jaxdiff.data.windows import Windows, draw_window, padded_windows, window_starts
from jaxdiff.diffusion import (
    Clamp,
    NoiseLevels,
    add_noise,
    climb,
    cosine_schedule,
    ddim,
    ddpm,
    denoiser,
    denoising_loss,
    dpm_solver_pp,
    sample,
    shift_noise,
    smooth_covariance,
    subgrid,
    take,
    trajectory_weights,
    uniform_row,
    value_guide,
)
from jaxdiff.diffusion.guide import Value
from jaxdiff.diffusion.sampler import Guide, Projection
from jaxdiff.errors import UserError
from jaxdiff.networks import TemporalValue
from jaxdiff.options import check_options
from jaxdiff.pytree import pytree_dataclass

_POSITIVE = (
    *("diffusion_steps", "dim", "dim_mults", "patch", "accumulate", "ema_every"),
    *("sampling_steps", "candidates", "guide_steps", "dit_width", "dit_depth"),
)
_NOT_NEGATIVE = (
    *("clip", "goal_dim", "learning_rate", "learning_rate_decay", "ema_decay"),
    *("ema_start", "temperature", "slack", "replan_every", "lost"),
    *("loss_discount", "action_weight", "first_action_weight"),
    *("discount", "guide_scale", "guide_stop", "warm_start"),
)
_SAMPLERS = {"ddpm": ddpm, "ddim": ddim, "dpmpp2m": dpm_solver_pp}


@dataclasses.dataclass(frozen=True)
class DiffuserConfig:
    """Options of Diffuser; see `jaxdiff.tasks.presets` for those of the paper and its code.

    The defaults learn a maze in minutes on two cores. Two of them are not Diffuser's:
    the network predicts v, whose estimate of x0 is near x_t at low noise (to predict x0
    itself, it must first undo its own normalisation layers), and actions, which are
    noisy and which the controller does not need, weigh little.

    Attributes:
      horizon: steps of a training window, and of a plan unless asked otherwise.
      horizons: horizons that may be planned for; each is compiled once.
      train_horizons: further lengths of training windows; updates take turns. The
        U-Net's normalisation depends on the horizon, and plans of a horizon it never
        saw shrink towards the middle of a maze.
      diffusion_steps: noise levels N.
      noise_shift: see `jaxdiff.diffusion.shift_noise`; 1 for the cosine schedule as
        it is.
      backbone: "unet", or "dit" for a transformer (`jaxdiff.networks.dit`), which reads
        none of `dim_mults`, `attention`, `show_ends` and `norm_by_row`.
      dit_width: channels of the transformer, a multiple of 32.
      dit_depth: its blocks.
      dim: width of the U-Net, and of the embedding of noise levels.
      dim_mults: width of each level in units of `dim`.
      attention: linear attention at every level (the released HalfCheetah network).
      show_ends: show every block of the U-Net the first and the last row, noised as
        they are where they are not clamped.
      patch: rows of a trajectory that enter and leave the network as one.
      norm_by_row: let the U-Net normalise each row by itself: its statistics over all
        rows tell of the whole window and of its length.
      prediction: what the network predicts, "x0", "noise" or "v".
      clip: limit of |x0| in normalised units, None for none.
      normalizer: "limits", "gaussian" or "cdf".
      padding: let windows run past the end of an episode.
      norm: "l2" or "l1".
      action_weight: weight of actions in the loss, relative to observations.
      first_action_weight: weight of the first action, in place of `action_weight`.
      loss_discount: weight of a step relative to the one before.
      goal_dim: leading entries of the last state that are clamped to the goal, 0 for
        planning without goals. 2 is a position; with 4 a maze goal is a state at rest.
      learning_rate: of Adam, for every learner, as all options of training here.
      learning_rate_decay: cosine decay to 0 over this many updates, 0 for constant.
      accumulate: slices in which a batch is worked through, to save memory.
      ema_decay, ema_every, ema_start: see `jaxdiff.algorithms.base.ema`.
      return_model: also train a model of returns, the learner "returns".
      discount: of rewards in a return; the released value is that of the checkpoints
        that were published, not the default of the code (0.99).
      termination_penalty: added to the last reward of an episode that terminated.
      noised_returns: the return model sees noised windows, otherwise clean ones only.
      sampler: "ddpm", "ddim" or "dpmpp2m".
      sampling_steps: denoising steps of a plan; None for all `diffusion_steps`.
      temperature: scale of all noise in sampling.
      candidates: plans made for each problem and horizon.
      guide_scale: of equation (2), 0 for plans without guidance. It belongs to the
        units of the rewards and to the horizon: no value serves two datasets.
      guide_at: "x_t", before a denoising step, or "mean", after it.
      guide_steps: how often (2) is applied in a denoising step.
      guide_stop: noise level, counted from 0 for the least, below which it is not.
      guide_scale_by: "variance" as in (2), its root "std", or "none".
      rank: which candidate is the best, by "consistency" with the dynamics or by the
        "return" that the return model expects of it.
      choose: "fixed" plans for `horizon`; "earliest" for the earliest arrival.
      slack: how much less consistent than the plan of the longest horizon an earlier
        one may be, as a factor.
      controller: "track" follows the planned states with gains `kp`, `kd` on position
        and velocity; "action" executes the planned actions.
      kp: force per metre.
      kd: force per metre per second.
      replan_every: steps between two plans; 0 plans once an episode, and without
        goals whenever a plan has come to its end.
      lost: distance from the planned position at which a plan is given up and a new
        one made, metres; 0 for never. For the controller "track".
      warm_start: how many of the sampler's levels the last plan is noised up again, and
        how many denoising steps a renewed plan therefore takes; 0 plans from pure
        noise, as the first plan of an episode always is.
    """

    horizon: int = 128
    horizons: tuple[int, ...] = (24, 40, 56, 72, 92, 112, 136, 160)
    train_horizons: tuple[int, ...] = ()
    diffusion_steps: int = 64
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
    normalizer: Literal["limits", "gaussian", "cdf"] = "limits"
    padding: bool = False
    norm: Literal["l2", "l1"] = "l2"
    action_weight: float = 0.1
    first_action_weight: float | None = None
    loss_discount: float = 1.0
    goal_dim: int = 2
    learning_rate: float = 1e-3
    learning_rate_decay: int = 0
    accumulate: int = 1
    ema_decay: float = 0.995
    ema_every: int = 1
    ema_start: int = 0
    return_model: bool = False
    discount: float = 0.997
    termination_penalty: float = -100.0
    noised_returns: bool = True
    sampler: Literal["ddpm", "ddim", "dpmpp2m"] = "ddpm"
    sampling_steps: int | None = None
    temperature: float = 1.0
    candidates: int = 2
    guide_scale: float = 0.0
    guide_at: Literal["x_t", "mean"] = "x_t"
    guide_steps: int = 1
    guide_stop: int = 0
    guide_scale_by: Literal["variance", "std", "none"] = "variance"
    rank: Literal["consistency", "return"] = "consistency"
    choose: Literal["fixed", "earliest"] = "earliest"
    slack: float = 2.5
    controller: Literal["track", "action"] = "track"
    kp: float = 10.0
    kd: float = 4.2
    replan_every: int = 0
    lost: float = 0.0
    warm_start: int = 0

    def __post_init__(self) -> None:
        check_options(
            self,
            **dict.fromkeys(("horizon", "horizons", "train_horizons"), 2),
            **dict.fromkeys(_POSITIVE, 1),
            **dict.fromkeys(_NOT_NEGATIVE, 0),
        )
        if self.dim % 8:
            raise UserError(f"--dim is {self.dim}; it must be a multiple of 8")
        check_width(self)
        if self.ema_decay > 1:
            raise UserError(f"--ema-decay is {self.ema_decay}; it must be at most 1")
        if self.noise_shift <= 0:
            raise UserError(f"--noise-shift is {self.noise_shift}; it must be above 0")
        if (self.sampling_steps or 0) > self.diffusion_steps:
            raise UserError(
                f"--sampling-steps is {self.sampling_steps}; it must be at most the "
                f"{self.diffusion_steps} of --diffusion-steps"
            )
        if self.choose == "earliest" and not self.goal_dim:
            raise UserError(
                "without a goal (--goal-dim 0) a plan arrives nowhere, early or late; "
                "choose --choose fixed"
            )
        if self.lost and self.controller != "track":
            raise UserError(
                f"--lost is {self.lost}, and only the controller 'track' knows where a "
                "plan should be; choose --controller track or --lost 0"
            )
        self._check_warm_start()
        if self.discount > 1:
            raise UserError(f"--discount is {self.discount}; it must be at most 1")
        if self.return_model:
            self._check_return_model()
        elif self.guide_scale or self.rank == "return":
            raise UserError(
                "--guide-scale and --rank return need a model of returns; train one "
                "with --return-model"
            )

    def _check_warm_start(self) -> None:
        """Check that there are so many levels, and one plan to start from."""
        levels = self.sampling_steps or self.diffusion_steps
        if self.warm_start > levels:
            raise UserError(
                f"--warm-start is {self.warm_start}; it must be at most the {levels} "
                "denoising steps of a plan"
            )
        if self.warm_start and self.choose == "earliest":
            raise UserError(
                f"--warm-start is {self.warm_start}, and --choose earliest compares "
                "plans of many horizons that must be made alike; choose --choose fixed "
                "or --warm-start 0"
            )

    def _check_return_model(self) -> None:
        """Check what the network of returns, which has one horizon, can be made of."""
        if set(self.horizons) - {self.horizon}:
            raise UserError(
                "a model of returns knows one horizon, and --horizons names "
                f"{', '.join(map(str, self.horizons))}; choose --horizons "
                f"{self.horizon}"
            )
        width = self.dim * self.dim_mults[-1]
        if width % 32:
            raise UserError(
                f"the last level of --dim-mults has a width of {width}, of which a "
                "model of returns takes a quarter in groups of 8; choose a multiple "
                "of 32"
            )


@pytree_dataclass
class Statistics:
    """What planning must know of the dataset, beside the network.

    Attributes:
      normalizer: of rows `[action | observation]`.
      dynamics: the model that plans are held against.
      support: where the data have been, in the entries that goals are given in.
    """

    normalizer: Normalizer
    dynamics: Dynamics
    support: Support


@pytree_dataclass
class Guidance:
    """What guidance may be changed to where plans are made, as arrays.

    Attributes:
      scale: `[]`, in place of the option `guide_scale`.
      stop: `[]`, in place of `guide_stop`.
    """

    scale: Any
    stop: Any


def measure(config: DiffuserConfig, train: Episodes) -> Statistics:
    """Measure a dataset: its normalizer, the dynamics of one step, its support."""
    rows = _rows(train)
    # The last row of an episode has an action of zeros, which is no data.
    acted = acted_rows(train)
    normalizer = fit_normalizer(config.normalizer, rows[acted])
    scaled = np.asarray(normalize(normalizer, rows))
    action_dim = train.actions.shape[1]
    following = np.roll(scaled, -1, axis=0)[:, action_dim:]
    return Statistics(
        normalizer=normalizer,
        dynamics=fit_dynamics(scaled[acted], following[acted]),
        support=fit_support(scaled[:, action_dim : action_dim + config.goal_dim]),
    )


def diffuser(
    config: DiffuserConfig, statistics: Statistics, *, action_dim: int
) -> Algorithm:
    """Build Diffuser for a dataset.

    Args:
      config: options.
      statistics: of the dataset, from `measure`.
      action_dim: A, how many entries of a row are actions.

    Returns:
      An algorithm with the learner "denoiser" and, if `return_model`, "returns", whose
      `plan` is

        plan(states, key, observation [B, O], goal [B, G] or None, *, horizon=None,
             candidates=None, return_path=False, value=None, value_scale=1.0,
             value_span=None, project=None, known=None, init=None, init_level=None,
             guidance=None) -> Plans

      Tasks that nothing was trained for are in environment units: `value`, a function
      of trajectories `[N, H, A + O] -> [N]` that plans climb, its gradient times
      `value_scale` and spread over `value_span` steps, by default a fifth of the
      horizon (see `climb` and `smooth_covariance`); `project`, a function of
      trajectories that is applied to every estimate and to the plan; `known`, a `Clamp`
      of further entries, `[H, A + O]` or `[B, H, A + O]`. A plan may start from
      trajectories `init [B, H, A + O]`, noised so that `init_level` of the sampler's
      steps remain, by default `warm_start`, or all. N is B times the candidates, those
      of one problem next to each other. A `Guidance`, which `act` takes too, stands in
      for the options of that name: one may vmap over its arrays.

    Raises:
      UserError: a horizon that the network cannot take.
    """
    declared_horizons(config)
    _trained_horizons(config)
    plan = _planner(config, statistics, action_dim)
    dim = statistics.normalizer.low.shape[-1]
    act, init_carry = follow(
        plan, config, acting_horizons(config), dim=dim, action_dim=action_dim
    )
    learners = {"denoiser": _denoiser_learner(config, statistics, action_dim)}
    if config.return_model:
        learners["returns"] = _returns_learner(config, statistics, action_dim)
    return Algorithm(
        learners=learners,
        act=act,
        init_carry=init_carry,
        plan=plan,
    )


def _denoiser_learner(
    config: DiffuserConfig, statistics: Statistics, action_dim: int
) -> Learner:
    network: Any = _network(config)
    dim = statistics.normalizer.low.shape[-1]
    levels = _levels(config)
    horizons = _trained_horizons(config)

    def prepare(data, frozen, key):
        del frozen, key
        return _windows(config, statistics.normalizer, data, max(horizons))

    def draw(data, key):
        return draw_window(data, key, max(horizons))

    def init_params(key, batch):
        return network.init(key, batch[:1], jnp.zeros(1))

    def loss_of(horizon):
        weight = trajectory_weights(
            horizon,
            dim,
            discount=config.loss_discount,
            first_action_weight=config.first_action_weight,
            action_dim=action_dim,
            dim_weights=[config.action_weight] * action_dim
            + [1.0] * (dim - action_dim),
        )
        mask = _clamp_mask(horizon, dim, action_dim, config.goal_dim)

        def loss(params, keys, batch):
            losses = denoising_loss(
                keys,
                lambda x, time: network.apply(params, x, time),
                uniform_row(levels),
                batch[:, :horizon],
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
        [loss_of(horizon) for horizon in horizons],
        optax.adam(decaying(config.learning_rate, config.learning_rate_decay)),
        averaging=_averaging(config),
        accumulate=config.accumulate,
    )


def _returns_learner(
    config: DiffuserConfig, statistics: Statistics, action_dim: int
) -> Learner:
    dim = statistics.normalizer.low.shape[-1]
    return returns_learner(
        _return_network(config),
        lambda episodes: _windows(
            config, statistics.normalizer, episodes, config.horizon
        ),
        _levels(config),
        optax.adam(decaying(config.learning_rate, config.learning_rate_decay)),
        horizon=config.horizon,
        mask=_clamp_mask(config.horizon, dim, action_dim, config.goal_dim),
        discount=config.discount,
        termination_penalty=config.termination_penalty,
        averaging=_averaging(config),
        noised=config.noised_returns,
        accumulate=config.accumulate,
    )


def _planner(
    config: DiffuserConfig, statistics: Statistics, action_dim: int
) -> Callable[..., Plans]:
    network: Any = _network(config)
    normalizer = statistics.normalizer
    dim = normalizer.low.shape[-1]
    # The entries that the support was measured in, whatever goals are given now.
    supported = slice(action_dim, action_dim + statistics.support.states.shape[-1])
    levels = _levels(config)
    walked = levels
    if config.sampling_steps is not None:
        walked = subgrid(levels, config.sampling_steps)
    tabulate = _SAMPLERS[config.sampler]

    def plan(
        states: Mapping[str, TrainState],
        key: jax.Array,
        observation: jax.Array,
        goal: jax.Array | None = None,
        *,
        horizon: int | None = None,
        candidates: int | None = None,
        return_path: bool = False,
        value: Callable[[jax.Array], jax.Array] | None = None,
        value_scale: Any = 1.0,
        value_span: float | None = None,
        project: Projection | None = None,
        known: Clamp | None = None,
        init: jax.Array | None = None,
        init_level: int | None = None,
        guidance: Guidance | None = None,
    ) -> Plans:
        horizon = config.horizon if horizon is None else horizon
        candidates = config.candidates if candidates is None else candidates
        batch = observation.shape[0]
        clamp = _clamp(
            normalizer, observation, goal, known, horizon, action_dim, config.goal_dim
        )
        clamp = Clamp(
            values=jnp.repeat(clamp.values, candidates, axis=0), mask=clamp.mask
        )
        params = states["denoiser"].slow["ema"]
        denoise = denoiser(
            lambda x, time: network.apply(params, x, time),
            prediction=config.prediction,
            clip=config.clip,
        )
        if value is not None:
            denoise = climb(
                denoise,
                lambda x: value(unnormalize(normalizer, x)),
                scale=value_scale,
                covariance=smooth_covariance(
                    horizon, horizon / 5 if value_span is None else value_span
                ),
            )
        returns = _value(config, levels, states, horizon)
        shape = (batch * candidates, horizon, dim)
        steps, start = tabulate(walked), None
        if init is not None:
            key, noise_key = jax.random.split(key)
            noise = config.temperature * jax.random.normal(noise_key, shape)
            clean = jnp.repeat(normalize(normalizer, init), candidates, axis=0)
            count = init_level or config.warm_start or len(walked.alpha) - 1
            steps = tabulate(take(walked, np.arange(count + 1)))
            start = jnp.asarray(add_noise(clean, noise, take(walked, count)))
        out = sample(
            key,
            denoise,
            steps,
            shape,
            guide=_guide(config, returns, guidance),
            guide_at=config.guide_at,
            guide_steps=config.guide_steps,
            clamp=clamp,
            project=None if project is None else _in_units(normalizer, project),
            init=start,
            temperature=config.temperature,
            return_path=return_path,
        )

        def by_problem(x):
            return x.reshape(*x.shape[:-3], batch, candidates, horizon, dim)

        def by_candidate(x):
            return x.reshape(batch, candidates)

        x = by_problem(out.x)
        expected = worth = None
        if returns is not None:
            expected = by_candidate(expected_return(returns, levels, out.x))
        if value is not None:
            worth = by_candidate(value(unnormalize(normalizer, out.x)))
        return Plans(
            trajectories=unnormalize(normalizer, x),
            dynamics_error=dynamics_error(statistics.dynamics, x),
            # Where there are no goals, there is nowhere to lead away.
            ood_distance=ood_distance(statistics.support, x[..., supported])
            if statistics.support.states.shape[-1]
            else None,
            expected_return=expected,
            value=worth,
            path=unnormalize(normalizer, by_problem(out.path)) if return_path else None,
        )

    return plan


def _clamp(
    normalizer: Normalizer,
    observation: jax.Array,
    goal: jax.Array | None,
    known: Clamp | None,
    horizon: int,
    action_dim: int,
    goal_dim: int,
) -> Clamp:
    """Collect what is known of plans `[B, H, A + O]`; start and goal come first."""
    dim = normalizer.low.shape[-1]
    mask = _clamp_mask(horizon, dim, action_dim, 0 if goal is None else goal_dim)
    values = jnp.zeros((len(observation), horizon, dim))
    values = values.at[:, 0, action_dim:].set(observation)
    if goal is not None:
        end = action_dim + goal.shape[-1]
        values = values.at[:, -1, action_dim:end].set(goal)
    if known is not None:
        values = jnp.where(mask, values, known.values)
        mask = mask | known.mask
    return Clamp(values=normalize(normalizer, values), mask=mask)


def _in_units(normalizer: Normalizer, project: Projection) -> Projection:
    """Let a projection in environment units act on normalised trajectories.

    Entries that it leaves alone do not change by a bit on the way there and back.
    """

    def projected(x: jax.Array) -> jax.Array:
        rows = unnormalize(normalizer, x)
        moved = project(rows)
        return jnp.where(moved == rows, x, normalize(normalizer, moved))

    return projected


def _levels(config: DiffuserConfig) -> NoiseLevels:
    return shift_noise(cosine_schedule(config.diffusion_steps), config.noise_shift)


def _value(
    config: DiffuserConfig,
    levels: NoiseLevels,
    states: Mapping[str, TrainState],
    horizon: int,
) -> Value | None:
    """Take the model of returns out of the states, where there is one."""
    if not config.return_model:
        return None
    if horizon != config.horizon:
        raise UserError(
            f"the model of returns knows the horizon {config.horizon} alone, and a "
            f"plan of {horizon} steps was asked for; plan for {config.horizon}"
        )
    return return_value(
        _return_network(config),
        states["returns"].slow["ema"],
        levels,
        noised=config.noised_returns,
    )


def _guide(
    config: DiffuserConfig, value: Value | None, guidance: Guidance | None
) -> Guide | None:
    """Build the guide of equation (2), where there is one."""
    if guidance is None:
        if not config.guide_scale:
            return None
        guidance = Guidance(scale=config.guide_scale, stop=config.guide_stop)
    if value is None:
        raise UserError(
            "guidance was given, and there is no model of returns to guide plans; "
            "train one with --return-model"
        )
    return value_guide(
        value,
        scale=guidance.scale,
        scale_by=config.guide_scale_by,
        stop_time=guidance.stop,
    )


def _network(config: DiffuserConfig) -> Any:
    return trajectory_network(config)


def _return_network(config: DiffuserConfig) -> TemporalValue:
    return TemporalValue(dim=config.dim, dim_mults=config.dim_mults)


def _averaging(config: DiffuserConfig) -> Averaging:
    return Averaging(config.ema_decay, config.ema_every, config.ema_start)


def declared_horizons(config: DiffuserConfig) -> list[int]:
    """Return the horizons that may be planned for, in order, checked.

    Raises:
      UserError: a horizon that the network cannot take.
    """
    return require_horizons(config, sorted({*config.horizons, config.horizon}))


def _trained_horizons(config: DiffuserConfig) -> list[int]:
    """The horizons of training windows, in the order of their turns, checked."""
    return require_horizons(
        config, list(dict.fromkeys((config.horizon, *config.train_horizons)))
    )


def acting_horizons(config: DiffuserConfig) -> list[int]:
    """Return the horizons that acting needs: each is compiled into its program."""
    horizons = declared_horizons(config)
    if config.choose == "earliest":
        return horizons
    if not config.replan_every or not config.goal_dim:
        return [config.horizon]
    return [horizon for horizon in horizons if horizon <= config.horizon]


def _clamp_mask(horizon: int, dim: int, action_dim: int, goal_dim: int) -> np.ndarray:
    """Mark the known entries: the first observation and the goal's entries at the end.

    The same mask serves the loss and the sampler, so they cannot disagree.
    """
    mask = np.zeros((horizon, dim), bool)
    mask[0, action_dim:] = True
    mask[-1, action_dim : action_dim + goal_dim] = True
    return mask


def _windows(
    config: DiffuserConfig, normalizer: Normalizer, episodes: Episodes, horizon: int
) -> Windows:
    rows = normalize(normalizer, _rows(episodes))
    if config.padding:
        # Zeros before normalising, as the released code pads.
        fill = normalize(normalizer, jnp.zeros(rows.shape[-1]))
        return padded_windows(rows, episodes, fill=fill)
    return Windows(rows=rows, starts=jnp.asarray(window_starts(episodes, horizon)))


def _rows(episodes: Episodes) -> np.ndarray:
    return np.concatenate([episodes.actions, episodes.observations], axis=1)
