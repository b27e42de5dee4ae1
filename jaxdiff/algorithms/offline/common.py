"""What algorithms of offline reinforcement learning share: options, data, acting.

Critics and policies read transitions (s, a, r, s', terminal), with s the observation
and, where the data have goals, the goal beside it. Both are normalised, actions are
scaled to [-1, 1], and rewards are shifted and scaled (`jaxdiff.data.transitions`).
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.algorithms.base import (
    ActOutput,
    Algorithm,
    Entry,
    Preset,
    TrainConfig,
)
from jaxdiff.data.episodes import Dataset, Episodes
from jaxdiff.data.normalizer import (
    Normalizer,
    fit_gaussian,
    fit_normalizer,
    identity,
    normalize,
    unnormalize,
)
from jaxdiff.data.spec import Spec
from jaxdiff.data.transitions import (
    Rewards,
    RewardScale,
    Transitions,
    beside,
    measure_rewards,
    scale_rewards,
    transitions,
)
from jaxdiff.errors import UserError
from jaxdiff.options import NoOptions, Options, above, at_least, at_most
from jaxdiff.pytree import pytree_dataclass


@dataclasses.dataclass(frozen=True)
class OfflineConfig(Options):
    """Options of data, critics and policy.

    Attributes:
      widths: widths of the hidden layers of critics and policy.
      layer_norm: normalise the hidden layers of critics.
      discount: discount factor of a step.
      target_rate: share of the way that target critics move to the trained critics in
        an update.
      learning_rate: step size of Adam.
      normalizer: scaling of observations and goals.
      spread_floor: added to each standard deviation of a Gaussian normalizer. The
        released TD3+BC adds 1e-3.
      scale_actions: scale actions to [-1, 1], where policies act; without it the data
        must already lie there.
      rewards: "raw" keeps rewards, "range" scales them so that the returns of episodes
        span 1000, "minus-one" subtracts 1, and "centred" maps r to 4 (r - 1/2).
      reward_scale: factor of rewards, applied after `rewards`.
      drop_timeouts: leave out the last transition of an episode that timed out.
    """

    widths: tuple[int, ...] = (256, 256)
    layer_norm: bool = False
    discount: float = 0.99
    target_rate: float = 0.005
    learning_rate: float = 3e-4
    normalizer: Literal["none", "gaussian", "limits", "cdf"] = "gaussian"
    spread_floor: float = 0.0
    scale_actions: bool = True
    rewards: Rewards = "raw"
    reward_scale: float = 1.0
    drop_timeouts: bool = False

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 1, "widths")
        yield from at_least(self, 0, "discount", "target_rate")
        yield from above(self, 0, "learning_rate")
        yield from at_most(self, 1, "discount", "target_rate")
        yield from above(self, 0, "reward_scale")
        yield from at_least(self, 0, "spread_floor")
        if self.spread_floor and self.normalizer != "gaussian":
            yield (
                f"`spread_floor={self.spread_floor}` has no effect on "
                f"`normalizer={self.normalizer}`; leave one of them out"
            )


@pytree_dataclass
class Statistics:
    """What critics and policies must know of the dataset.

    Attributes:
      inputs: normalizer of `[observation | goal]`, or of observations alone.
      actions: normalizer of actions.
      rewards: shift and scale of rewards.
    """

    inputs: Normalizer
    actions: Normalizer
    rewards: RewardScale


def measure(config: OfflineConfig, episodes: Episodes, spec: Spec) -> Statistics:
    """Measure a dataset: its normalizers and the scale of its rewards.

    Raises:
      UserError: actions beyond [-1, 1] that are not to be scaled.
    """
    del spec
    data = transitions(episodes, drop_timeouts=config.drop_timeouts)
    largest = float(np.abs(data.actions).max())
    if not config.scale_actions and largest > 1:
        raise UserError(
            f"the data have an action of {largest:g}, and policies act in [-1, 1]; "
            "choose `scale_actions=True`"
        )
    rewards = measure_rewards(config.rewards, episodes)
    return Statistics(
        inputs=_fit_inputs(config, data.inputs),
        actions=fit_normalizer("limits", data.actions)
        if config.scale_actions
        else identity(data.actions.shape[1]),
        rewards=RewardScale(
            shift=rewards.shift,
            scale=np.float32(rewards.scale * config.reward_scale),
        ),
    )


def _fit_inputs(config: OfflineConfig, inputs: np.ndarray) -> Normalizer:
    if config.normalizer == "none":
        return identity(inputs.shape[1])
    if config.normalizer == "gaussian":
        return fit_gaussian(inputs, floor=config.spread_floor)
    return fit_normalizer(config.normalizer, inputs)


def make_prepare(
    config: OfflineConfig, statistics: Statistics
) -> Callable[..., Transitions]:
    """Build the `prepare` of learners: normalised transitions on the device."""

    def prepare(data, frozen, key):
        del frozen, key
        found = transitions(data, drop_timeouts=config.drop_timeouts)
        return Transitions(
            inputs=normalize(statistics.inputs, found.inputs),
            actions=normalize(statistics.actions, found.actions),
            rewards=jnp.asarray(scale_rewards(statistics.rewards, found.rewards)),
            next_inputs=normalize(statistics.inputs, found.next_inputs),
            terminals=jnp.asarray(found.terminals),
        )

    return prepare


def zeros(transition: Transitions) -> tuple[jax.Array, jax.Array]:
    """Return one state and one action of zeros, `[1, S]` and `[1, A]`.

    Networks create their parameters from them.
    """
    return (
        jnp.zeros_like(transition.inputs[:1]),
        jnp.zeros_like(transition.actions[:1]),
    )


def policy_inputs(statistics: Statistics, observation: Any, goal: Any) -> jax.Array:
    """Normalise what a policy sees.

    Args:
      statistics: of the dataset.
      observation: `[B, O]`, environment units.
      goal: `[B, G]`, environment units, or None.

    Returns:
      `[B, S]`.
    """
    inputs = beside(observation, goal, statistics.inputs.low.shape[-1])
    return normalize(statistics.inputs, inputs)


def with_guidance(acting: Options, guidance: Mapping[str, Any] | None) -> Any:
    """Return acting options as attributes, with arrays in place of some of them.

    Args:
      acting: options.
      guidance: name of an option -> array.
    """
    return SimpleNamespace(**{**vars(acting), **(guidance or {})})


def act_by_mean(
    actor: Any,
    statistics: Statistics,
    *,
    part: str | None = None,
    squash: Callable[[jax.Array], jax.Array] = lambda mean: mean,
) -> Callable[..., tuple[ActOutput, Any]]:
    """Build the `act` that takes the mean action of the learner "policy".

    Args:
      actor: `inputs [B, S] -> (mean [B, A], standard deviation)`.
      statistics: of the dataset.
      part: the entry of the learner's parameters that belongs to the actor; None if
        all of them do.
      squash: applied to the mean, such as tanh.
    """

    def act(states, carry, keys, observation, reset, goal=None, guidance=None):
        del keys, reset, guidance
        params = states["policy"].params
        params = params if part is None else params[part]
        mean, _ = actor.apply(params, policy_inputs(statistics, observation, goal))
        return ActOutput(action=unnormalize(statistics.actions, squash(mean))), carry

    return act


def offline_entry(
    *,
    name: str,
    summary: str,
    config: type[OfflineConfig],
    build: Callable[..., Algorithm],
    learners: Sequence[str],
    acting: type[Options] = NoOptions,
    laptop: Mapping[str, Any] | None = None,
    laptop_acting: Mapping[str, Any] | None = None,
) -> Entry:
    """Build the entry of an algorithm.

    Its generic preset trains each learner for 10,000 updates. It scales rewards to a
    mean square of 1, so that values stay below 1 / (1 - discount) or not far above it,
    whatever units the rewards have.

    Args:
      name: what commands call the algorithm.
      summary: one line for the list of commands.
      config: class of the options that training reads.
      build: see `Entry`.
      learners: names of its learners.
      acting: class of the options that may change after training.
      laptop: options of the generic preset that are not the defaults.
      laptop_acting: acting options of the generic preset that are not the defaults.
    """

    def generic(dataset: Dataset, spec: Spec) -> Preset:
        del spec
        scale = unit_scale(dataset.episodes)
        training = TrainConfig(
            num_steps=10_000, batch_size=256, log_every=100, save_every=1_000
        )
        return Preset(
            config(**{"reward_scale": scale, **(laptop or {})}),
            acting(**(laptop_acting or {})),
            dict.fromkeys(learners, training),
        )

    return Entry(
        name=name,
        summary=summary,
        config=config,
        acting=acting,
        statistics=Statistics,
        measure=measure,
        build=build,
        generic=generic,
    )


def unit_scale(episodes: Episodes) -> float:
    """Return the factor that gives rewards a mean square of 1; 1 if all are 0."""
    # The rows that end episodes have a reward of 0 and are no transitions.
    square = np.square(episodes.rewards, dtype=np.float64).sum()
    return float(np.sqrt(episodes.lengths.sum() / square)) if square else 1.0
