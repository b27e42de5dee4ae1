"""Options that all planners share, and what must hold between them.

Two defaults are not those of Diffuser's authors: the network predicts v, because to
predict x0 it must first undo its own normalisation layers at low noise, and actions,
which are noisy and which the tracking controller does not read, weigh little.
"""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar

import numpy as np

from jaxdiff.algorithms.planning.network import HEAD, NETWORKS
from jaxdiff.data.episodes import Dataset, Episodes, acted_rows
from jaxdiff.data.spec import Spec
from jaxdiff.diffusion import SAMPLERS, SCHEDULES
from jaxdiff.diffusion.schedule import Spacing
from jaxdiff.networks.layers import Precision
from jaxdiff.options import Named, Options, above, at_least, at_most


@dataclasses.dataclass(frozen=True)
class PlannerConfig(Options):
    """Options of a planner that training reads.

    Attributes:
      horizon: steps of a training window, and of a plan unless another is asked for.
      horizons: further horizons that may be planned for. Those of a network that
        knows no `length` are compiled one by one.
      train_horizons: further lengths of training windows; updates take turns. Plans of
        a horizon that the U-Net never saw shrink towards the middle of the data.
      history: states known at the beginning of a window, the present one included;
        states before the first of an episode repeat that first one.
      goal_dim: entries of a goal that the last state of a plan is clamped to; 0 plans
        without a goal.
      diffusion_steps: number of noise levels.
      schedule: how noise grows over the levels. The betas of "linear" go from 1e-4 to
        0.02 however few levels there are, which leaves most of the data in the last of
        20; "linear_rescaled" multiplies them by 1000 over the number of levels.
      noise_shift: factor of the noise of every level relative to the data.
      network: network that denoises trajectories.
      dim: width of the U-Net, and of the embedding of noise levels.
      dim_mults: width of each level of the U-Net in units of `dim`.
      attention: linear attention at every level of the U-Net.
      show_ends: show every block of the U-Net the first and the last row.
      norm_by_row: let the U-Net normalise each row by itself, and not over all rows.
      patch: rows of a trajectory that enter and leave the network as one.
      dit_width: channels of the transformer, a multiple of 32.
      dit_depth: blocks of the transformer.
      precision: numbers that the networks multiply; sums are in float32. "bfloat16" is
        for accelerators.
      prediction: quantity that the network predicts.
      clip: limit of an estimated trajectory in normalised units; none for no limit.
      normalizer: scaling of actions and observations.
      padding: let windows run past the end of an episode that terminated, and of one
        that is shorter than they are.
      norm: norm of the loss, squared or absolute errors.
      action_weight: weight of actions in the loss, relative to observations.
      first_action_weight: weight of the present action in the loss, in place of
        `action_weight`.
      loss_discount: weight of a step in the loss relative to the step before.
      learning_rate: step size of Adam.
      learning_rate_decay: share of the updates over which the learning rate falls to 0
        along a cosine; 0 keeps it.
      accumulate: slices of a batch, processed one after another to save memory.
      ema_decay: weight of the old average when averaged parameters move.
      ema_every: updates between two moves of the averaged parameters.
      ema_start: the averaged parameters are a plain copy until this update.
    """

    horizon: int = 128
    horizons: tuple[int, ...] = ()
    train_horizons: tuple[int, ...] = ()
    history: int = 1
    goal_dim: int = 0
    diffusion_steps: int = 64
    schedule: Annotated[str, Named(SCHEDULES)] = "cosine"
    noise_shift: float = 1.0
    network: Annotated[str, Named(NETWORKS)] = "unet"
    dim: int = 32
    dim_mults: tuple[int, ...] = (1, 2, 4)
    attention: bool = False
    show_ends: bool = False
    norm_by_row: bool = False
    patch: int = 1
    dit_width: int = 320
    dit_depth: int = 2
    precision: Precision = "float32"
    prediction: Literal["x0", "noise", "v"] = "v"
    clip: float | None = 1.0
    normalizer: Literal["limits", "gaussian", "cdf"] = "limits"
    padding: bool = False
    norm: Literal["l2", "l1"] = "l2"
    action_weight: float = 0.1
    first_action_weight: float | None = None
    loss_discount: float = 1.0
    learning_rate: float = 1e-3
    learning_rate_decay: float = 0.0
    accumulate: int = 1
    ema_decay: float = 0.995
    ema_every: int = 1
    ema_start: int = 0

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        sizes = ("dim", "dim_mults", "patch", "dit_width", "dit_depth")
        counts = ("history", "diffusion_steps", "accumulate", "ema_every")
        wrong = [
            *at_least(self, 2, "horizon", "horizons", "train_horizons"),
            *at_least(self, 1, *sizes, *counts),
        ]
        yield from wrong
        yield from at_least(self, 0, "goal_dim", "ema_decay")
        yield from above(self, 0, "learning_rate")
        yield from at_least(self, 0, "learning_rate_decay", "ema_start")
        yield from at_least(self, 0, "action_weight", "first_action_weight")
        yield from at_least(self, 0, "loss_discount")
        yield from at_most(self, 1, "ema_decay", "learning_rate_decay")
        yield from above(self, 0, "noise_shift", "clip")
        if not wrong:
            yield from self._network_faults()
        if self.clip is not None and self.normalizer == "gaussian":
            yield (
                f"`clip` is {self.clip}, which keeps plans within so many standard "
                "deviations of `normalizer='gaussian'`; choose `clip=None`"
            )

    def _network_faults(self) -> Iterator[str]:
        for name, multiple in (("dim", 8), ("dit_width", HEAD)):
            if getattr(self, name) % multiple:
                yield (
                    f"`{name}` is {getattr(self, name)}; it must be a multiple of "
                    f"{multiple}"
                )
        multiple = NETWORKS[self.network].multiple(self)
        for horizon in (*declared_horizons(self), *training_horizons(self)):
            if horizon % multiple:
                nearest = max(1, round(horizon / multiple)) * multiple
                yield (
                    f"the horizon {horizon} is not a multiple of {multiple}, as "
                    f"`network='{self.network}'` of these sizes needs; choose {nearest}"
                )
        shortest = min((self.horizon, *self.horizons, *self.train_horizons))
        if self.history >= shortest:
            yield (
                f"`history` is {self.history}, and a window of {shortest} steps must "
                "hold it and at least one step to come; choose fewer states"
            )


