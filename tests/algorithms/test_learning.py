"""Every policy learns what is known, in seconds, by the smallest networks.

Imitation reproduces a linear map, and offline reinforcement learning takes the better
of two actions where the data take both as often.
"""

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from toy import spec_of

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.data.episodes import Episodes

BATCH, STATES = 32, 64
KEY = jax.random.key(0)


class Case(NamedTuple):
    """The smallest options that learn the task.

    `same` names learners that are those of another algorithm, trained once for both.
    """

    config: dict[str, Any]
    acting: dict[str, Any]
    updates: int = 300
    same: Mapping[str, str] = MappingProxyType({})


def learned(algorithm, case, episodes, spec, done):
    """Build an algorithm and train the other learners, each by one program."""
    entry = ALGORITHMS[algorithm]
    config = entry.config(**case.config)
    statistics = entry.measure(config, episodes, spec)
    built = entry.build(config, entry.acting(**case.acting), statistics, spec)
    states = {}
    for name, learner in built.learners.items():
        if name in done:
            states[name] = done[name]
            continue
        data = learner.prepare(episodes, states, KEY)

        def fit(data, frozen, learner=learner):
            def draw(key):
                keys = jax.random.split(key, BATCH)
                return jax.vmap(learner.draw, (None, 0))(data, keys)

            def update(state, key):
                batch_key, key = jax.random.split(key)
                keys = jax.random.split(key, BATCH)
                hyper = {"num_steps": float(case.updates)}
                return learner.update(state, keys, draw(batch_key), frozen, hyper)

            keys = jax.random.split(KEY, case.updates)
            state = learner.init(KEY, draw(KEY), frozen)
            return jax.lax.scan(update, state, keys)[0]

        states[name] = jax.jit(fit)(data, states)
    return built, states


def acts(built, states, observation, goal=None):
    """What an algorithm does first, in each of several environments."""
    count = len(observation)
    keys = jax.random.split(jax.random.key(1), count)
    reset = np.ones(count, bool)

    @jax.jit
    def act(states):
        carry = built.init_carry(count)
        return built.act(states, carry, keys, observation, reset, goal)[0].action

    return np.asarray(act(states))


def steps_of_one(observations, actions, rewards):
    """Episodes of one step each."""

    def two(rows):
        return np.repeat(rows, 2, axis=0).astype(np.float32)

    count = len(observations)
    return Episodes(
        observations=two(observations),
        actions=two(actions),
        # The row that ends an episode has a reward of zero.
        rewards=two(rewards) * (np.arange(2 * count) % 2 == 0),
        starts=2 * np.arange(count),
        lengths=np.ones(count, int),
        terminated=np.ones(count, bool),
    )


# ------------------------------------------------------------------------- imitation

MAP = np.array([[0.5, -1.0], [1.0, 0.25]])
IMITATION = {"hidden": 32, "learning_rate": 1e-2, "ema_decay": 0.95, "history": 1}
IMITATING = {
    "bc": Case({**IMITATION, "network": "mlp"}, {}),
    "diffusion-bc": Case(
        {
            **IMITATION,
            **{"network": "mlp", "diffusion_steps": 6, "schedule": "cosine"},
        },
        {"temperature": 0.0},
        updates=500,
    ),
}


@pytest.mark.parametrize("name", IMITATING)
def test_imitation_reproduces_a_linear_map(name):
    rng = np.random.default_rng(0)
    seen = rng.uniform(-1, 1, (512, 2))
    episodes = steps_of_one(seen, seen @ MAP, np.zeros(512))
    built, states = learned(name, IMITATING[name], episodes, spec_of(episodes), {})
    new = rng.uniform(-1, 1, (STATES, 2)).astype(np.float32)
    error = acts(built, states, new) - new @ MAP
    assert np.sqrt(np.mean(error**2)) < 0.15 * np.std(new @ MAP)


# ------------------------------------------------------ offline reinforcement learning

OFFLINE = {"widths": (32,), "learning_rate": 1e-2, "target_rate": 0.05}
SCORE = {
    **{**OFFLINE, "score_width": 32, "score_blocks": 1},
    **{"score_dropout": 0.0, "score_decay": 0.0},
}
VAE = {**OFFLINE, "vae_widths": (32,)}
CHOOSING = {
    "iql": Case({**OFFLINE, "temperature": 10.0}, {}),
    "idql": Case(SCORE, {"candidates": 16}, same={"critic": "iql"}),
    "srpo": Case({**SCORE, "temperature": 1.0}, {}, same={"critic": "iql"}),
    "qgpo": Case(
        {
            **SCORE,
            **{"support_actions": 4, "energy_width": 32, "energy_blocks": 1},
            "temperature": 10.0,
        },
        {"candidates": 16},
        same={"behaviour": "srpo"},
    ),
    "diffusion-ql": Case(
        {**SCORE, "diffusion_steps": 3}, {"candidates": 16, "pick": "best"}
    ),
    "fql": Case({**OFFLINE, "flow_steps": 2, "alpha": 0.1}, {}),
    "cql": Case(
        {**OFFLINE, "policy_rate": 1e-2, "penalty_actions": 2, "penalty": 1.0}, {}
    ),
    "bcq": Case(VAE, {"candidates": 16}),
    "bear": Case({**VAE, "kernel": "gaussian", "width": 1.0}, {}),
    "td3-bc": Case(OFFLINE, {}),
}


def better(observation):
    """The better action depends on the side of the state; the worse one is opposite."""
    return np.where(observation[:, :1] > 0, 1, -1) * np.array([0.5, -0.25])


@functools.cache
def chosen(name):
    """An algorithm and what its learners learned of both actions."""
    rng = np.random.default_rng(0)
    seen = rng.uniform(-1, 1, (512, 2))
    good = rng.integers(0, 2, 512)
    taken = (2 * good[:, None] - 1) * better(seen)
    episodes, case = steps_of_one(seen, taken, good), CHOOSING[name]
    done = {learner: chosen(other)[1][learner] for learner, other in case.same.items()}
    return learned(name, case, episodes, spec_of(episodes), done)


@pytest.mark.parametrize("name", CHOOSING)
def test_offline_learning_takes_the_better_of_two_actions(name):
    built, states = chosen(name)
    rng = np.random.default_rng(1)
    new = rng.uniform(-1, 1, (STATES, 2)).astype(np.float32)
    new = new[np.abs(new[:, 0]) > 0.2]
    found, right = acts(built, states, new), better(new)
    to_better, to_worse = (
        np.linalg.norm(found - sign * right, axis=1) for sign in (1, -1)
    )
    # Cloning would be nearer in one half of the states.
    assert np.mean(to_better < to_worse / 2) > 0.9


def test_every_algorithm_is_here():
    # Planners learn their lines in `test_contract.py`, by runs that act as well.
    planners = {"diffuser", "decision-diffuser"}
    assert {*IMITATING, *CHOOSING, *planners} == set(ALGORITHMS)
