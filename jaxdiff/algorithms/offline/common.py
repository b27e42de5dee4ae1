"""What algorithms of offline reinforcement learning share: options, data, acting."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.algorithms.base import ActOutput
from jaxdiff.data.episodes import Episodes
from jaxdiff.data.normalizer import (
    Normalizer,
    fit_normalizer,
    identity,
    normalize,
    unnormalize,
)
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
from jaxdiff.options import check_options
from jaxdiff.pytree import pytree_dataclass


@dataclasses.dataclass(frozen=True)
class OfflineConfig:
    """Options of the data and of critics.

    Attributes:
      widths: of the hidden layers of critics and policy.
      layer_norm: normalise the hidden layers of critics.
      discount: of a reward relative to the one a step earlier.
      target_rate: share by which target critics move to the trained ones in an update.
      learning_rate: of all optimizers.
      normalizer: of observations and goals.
      scale_actions: map the range of each action to [-1, 1], where policies act;
        otherwise the data must lie there.
      rewards: "raw", "range" to scale them until returns of episodes are 1000 apart,
        "minus-one" to subtract 1 from each, or "centred" for 4 (r - 1/2).
      drop_timeouts: leave out the last transition of episodes that ran out of time.
    """

    widths: tuple[int, ...] = (256, 256)
    layer_norm: bool = False
    discount: float = 0.99
    target_rate: float = 0.005
    learning_rate: float = 3e-4
    normalizer: Literal["none", "gaussian", "limits", "cdf"] = "gaussian"
    scale_actions: bool = True
    rewards: Rewards = "raw"
    drop_timeouts: bool = False

    def __post_init__(self) -> None:
        check_options(self, widths=1, discount=0, target_rate=0, learning_rate=0)
        for name in ("discount", "target_rate"):
            if getattr(self, name) > 1:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(
                    f"{flag} is {getattr(self, name)}; it must be at most 1"
                )


@pytree_dataclass
class Statistics:
    """What critics and policies must know of the dataset.

    Attributes:
      inputs: normalizer of `[observation | goal]`, or of observations alone.
      actions: normalizer of actions.
      rewards: what rewards are shifted and scaled by.
    """

    inputs: Normalizer
    actions: Normalizer
    rewards: RewardScale


def measure(config: OfflineConfig, train: Episodes) -> Statistics:
    """Measure a dataset: its normalizers and the scale of its rewards.

    Raises:
      UserError: actions beyond [-1, 1] that are not to be scaled.
    """
    data = transitions(train, drop_timeouts=config.drop_timeouts)
    largest = float(np.abs(data.actions).max())
    if not config.scale_actions and largest > 1:
        raise UserError(
            f"the data have an action of {largest:g}, and policies act in [-1, 1]; "
            "leave out --no-scale-actions"
        )
    return Statistics(
        inputs=identity(data.inputs.shape[1])
        if config.normalizer == "none"
        else fit_normalizer(config.normalizer, data.inputs),
        actions=fit_normalizer("limits", data.actions)
        if config.scale_actions
        else identity(data.actions.shape[1]),
        rewards=measure_rewards(config.rewards, train),
    )


def preparing(
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


def acting(
    actor: Any,
    statistics: Statistics,
    *,
    part: str | None = None,
    squash: Callable[[jax.Array], jax.Array] = lambda mean: mean,
) -> Callable[..., tuple[ActOutput, Any]]:
    """Build the `act` of the learner "policy": the mean of what `actor` says.

    Args:
      actor: `inputs [B, S] -> (mean [B, A], standard deviation)`.
      statistics: of the dataset.
      part: the entry of the learner's parameters that is the actor's, or None for all.
      squash: what the mean passes through, such as tanh.
    """

    def act(states, carry, key, observation, reset, goal=None):
        del key, reset
        inputs = beside(observation, goal, statistics.inputs.low.shape[-1])
        params = states["policy"].params
        params = params if part is None else params[part]
        mean, _ = actor.apply(params, normalize(statistics.inputs, inputs))
        return ActOutput(action=unnormalize(statistics.actions, squash(mean))), carry

    return act


def zeros(transition: Transitions) -> tuple[jax.Array, jax.Array]:
    """One state and one action of zeros, `[1, S]` and `[1, A]`, to start networks."""
    return (
        jnp.zeros_like(transition.inputs[:1]),
        jnp.zeros_like(transition.actions[:1]),
    )
