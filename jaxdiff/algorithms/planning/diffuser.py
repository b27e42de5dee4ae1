"""Diffuser: plan by denoising whole trajectories (Janner et al., 2022).

"Planning with diffusion for flexible behavior synthesis", arXiv:2205.09991. A network
learns to denoise windows of the dataset, rows `[action | observation]`. It is shown the
first state clean and, for goals, the goal's entries of the last state,

(1) min_theta E |x0 - network(x_t, t)|^2,   x_t = alpha x0 + sigma noise, clamped,

and a plan is a sample of the learned distribution with the same entries clamped to the
present state and to the goal.

With a model of returns V (`jaxdiff.algorithms.planning.returns`) plans are guided
towards reward, before each denoising step (the released code) or after it (the paper's
algorithm 1),

(2) x <- x + scale * variance * grad V(x, t),   clamped,

and the candidate of the largest expected return may be the one to follow.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from jaxdiff.algorithms.base import Algorithm, Entry, Learner, Preset, TrainConfig
from jaxdiff.algorithms.planning.denoiser import (
    denoiser_learner,
    descent_options,
    noise_levels,
    optimizer,
)
from jaxdiff.algorithms.planning.network import NETWORKS
from jaxdiff.algorithms.planning.options import (
    PlannerActing,
    PlannerConfig,
    acting_config,
    generic_options,
    joint_faults,
    rewards_vary,
    training_horizons,
)
from jaxdiff.algorithms.planning.planner import Pieces, planner
from jaxdiff.algorithms.planning.receding_horizon import receding_horizon
from jaxdiff.algorithms.planning.returns import (
    expected_return,
    return_value,
    returns_learner,
)
from jaxdiff.algorithms.planning.trajectories import (
    Statistics,
    cut_windows,
    known_mask,
    measure,
)
from jaxdiff.data.episodes import Dataset, acted_rows
from jaxdiff.data.spec import Spec
from jaxdiff.data.windows import draw_window, return_to_go
from jaxdiff.diffusion import value_guide
from jaxdiff.diffusion.guide import Value
from jaxdiff.diffusion.sampler import Guide
from jaxdiff.errors import UserError
from jaxdiff.networks import TemporalValue
from jaxdiff.options import at_least, at_most, refuse
from jaxdiff.pytree import pytree_dataclass


@dataclasses.dataclass(frozen=True)
class DiffuserConfig(PlannerConfig):
    """Options of Diffuser that training reads.

    Attributes:
      return_model: also train a model of returns, the learner "returns".
      discount: discount factor of a step in a return.
      termination_penalty: added to the last reward of an episode that terminated.
      noised_returns: train the model of returns on noised windows, not on clean ones.
    """

    return_model: bool = False
    discount: float = 0.997
    termination_penalty: float = -100.0
    noised_returns: bool = True

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 0, "discount")
        yield from at_most(self, 1, "discount")
        if self.return_model and set(self.horizons) - {self.horizon}:
            yield (
                "a model of returns knows one horizon, and `horizons` is "
                f"{self.horizons}; choose `horizons={self.horizon}`"
            )
        width = self.dim * (self.dim_mults or (1,))[-1]
        if self.return_model and width % 32:
            yield (
                f"the last level of `dim_mults` has a width of {width}, and a model of "
                "returns divides it into groups; choose a multiple of 32"
            )


@dataclasses.dataclass(frozen=True)
class DiffuserActing(PlannerActing):
    """Options of Diffuser that may change after training.

    Attributes:
      guide_scale: strength of the guidance towards reward, in the units of the rewards;
        0 plans without guidance.
      guide_at: guide before a denoising step, or the mean after it.
      guide_steps: number of guidance steps in a denoising step.
      guide_stop: plans are not guided below this noise level; 0 is the least.
      guide_scale_by: scale guidance by the variance of a denoising step, by its
        standard deviation, or not at all.
    """

    guide_scale: float = 0.0
    guide_at: Literal["x_t", "mean"] = "x_t"
    guide_steps: int = 1
    guide_stop: int = 0
    guide_scale_by: Literal["variance", "std", "none"] = "variance"

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 0, "guide_scale", "guide_stop")
        yield from at_least(self, 1, "guide_steps")


@pytree_dataclass
class Guidance:
    """Guidance that takes the place of the acting options, as arrays.

    Attributes:
      scale: `[]`, in place of `guide_scale`.
      stop: `[]`, in place of `guide_stop`.
    """

    scale: Any
    stop: Any


def diffuser(
    config: DiffuserConfig, acting: DiffuserActing, statistics: Statistics, spec: Spec
) -> Algorithm:
    """Build Diffuser for a dataset.

    Returns:
      An algorithm with the learner "denoiser" and, if `return_model`, "returns".
      `guidance` of `act` and of a problem of `plan` is a `Guidance`.

    Raises:
      UserError: options that do not fit each other or the data.
    """
    refuse([*joint_faults(config, acting, spec), *_faults(config, acting)])
    known = NETWORKS[config.network]
    build: Any = known.build
    network, acting_network = build(config), build(acting_config(config, acting))
    longest = max(training_horizons(config))

    def prepare(data, frozen, key):
        del frozen, key
        return cut_windows(config, statistics.normalizer, data, longest)

    def predict_batch(params, keys, batch):
        return batch, lambda x, time: network.apply(params, x, time), keys

    def predict(states, problem, length):
        del problem
        params = states["denoiser"].slow["ema"]
        rows = {} if length is None else {"length": length}
        return lambda x, time: acting_network.apply(params, x, time, **rows)

    learners = {
        "denoiser": denoiser_learner(
            config,
            spec,
            prepare=prepare,
            draw=lambda data, key: draw_window(
                data, key, longest, before=config.history - 1
            ),
            init_params=lambda key, batch: network.init(key, batch[:1], jnp.zeros(1)),
            predict=predict_batch,
        )
    }
    pieces = Pieces(predict=predict, guide=_guide_of(config, acting))
    if config.return_model:
        learners["returns"] = _returns_learner(config, statistics, spec)
        value, levels = _return_value(config, acting), noise_levels(config)
        pieces = pieces._replace(
            guide_options={
                "guide_at": acting.guide_at,
                "guide_steps": acting.guide_steps,
            },
            expected_return=lambda states, x: expected_return(value(states), levels, x),
        )
    plan = planner(config, acting, statistics, spec, pieces)
    acts = receding_horizon(plan, config, acting, spec, takes_length=known.takes_length)
    return Algorithm(learners, **acts._asdict(), plan=plan)


def _faults(config: DiffuserConfig, acting: DiffuserActing) -> Iterator[str]:
    if not config.return_model and (acting.guide_scale or acting.rank == "return"):
        yield (
            "`guide_scale` and `rank='return'` need a model of returns; train one with "
            "`return_model=True`"
        )


def _returns_learner(
    config: DiffuserConfig, statistics: Statistics, spec: Spec
) -> Learner:
    return returns_learner(
        _return_network(config),
        lambda episodes: cut_windows(
            config, statistics.normalizer, episodes, config.horizon
        ),
        noise_levels(config),
        optimizer(config),
        horizon=config.horizon,
        mask=known_mask(config, spec, config.horizon),
        discount=config.discount,
        termination_penalty=config.termination_penalty,
        history=config.history,
        noised=config.noised_returns,
        **descent_options(config),
    )


def _return_network(config: DiffuserConfig) -> TemporalValue:
    return TemporalValue(
        dim=config.dim, dim_mults=config.dim_mults, precision=config.precision
    )


def _return_value(
    config: DiffuserConfig, acting: DiffuserActing
) -> Callable[..., Value]:
    """Build `states -> value` of the model of returns."""
    network = _return_network(acting_config(config, acting))
    levels = noise_levels(config)
    return lambda states: return_value(
        network, states["returns"].slow["ema"], levels, noised=config.noised_returns
    )


def _guide_of(
    config: DiffuserConfig, acting: DiffuserActing
) -> Callable[..., Guide | None]:
    """Build `(states, problem, horizon) -> guide` of equation (2), or None."""
    value = _return_value(config, acting)

    def guide_of(states, problem, horizon):
        guidance = problem.guidance
        if config.return_model and horizon != config.horizon:
            raise UserError(
                f"the model of returns knows the horizon {config.horizon} alone, and a "
                f"plan of {horizon} steps was asked for; plan for {config.horizon}"
            )
        if guidance is None:
            if not acting.guide_scale:
                return None
            guidance = Guidance(scale=acting.guide_scale, stop=acting.guide_stop)
        if not config.return_model:
            raise UserError(
                "guidance was given, and there is no model of returns to guide plans; "
                "train one with `return_model=True`"
            )
        return value_guide(
            value(states),
            scale=guidance.scale,
            scale_by=acting.guide_scale_by,
            stop_time=guidance.stop,
        )

    return guide_of


def generic(dataset: Dataset, spec: Spec) -> Preset:
    """Return options for data that no task knows, for minutes on a laptop.

    Where rewards vary and there are no goals, plans are guided by a model of returns.
    In equation (2) V is then read in standard deviations of the returns-to-go of the
    data, as a log-probability.
    """
    config, acting = generic_options(dataset, spec)
    updates = TrainConfig(num_steps=8_000)
    training = {"denoiser": updates, "returns": updates}
    if config["goal_dim"] or not rewards_vary(dataset.episodes):
        options = DiffuserConfig(**config), DiffuserActing(**acting, candidates=2)
        return Preset(*options, training)
    discount = 0.99
    returns = return_to_go(dataset.episodes, discount)[acted_rows(dataset.episodes)]
    scale = float(f"{1 / max(float(np.std(returns)), 1e-6):.2g}")
    return Preset(
        DiffuserConfig(
            **config, return_model=True, discount=discount, termination_penalty=0.0
        ),
        DiffuserActing(
            **acting, candidates=8, rank="return", guide_scale=scale, guide_steps=2,
            guide_stop=4,
        ),
        training,
    )  # fmt: skip


ENTRY = Entry(
    name="diffuser",
    summary="plans whole trajectories by diffusion, guided by goals or returns",
    config=DiffuserConfig,
    acting=DiffuserActing,
    statistics=Statistics,
    measure=measure,
    build=diffuser,
    generic=generic,
)