C = TypeVar("C", bound=PlannerConfig)


@dataclasses.dataclass(frozen=True)
class PlannerActing(Options):
    """Options of a planner that may change after training.

    Attributes:
      sampler: sampler that denoises plans.
      sampling_steps: denoising steps of a plan; none for all noise levels.
      spacing: how these steps lie among the noise levels: "even", "quadratic" with
        small steps near clean data, which suits few steps, or "logsnr", which removes
        an equal factor of noise in each.
      temperature: standard deviation of the noise in denoising steps, relative to what
        the sampler adds.
      init_temperature: standard deviation of the noise that plans begin from; none for
        that of `temperature`.
      candidates: plans made for each problem and horizon.
      rank: follow the candidate with the least dynamics error, or with the largest
        expected return. Both are read from finished plans.
      choose: plan for `horizon`, or for the earliest arrival at the goal.
      slack: factor by which the dynamics error of an earlier plan may exceed that of
        the longest horizon.
      controller: follow the planned states with gains on position and velocity, or
        execute the planned actions.
      kp: gain of the tracking controller on the error of the position.
      kd: gain of the tracking controller on the error of the velocity.
      replan_every: steps between two plans; 0 plans once an episode, or without a goal
        at the end of each plan.
      lost: distance from the planned position at which the tracking controller asks for
        a new plan; 0 for never.
      warm_start: levels of noise added to the last plan, and denoising steps of the new
        one; 0 plans from pure noise.
      plan_precision: numbers that the networks multiply in plans; none for those of
        training.
    """

    sampler: Annotated[str, Named(SAMPLERS)] = "ddpm"
    sampling_steps: int | None = None
    spacing: Spacing = "even"
    temperature: float = 1.0
    init_temperature: float | None = None
    candidates: int = 1
    rank: Literal["consistency", "return"] = "consistency"
    choose: Literal["fixed", "earliest"] = "fixed"
    slack: float = 2.5
    controller: Literal["track", "action"] = "action"
    kp: float = 10.0
    kd: float = 4.2
    replan_every: int = 0
    lost: float = 0.0
    warm_start: int = 0
    plan_precision: Precision | None = None

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 1, "sampling_steps", "candidates")
        yield from at_least(self, 0, "temperature", "init_temperature", "slack")
        yield from at_least(self, 0, "replan_every", "lost", "warm_start")
        if self.spacing != "even" and self.sampling_steps is None:
            yield (
                f"`spacing='{self.spacing}'` chooses among the noise levels, and all "
                "are walked; choose `sampling_steps`"
            )
        if self.lost and self.controller != "track":
            yield (
                f"`lost` is {self.lost}, and only the tracking controller knows where "
                "a plan should be; choose `controller='track'` or `lost=0`"
            )
        if self.warm_start and self.choose == "earliest":
            yield (
                f"`warm_start` is {self.warm_start}, and `choose='earliest'` compares "
                "plans that must all be made alike; choose `choose='fixed'` or "
                "`warm_start=0`"
            )


