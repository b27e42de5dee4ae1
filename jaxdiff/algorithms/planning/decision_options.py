"""Options of Decision Diffuser, and what it measures on a dataset."""

import dataclasses
from typing import Any, Literal

import numpy as np

from jaxdiff.algorithms.planning import diffuser as _diffuser
from jaxdiff.algorithms.planning.conditions import (
    Returns,
    condition_size,
    measure_returns,
)
from jaxdiff.algorithms.planning.network import check_width
from jaxdiff.data.episodes import Episodes, acted_rows
from jaxdiff.data.normalizer import Normalizer, fit_limits
from jaxdiff.errors import UserError
from jaxdiff.options import check_options
from jaxdiff.pytree import pytree_dataclass

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


@dataclasses.dataclass(frozen=True)
class DecisionDiffuserConfig:
    """Options of Decision Diffuser; those that Diffuser has too mean the same here.

    See `jaxdiff.algorithms.planning.diffuser.DiffuserConfig` and, for those of the paper and its
    code, `jaxdiff.tasks.presets`.

    Attributes:
      condition: "return", "goal" or "region", see `jaxdiff.algorithms.planning.conditions`.
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


@pytree_dataclass
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
