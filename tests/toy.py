"""Small things that tests share: a learner with a known answer, episodes, specs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdiff.algorithms.base import Algorithm, Averaging, supervised
from jaxdiff.data.episodes import Episodes, starts_of
from jaxdiff.data.spec import Layout, Spec
from jaxdiff.diffusion import normal

SLOPE, OFFSET = 2.0, -1.0


def line_data(count=64, *, poison=False):
    x = jnp.linspace(-1.0, 1.0, count)
    y = SLOPE * x + OFFSET
    return {"x": x, "y": y.at[0].set(jnp.nan) if poison else y}


def line_learner(*, learning_rate=0.1, learning_rate_decay=0.0):
    def draw(data, key):
        return jax.tree.map(
            lambda v: v[jax.random.randint(key, (), 0, v.shape[0])], data
        )

    def init_params(key, batch):
        return {"slope": jax.random.normal(key), "offset": jnp.zeros(())}

    def loss(params, keys, batch):
        # Each example has its own noise, so that splitting the batch changes nothing.
        jitter = 0.01 * jax.vmap(jax.random.normal)(keys)
        error = params["slope"] * batch["x"] + params["offset"] - batch["y"]
        value = jnp.mean((error + jitter) ** 2)
        return value, {"loss": value}

    return supervised(
        lambda data, frozen, key: data,
        draw,
        init_params,
        [loss],
        optax.adam(learning_rate),
        averaging=Averaging(0.9),
        learning_rate_decay=learning_rate_decay,
    )


def cleaning_learner(network):
    """A learner of a network that takes a little noise away, from data [N, ...]."""

    def loss(params, keys, batch):
        noised = batch + 0.1 * normal(keys, batch.shape)
        value = jnp.mean((network.apply(params, noised) - batch) ** 2)
        return value, {"loss": value}

    return supervised(
        lambda data, frozen, key: data,
        lambda data, key: data[jax.random.randint(key, (), 0, len(data))],
        lambda key, batch: network.init(key, batch[:1]),
        [loss],
        optax.adam(1e-3),
        averaging=Averaging(0.9),
    )


def line_algorithm(**options):
    return Algorithm(
        learners={"line": line_learner(**options)},
        act=lambda *args, **kwargs: None,
        init_carry=lambda batch: None,
    )


def spec_of(episodes, shape=None, *, layout=None):
    """The spec of episodes, whose observations perhaps have the shape of pictures."""
    return Spec(
        observation_shape=shape or episodes.observations.shape[1:],
        action_dim=episodes.actions.shape[1],
        goal_dim=0 if episodes.goals is None else episodes.goals.shape[1],
        layout=layout or Layout(),
    )


def episodes_of(lengths, observation, action):
    """Episodes whose row i has the observation and action that functions give."""
    lengths = np.array(lengths)
    rows = np.arange(int(np.sum(lengths + 1)))
    return Episodes(
        observations=np.asarray(observation(rows), np.float32),
        actions=np.asarray(action(rows), np.float32),
        rewards=np.zeros(len(rows), np.float32),
        starts=starts_of(lengths),
        lengths=lengths,
        terminated=np.ones(len(lengths), bool),
    )