def joint_faults(
    config: PlannerConfig, acting: PlannerActing, spec: Spec
) -> Iterator[str]:
    """Yield a sentence for each acting option that does not fit the rest."""
    yield from at_most(acting, config.diffusion_steps, "sampling_steps")
    steps = acting.sampling_steps or config.diffusion_steps
    if acting.warm_start > steps:
        yield (
            f"`warm_start` is {acting.warm_start}; it must be at most the {steps} "
            "denoising steps of a plan"
        )
    if acting.choose == "earliest" and not config.goal_dim:
        yield (
            "`choose='earliest'` needs a goal to arrive at, and `goal_dim` is 0; "
            "choose `choose='fixed'`"
        )
    layout, size = spec.layout, spec.action_dim
    if acting.controller == "track" and not (
        len(layout.position) == len(layout.velocity) == size
    ):
        yield (
            f"`controller='track'` needs {size} positions and {size} velocities, one "
            f"for each action, and observations here have {len(layout.position)} and "
            f"{len(layout.velocity)} that are known; choose `controller='action'`"
        )
    most = len(layout.goal) or spec.observation_dim
    if config.goal_dim > most:
        yield (
            f"`goal_dim` is {config.goal_dim}; a goal gives at most {most} entries of "
            "an observation"
        )


def acting_config(config: C, acting: PlannerActing) -> C:
    """Return the options of training by which acting builds the same networks."""
    precision = acting.plan_precision or config.precision
    return dataclasses.replace(config, precision=precision)


def declared_horizons(config: PlannerConfig) -> list[int]:
    """Return the horizons that may be planned for, in increasing order."""
    return sorted({*config.horizons, config.horizon})


def training_horizons(config: PlannerConfig) -> list[int]:
    """Return the lengths of training windows, in the order of their turns."""
    return list(dict.fromkeys((config.horizon, *config.train_horizons)))


def acting_horizons(config: PlannerConfig, acting: PlannerActing) -> list[int]:
    """Return the horizons that acting plans for, in increasing order."""
    horizons = declared_horizons(config)
    if acting.choose == "earliest":
        return horizons
    if not acting.replan_every or not config.goal_dim:
        return [config.horizon]
    return [horizon for horizon in horizons if horizon <= config.horizon]


def rewards_vary(episodes: Episodes) -> bool:
    """Whether the rewards of a dataset say anything at all."""
    return bool(np.ptp(episodes.rewards[acted_rows(episodes)]) > 0)


def generic_options(
    dataset: Dataset, spec: Spec
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return config and acting options for data that no task knows.

    A plan is as long as the data allow, up to 32 steps, or 128 on the way to a goal.
    Goals are clamped if it is known which entries of an observation they are.
    """
    goal_dim = 0 if dataset.episodes.goals is None else spec.goal_dim
    goal_dim = min(goal_dim, len(spec.layout.goal))
    lengths = dataset.episodes.lengths
    # At least half of the episodes hold a window that ends at a goal.
    longest = int(np.median(lengths)) if goal_dim else int(lengths.max())
    horizon = max(4, min(128 if goal_dim else 32, longest) // 4 * 4)
    config = {
        "horizon": horizon,
        "goal_dim": goal_dim,
        "diffusion_steps": 20,
        "padding": not goal_dim or longest < horizon,
        "action_weight": 1.0,
        "first_action_weight": 10.0,
        "learning_rate_decay": 1.0,
    }
    layout = spec.layout
    known = len(layout.position) == len(layout.velocity) == spec.action_dim
    acting = {
        "sampling_steps": 5,
        "temperature": 0.5,
        "replan_every": 4,
        "controller": "track" if known else "action",
    }
    return config, acting
