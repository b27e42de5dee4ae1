"""A new algorithm in one file: a linear policy, cloned by least squares."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.base import (
    ActOutput,
    Algorithm,
    Averaging,
    Entry,
    Preset,
    TrainConfig,
    supervised,
)
from jaxdiff.data.episodes import acted_rows
from jaxdiff.data.normalizer import Normalizer, fit_normalizer, normalize
from jaxdiff.options import Options
from jaxdiff.pytree import pytree_dataclass


@dataclasses.dataclass(frozen=True)
class LinearConfig(Options):
    """Attributes: learning_rate: Rate of Adam."""

    learning_rate: float = 1e-2


@dataclasses.dataclass(frozen=True)
class LinearActing(Options):
    """Attributes: scale: Factor of all actions."""

    scale: float = 1.0


@pytree_dataclass
class Statistics:
    inputs: Normalizer


def build(config, acting, statistics, spec):
    def prepare(data, frozen, key):
        rows = acted_rows(data)
        inputs = normalize(statistics.inputs, data.observations[rows])
        return {"inputs": inputs, "actions": jnp.asarray(data.actions[rows])}

    def draw(data, key):
        row = jax.random.randint(key, (), 0, len(data["actions"]))
        return jax.tree.map(lambda leaf: leaf[row], data)

    def init(key, batch):
        return {"w": jnp.zeros((spec.observation_dim, spec.action_dim))}

    def loss(params, keys, batch):
        error = jnp.mean((batch["inputs"] @ params["w"] - batch["actions"]) ** 2)
        return error, {"loss": error}

    def act(states, carry, keys, observation, reset, goal=None, guidance=None):
        inputs = normalize(statistics.inputs, observation)
        action = acting.scale * inputs @ states["policy"].slow["ema"]["w"]
        return ActOutput(action=action), carry

    adam = optax.adam(config.learning_rate)
    learner = supervised(prepare, draw, init, [loss], adam, averaging=Averaging(0.9))
    return Algorithm({"policy": learner}, act, init_carry=lambda batch: ())


ALGORITHMS["linear"] = Entry(
    "linear", "a linear policy.", LinearConfig, LinearActing, Statistics,
    lambda config, data, spec: Statistics(
        inputs=fit_normalizer("gaussian", data.observations)
    ),
    build,
    lambda dataset, spec: Preset(
        LinearConfig(), LinearActing(), {"policy": TrainConfig(num_steps=200)}
    ),
)  # fmt: skip
