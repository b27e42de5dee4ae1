"""Behaviour cloning: regression of the demonstrated action on the observation.

With a network f and transitions (s, a) of a dataset, both normalised,

(1) min_theta E |f(s) - a|^2,

whose answer is the mean action E[a | s] of whoever made the data: right where they
agree, and between two ways where they do not. It is the baseline that every planner
and every diffusion policy has to beat (the MSE baseline of Pearce et al., 2023,
arXiv:2301.10677). Where the dataset has goals, f sees the goal beside s.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdiff.algorithms.base import ActOutput, Algorithm, Averaging, supervised
from jaxdiff.data.episodes import Episodes
from jaxdiff.data.normalizer import Normalizer, fit, normalize, unnormalize
from jaxdiff.errors import UserError
from jaxdiff.networks import MLP
from jaxdiff.options import check_options
from jaxdiff.record import record


@dataclasses.dataclass(frozen=True)
class BCConfig:
    """Options of behaviour cloning.

    Attributes:
      widths: of the hidden layers.
      normalizer: of observations, goals and actions.
      learning_rate: of Adam.
      ema_decay: of the averaged parameters, which act.
    """

    widths: tuple[int, ...] = (512, 512, 512)
    normalizer: Literal["limits", "gaussian", "cdf"] = "gaussian"
    learning_rate: float = 1e-3
    ema_decay: float = 0.995

    def __post_init__(self) -> None:
        check_options(self, widths=1, learning_rate=0, ema_decay=0)
        if self.ema_decay > 1:
            raise UserError(f"--ema-decay is {self.ema_decay}; it must be at most 1")


@record
class Statistics:
    """What acting must know of the dataset, beside the network.

    Attributes:
      inputs: normalizer of `[observation | goal]`, or of observations alone.
      actions: normalizer of actions.
    """

    inputs: Normalizer
    actions: Normalizer


@record
class Pairs:
    """Transitions on the device.

    Attributes:
      inputs: `[M, O + G]`, normalised.
      actions: `[M, A]`, normalised.
    """

    inputs: jax.Array
    actions: jax.Array


def measure(config: BCConfig, train: Episodes) -> Statistics:
    """Measure a dataset: its normalizers."""
    inputs, actions = _pairs(train)
    return Statistics(
        inputs=fit(config.normalizer, inputs), actions=fit(config.normalizer, actions)
    )


def bc(config: BCConfig, statistics: Statistics, *, action_dim: int) -> Algorithm:
    """Build behaviour cloning for a dataset.

    Args:
      config: options.
      statistics: of the dataset, from `measure`.
      action_dim: A.

    Returns:
      An algorithm with the learner "policy".
    """
    network: Any = MLP(action_dim, widths=config.widths)

    def prepare(data, frozen, key):
        del frozen, key
        inputs, actions = _pairs(data)
        return Pairs(
            inputs=normalize(statistics.inputs, inputs),
            actions=normalize(statistics.actions, actions),
        )

    def draw(data, key):
        row = jax.random.randint(key, (), 0, data.inputs.shape[0])
        return jax.tree.map(lambda leaf: leaf[row], data)

    def loss(params, keys, batch):
        del keys
        mean = jnp.mean((network.apply(params, batch.inputs) - batch.actions) ** 2)
        return mean, {"loss": mean}

    def act(states, carry, key, observation, reset, goal=None):
        del key, reset
        inputs = _beside(observation, goal, statistics.inputs.low.shape[-1], jnp)
        found = network.apply(
            states["policy"].slow["ema"], normalize(statistics.inputs, inputs)
        )
        return ActOutput(action=unnormalize(statistics.actions, found)), carry

    policy = supervised(
        prepare,
        draw,
        lambda key, batch: network.init(key, batch.inputs[:1]),
        [loss],
        optax.adam(config.learning_rate),
        averaging=Averaging(config.ema_decay),
    )
    return Algorithm(learners={"policy": policy}, act=act, init_carry=lambda batch: ())


def _pairs(episodes: Episodes) -> tuple[np.ndarray, np.ndarray]:
    """The inputs and actions of every transition; last rows have no action."""
    has_action = np.ones(len(episodes.actions), bool)
    has_action[episodes.starts + episodes.lengths] = False
    size = episodes.observations.shape[1]
    if episodes.goals is not None:
        size += episodes.goals.shape[1]
    inputs = _beside(episodes.observations, episodes.goals, size, np)
    return inputs[has_action], episodes.actions[has_action]


def _beside(observation: Any, goal: Any, size: int, xp: Any) -> Any:
    """Put the goal beside the observation, where the `size` of inputs asks for one."""
    if observation.shape[-1] == size:
        return observation
    if goal is None:
        raise UserError(
            f"this policy was trained on data with goals, {size} numbers beside the "
            f"observation's {observation.shape[-1]}; give it a goal"
        )
    return xp.concatenate([observation, goal], axis=-1)
