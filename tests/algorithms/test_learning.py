"""Every algorithm learns what is known, in seconds, by the smallest networks.

Imitation reproduces a linear map, offline reinforcement learning takes the better of
two actions where the data take both as often, and planners plan the straight lines of
`points`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from points import STEPS, line, straight_lines
from toy import spec_of

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.planning.planner import Problem
from jaxdiff.data.episodes import Episodes
from jaxdiff.data.spec import Layout

BATCH, STATES = 64, 64
KEY = jax.random.key(0)


class Case(NamedTuple):
    """The smallest options that learn the task, and the number of updates."""

    config: dict[str, Any]
    acting: dict[str, Any]
    updates: int = 300


def learned(algorithm, case, episodes, spec):
    """Build an algorithm and train its learners, each by one program."""
    entry = ALGORITHMS[algorithm]
    config = entry.config(**case.config)
    statistics = entry.measure(config, episodes, spec)
    built = entry.build(config, entry.acting(**case.acting), statistics, spec)
    states = {}
    for name, learner in built.learners.items():
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
    built, states = learned(name, IMITATING[name], episodes, spec_of(episodes))
    new = rng.uniform(-1, 1, (STATES, 2)).astype(np.float32)
    error = acts(built, states, new) - new @ MAP
    assert np.sqrt(np.mean(error**2)) < 0.15 * np.std(new @ MAP)


# ----------------------------------------------------------- offline reinforcement learning

OFFLINE = {"widths": (32,), "learning_rate": 1e-2, "target_rate": 0.05}
SCORE = {**OFFLINE, "score_width": 32, "score_blocks": 1}
VAE = {**OFFLINE, "vae_widths": (32,)}
CHOOSING = {
    "iql": Case({**OFFLINE, "temperature": 10.0}, {}),
    "idql": Case({**SCORE, "score_dropout": 0.0}, {"candidates": 16}),
    "srpo": Case({**SCORE, "score_dropout": 0.0, "temperature": 1.0}, {}),
    "qgpo": Case(
        {
            **SCORE,
            **{"support_actions": 4, "energy_width": 32, "energy_blocks": 1},
            "temperature": 10.0,
        },
        {"candidates": 4},
    ),
    "diffusion-ql": Case(
        {**SCORE, "diffusion_steps": 3}, {"candidates": 16, "pick": "best"}
    ),
    "fql": Case({**SCORE, "flow_steps": 2, "alpha": 0.1}, {}),
    "cql": Case(
        {**OFFLINE, "policy_rate": 1e-2, "penalty_actions": 2, "penalty": 1.0}, {}
    ),
    "bcq": Case(VAE, {"candidates": 16}),
    "bear": Case({**VAE, "kernel": "gaussian", "width": 1.0}, {}),
    "td3-bc": Case({**OFFLINE, "temperature": 10.0}, {}),
}


def better(observation):
    """The better action depends on the side of the state; the worse one is opposite."""
    return np.where(observation[:, :1] > 0, 1, -1) * np.array([0.5, -0.25])


@pytest.mark.parametrize("name", CHOOSING)
def test_offline_learning_takes_the_better_of_two_actions(name):
    rng = np.random.default_rng(0)
    seen = rng.uniform(-1, 1, (512, 2))
    good = rng.integers(0, 2, 512)
    taken = (2 * good[:, None] - 1) * better(seen)
    episodes = steps_of_one(seen, taken, good)
    built, states = learned(name, CHOOSING[name], episodes, spec_of(episodes))
    new = rng.uniform(-1, 1, (STATES, 2)).astype(np.float32)
    new = new[np.abs(new[:, 0]) > 0.2]
    found, right = acts(built, states, new), better(new)
    # Nearer to the better action than a quarter of the way to the other one.
    apart = np.linalg.norm(found - right, axis=1) / np.linalg.norm(2 * right, axis=1)
    print(name, np.sort(apart)[-8:], np.median(apart))
    assert np.mean(apart < 0.25) > 0.9


# -------------------------------------------------------------------------- planning

PLANNER = {
    **{"diffusion_steps": 6, "dim": 8, "dim_mults": (1,), "prediction": "x0"},
    **{"goal_dim": 2, "learning_rate": 1e-2, "ema_decay": 0.95},
}
PLANNING = {
    "diffuser": Case(
        {**PLANNER, "horizon": STEPS, "action_weight": 1.0}, {"temperature": 0.0}
    ),
    # States alone, and the action that leads from one to the next.
    "decision-diffuser": Case(
        {
            **PLANNER,
            **{"horizon": STEPS + 1, "history": 2, "normalizer": "limits"},
            **{"padding": False, "inverse_width": 32},
        },
        {"temperature": 0.0},
    ),
}


@pytest.mark.parametrize("name", PLANNING)
def test_plans_are_the_lines_of_the_data(name):
    episodes = straight_lines()
    spec = spec_of(episodes, layout=Layout(position=(0, 1), goal=(0, 1)))
    built, states = learned(name, PLANNING[name], episodes, spec)
    rng = np.random.default_rng(1)
    observation, goal = rng.uniform(-0.9, 0.9, (2, 16, 2)).astype(np.float32)
    keys = jax.random.split(KEY, 16)
    problem = Problem(history=jnp.asarray(observation)[:, None], goal=goal)
    plans = jax.jit(lambda states: built.plan(states, keys, problem))(states)
    positions, actions = line(observation, goal, STEPS)
    error = np.asarray(plans.trajectories[:, 0, :, 2:]) - positions
    print(name, np.sqrt(np.mean(error**2)) / np.std(positions))
    found = plans.trajectories[:, 0, :-1, :2] - actions[:, None]
    print(name, np.sqrt(np.mean(found**2)) / np.std(actions))
    # Both ends are given; the rest must have been learned.
    assert np.sqrt(np.mean(error**2)) < 0.2 * np.std(positions)
    np.testing.assert_allclose(error[:, [0, -1]], 0, atol=1e-6)


def test_every_algorithm_is_here():
    assert {*IMITATING, *CHOOSING, *PLANNING} == set(ALGORITHMS)
