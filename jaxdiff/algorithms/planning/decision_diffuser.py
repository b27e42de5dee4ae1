"""Decision Diffuser: plan states by conditional denoising (Ajay et al., 2023).

"Is conditional generative modeling all you need for decision making?",
arXiv:2211.15657. A network denoises windows of states s. It is told a condition y of
the window (`jaxdiff.algorithms.planning.conditions`), but not in a quarter of the
examples,

(1) min_theta E |target - network(x_t, t, drop(y))|^2,   x_t = alpha s + sigma noise,

and is shown the last K states, the history, clean. In a sample the same rows are
clamped, and predictions with and without the condition are combined,

(2) u + w (c - u),   or   u + sum_i w_i (c_i - u)

for several conditions, asked for or ruled out, that were never seen together (see
`jaxdiff.diffusion.compose`). Noise is low, at the start and in the steps, because the
likeliest plan is wanted and not a fair draw. The action comes from a model of its own,

(3) a = f(s[h], s[h+1])

(`jaxdiff.algorithms.planning.inverse_dynamics`), with what is observed now as s[h].
This corrects a plan that is followed for several steps.

With `actions="diffused"` rows are `[action | state]` as in Diffuser, and nothing else
changes: classifier-free Diffuser, the ablation that measures what (3) is worth. The
paper trains (1) and the model of (3) by the sum of their losses. They share no
parameters, so here they are two learners.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.algorithms.base import Algorithm, Entry, Learner, Preset, TrainConfig
from jaxdiff.algorithms.planning import trajectories
from jaxdiff.algorithms.planning.conditions import (
    ConditionedWindows,
    Returns,
    asked,
    condition_size,
    draw_conditioned,
    measure_returns,
    regions_kept,
    window_conditions,
)
from jaxdiff.algorithms.planning.denoiser import (
    denoiser_learner,
    descent_options,
    optimizer,
    told_examples,
)
from jaxdiff.algorithms.planning.inverse_dynamics import (
    Inverse,
    actions_between,
    autoregressive,
    cut_moves,
    direct,
    inverse_learner,
)
from jaxdiff.algorithms.planning.network import NETWORKS
from jaxdiff.algorithms.planning.options import (
    PlannerActing,
    PlannerConfig,
    acting_config,
    generic_options,
    joint_faults,
    training_horizons,
)
from jaxdiff.algorithms.planning.planner import Pieces, planner
from jaxdiff.algorithms.planning.receding_horizon import receding_horizon
from jaxdiff.algorithms.planning.trajectories import cut_windows
from jaxdiff.data.episodes import Dataset, Episodes, acted_rows
from jaxdiff.data.normalizer import (
    Normalizer,
    fit_limits,
    fit_normalizer,
    normalize,
    take_dimensions,
    unnormalize,
)
from jaxdiff.data.spec import Spec
from jaxdiff.diffusion import compose, split_keys
from jaxdiff.networks import Conditioned
from jaxdiff.options import at_least, at_most, refuse
from jaxdiff.pytree import pytree_dataclass


@dataclasses.dataclass(frozen=True)
class DecisionDiffuserConfig(PlannerConfig):
    """Options of Decision Diffuser that training reads.

    Attributes:
      horizon: steps of a training window, history included; a plan has
        `horizon - history + 1`.
      action_weight: weight of actions in the loss, where they are diffused.
      condition: condition of plans: their return, their goal, or a region that they
        keep out of.
      regions: regions to keep out of: x, y and radius of each, one after another, in
        the units of the position.
      discount: discount factor of a step in a return.
      termination_penalty: added to the last reward of an episode that terminated.
      return_range: returns that count as 0 and as 1, in place of measured ones.
      condition_dropout: share of examples that train without the condition.
      actions: find actions by inverse dynamics, or diffuse them with the states.
      inverse_kind: predict the mean action, or draw its dimensions one after another.
      inverse_width: width of the hidden layers of the inverse dynamics.
      inverse_depth: number of hidden layers of the inverse dynamics.
      inverse_normalizer: how the actions that the inverse dynamics finds are scaled to
        [-1, 1].
      bins: bins of each dimension of an action, for autoregressive inverse dynamics.
    """

    horizon: int = 32
    diffusion_steps: int = 20
    normalizer: Literal["limits", "gaussian", "cdf"] = "cdf"
    padding: bool = True
    action_weight: float = 1.0
    condition: Literal["return", "goal", "region"] = "return"
    regions: tuple[float, ...] = ()
    discount: float = 0.997
    termination_penalty: float = -100.0
    return_range: tuple[float, ...] = ()
    condition_dropout: float = 0.25
    actions: Literal["inverse", "diffused"] = "inverse"
    inverse_kind: Literal["direct", "autoregressive"] = "direct"
    inverse_width: int = 256
    inverse_depth: int = 2
    inverse_normalizer: Literal["limits", "cdf"] = "limits"
    bins: int = 80

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 1, "inverse_width", "bins")
        yield from at_least(self, 0, "inverse_depth", "discount", "condition_dropout")
        yield from at_most(self, 1, "discount")
        if (self.condition == "region") != bool(self.regions):
            yield (
                "`condition='region'` needs `regions`, and `regions` needs it; give "
                "both or neither"
            )
        if len(self.regions) % 3 or any(radius <= 0 for radius in self.regions[2::3]):
            yield (
                f"`regions` is {self.regions}; it must be x, y and a radius above 0 "
                "for each region, such as 1 0 0.5"
            )
        bounds = self.return_range
        if bounds and (len(bounds) != 2 or bounds[0] >= bounds[1]):
            yield (
                f"`return_range` is {bounds}; it must be the return that counts as 0 "
                "and a larger one that counts as 1, such as 0 400"
            )
        if self.condition_dropout >= 1:
            yield (
                f"`condition_dropout` is {self.condition_dropout}; it must be below 1, "
                "or no condition is ever learned from"
            )


@dataclasses.dataclass(frozen=True)
class DecisionDiffuserActing(PlannerActing):
    """Options of Decision Diffuser that may change after training.

    Attributes:
      target: target return of plans, where 0 and 1 are the ends of the scale of the
        data; none for the 95% quantile of the data.
      guidance_weight: weight of classifier-free guidance: 0 ignores the condition, 1
        uses it as learned, and more strengthens it.
    """

    target: float | None = None
    guidance_weight: float = 1.2
    temperature: float = 0.5
    replan_every: int = 1

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 0, "guidance_weight")
        if self.rank == "return":
            yield (
                "`rank='return'` needs a model of returns, which decision-diffuser "
                "does not have; choose `rank='consistency'`"
            )


@pytree_dataclass
class Statistics(trajectories.Statistics):
    """What planning must know of the dataset, beside the networks.

    Attributes:
      actions: normalizer of actions to [-1, 1], for the inverse dynamics.
      goals: normalizer of the dataset's goals, with no entries where it has none.
      returns: the scale of returns, and what is asked for.
    """

    actions: Normalizer
    goals: Normalizer
    returns: Returns


def measure(
    config: DecisionDiffuserConfig, episodes: Episodes, spec: Spec
) -> Statistics:
    """Measure a dataset: what every planner measures, actions, goals and returns.

    Raises:
      UserError: the condition is a goal, and the dataset has none.
    """
    found = trajectories.measure(config, episodes, spec)
    goals = episodes.goals
    if goals is None:
        goals = np.zeros((len(episodes.rewards), 0), np.float32)
    condition_size(config, goals.shape[1])
    return Statistics(
        normalizer=found.normalizer,
        dynamics=found.dynamics,
        support=found.support,
        actions=fit_normalizer(
            config.inverse_normalizer, episodes.actions[acted_rows(episodes)]
        ),
        goals=fit_limits(goals),
        returns=measure_returns(
            episodes,
            discount=config.discount,
            termination_penalty=config.termination_penalty,
            bounds=config.return_range,
        ),
    )


def decision_diffuser(
    config: DecisionDiffuserConfig,
    acting: DecisionDiffuserActing,
    statistics: Statistics,
    spec: Spec,
) -> Algorithm:
    """Build Decision Diffuser for a dataset.

    Returns:
      An algorithm with the learner "denoiser" and, unless actions are diffused,
      "inverse". `guidance` of `act` and of a problem of `plan` are `Conditions`; by
      default plans are asked for the target, the goal, or to keep out of all regions.

    Raises:
      UserError: options that do not fit each other or the data.
    """
    refuse([*joint_faults(config, acting, spec), *_faults(config, acting)])
    network: Any = _network(config)
    inverted = config.actions == "inverse"
    # The entries of rows `[action | state]` that are diffused.
    diffused = slice(
        spec.action_dim if inverted else 0, spec.action_dim + spec.observation_dim
    )
    learners = {
        "denoiser": _denoiser_learner(config, network, statistics, spec, diffused)
    }
    pieces = Pieces(predict=_predict(config, acting, statistics), diffused=diffused)
    if inverted:
        states = take_dimensions(statistics.normalizer, slice(spec.action_dim, None))
        scales = states, statistics.actions
        inverse = _inverse(config, spec)
        learners["inverse"] = inverse_learner(
            inverse,
            lambda episodes: cut_moves(episodes, *scales),
            optimizer(config),
            **descent_options(config),
        )
        pieces = pieces._replace(actions=actions_between(inverse, *scales))
    plan = planner(config, acting, statistics, spec, pieces)
    acts = receding_horizon(
        plan,
        config,
        acting,
        spec,
        action_to=pieces.actions,
        takes_length=NETWORKS[config.network].takes_length,
    )
    return Algorithm(learners, **acts._asdict(), plan=plan)


def _faults(
    config: DecisionDiffuserConfig, acting: DecisionDiffuserActing
) -> Iterator[str]:
    if acting.guidance_weight != 1 and not config.condition_dropout:
        yield (
            f"`guidance_weight` is {acting.guidance_weight}, and the network never "
            "learned what is done without a condition; choose `guidance_weight=1`, or "
            "train with `condition_dropout=0.25`"
        )


def _network(config: DecisionDiffuserConfig) -> Conditioned:
    return Conditioned(NETWORKS[config.network].build(config), dim=config.dim)


def _denoiser_learner(
    config: DecisionDiffuserConfig,
    network: Any,
    statistics: Statistics,
    spec: Spec,
    diffused: slice,
) -> Learner:
    longest = max(training_horizons(config))
    regions = jnp.asarray(config.regions, jnp.float32).reshape(-1, 3)
    position = spec.action_dim + np.array(spec.layout.position[:2] or (0, 1))

    def prepare(data, frozen, key):
        del frozen, key
        windows = cut_windows(config, statistics.normalizer, data, longest)
        found = window_conditions(
            config, statistics.returns, data, np.asarray(windows.starts)
        )
        if config.condition == "goal":
            found = normalize(statistics.goals, found)
        return ConditionedWindows(windows=windows, conditions=jnp.asarray(found))

    def draw(data, key):
        key, region_key = jax.random.split(key)
        window, condition = draw_conditioned(
            data, key, horizon=longest, before=config.history - 1
        )
        told = jnp.asarray(True)
        if config.condition == "region":
            rows = unnormalize(statistics.normalizer, window)
            condition, told = regions_kept(region_key, rows[:, position], regions)
        return window[:, diffused], condition, told

    def init_params(key, batch):
        x, condition, told = (leaf[:1] for leaf in batch)
        return network.init(key, x, jnp.zeros(1), condition, told)

    def predict(params, keys, batch):
        x0, condition, told = batch
        told_keys, keys = split_keys(keys)
        told &= told_examples(told_keys, config.condition_dropout)
        return x0, lambda x, time: network.apply(params, x, time, condition, told), keys

    return denoiser_learner(
        config,
        spec,
        prepare=prepare,
        draw=draw,
        init_params=init_params,
        predict=predict,
        diffused=diffused,
    )


def _predict(
    config: DecisionDiffuserConfig,
    acting: DecisionDiffuserActing,
    statistics: Statistics,
) -> Callable[..., Any]:
    """Build `predict` of `Pieces`, which combines predictions by equation (2)."""
    network: Any = _network(acting_config(config, acting))

    def predict(states, problem, length):
        params = states["denoiser"].slow["ema"]
        conditions, weights = asked(
            config,
            acting,
            statistics.returns,
            statistics.goals,
            goal=problem.goal,
            given=problem.guidance,
        )
        count = len(problem.history)
        told = [jnp.broadcast_to(x, (count, x.shape[-1])) for x in conditions]
        # By the options, and not by an array, which may change: the condition alone.
        alone = problem.guidance is None and weights == [1.0]
        copies = told if alone else [*told, jnp.zeros_like(told[0])]
        many = jnp.concatenate(copies)
        rows = {} if length is None else {"length": jnp.tile(length, len(copies))}

        def network_of(x, time, keep):
            return network.apply(params, x, time, many, keep, **rows)

        if alone:
            return lambda x, time: network_of(x, time, jnp.ones(count, bool))
        return compose(network_of, weights)

    return predict


def _inverse(config: DecisionDiffuserConfig, spec: Spec) -> Inverse:
    width, depth = config.inverse_width, config.inverse_depth
    if config.inverse_kind == "direct":
        return direct(spec.action_dim, (width,) * depth)
    return autoregressive(spec.action_dim, hidden=width, depth=depth, bins=config.bins)


def generic(dataset: Dataset, spec: Spec) -> Preset:
    """Return options for data that no task knows, for minutes on a laptop.

    Plans are told the goal where the data have goals, and their return otherwise.
    """
    config, acting = generic_options(dataset, spec)
    goals = dataset.episodes.goals is not None
    updates = TrainConfig(num_steps=8_000)
    return Preset(
        DecisionDiffuserConfig(
            **config,
            normalizer="cdf",
            condition="goal" if goals else "return",
            discount=0.99,
            termination_penalty=0.0,
        ),
        DecisionDiffuserActing(**acting),
        {"denoiser": updates, "inverse": updates},
    )


ENTRY = Entry(
    name="decision-diffuser",
    summary="plans states by diffusion, told a return, a goal or regions to avoid",
    config=DecisionDiffuserConfig,
    acting=DecisionDiffuserActing,
    statistics=Statistics,
    measure=measure,
    build=decision_diffuser,
    generic=generic,
)
