import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from points import straight_lines

from jaxdiff.algorithms.base import TrainState
from jaxdiff.algorithms.bc import BCConfig, bc, measure
from jaxdiff.data.episodes import Episodes
from jaxdiff.errors import UserError
from jaxdiff.train import TrainConfig, fit

CONFIG = BCConfig(hidden=32, learning_rate=1e-2, ema_decay=0.98)


def two_ways(count=200):
    """Episodes of one step: from s to the left or, three times as often, to the right.

    The actions are far from zero and of different sizes, so that a policy which forgot
    to undo the normalisation would be seen.
    """
    s = np.random.default_rng(0).uniform(5, 6, count)
    right = np.arange(count) % 4 != 0
    action = 10 + np.where(right, 2.0, -2.0)
    rows = 2 * count
    observations, actions = np.zeros((rows, 1)), np.zeros((rows, 2))
    observations[::2, 0] = s
    # Rows without an action hold what must never be learned.
    observations[1::2], actions[1::2] = 99.0, 99.0
    actions[::2, 0], actions[::2, 1] = action, 100 * s
    return Episodes(
        observations=observations.astype(np.float32),
        actions=actions.astype(np.float32),
        rewards=np.zeros(rows, np.float32),
        starts=2 * np.arange(count),
        lengths=np.ones(count, int),
        terminated=np.zeros(count, bool),
    )


def trained(episodes):
    statistics = measure(CONFIG, episodes)
    algorithm = bc(CONFIG, statistics, action_dim=2)
    config = TrainConfig(num_steps=400, batch_size=64)
    return algorithm, fit(algorithm, episodes, configs={"policy": config})


def test_acts_as_the_mean_of_those_who_disagree():
    algorithm, states = trained(two_ways())
    s = np.array([[5.2], [5.8]], np.float32)
    carry = algorithm.init_carry(2)
    output, _ = algorithm.act(states, carry, jax.random.key(0), s, np.ones(2, bool))
    # Three go right and one left: 10 + (3 - 1) / 4 * 2.
    np.testing.assert_allclose(output.action[:, 0], 11, atol=0.4)
    np.testing.assert_allclose(output.action[:, 1], 100 * s[:, 0], rtol=0.02)
    assert output.plan is None


def test_averaged_parameters_act():
    episodes = two_ways(8)
    algorithm = bc(CONFIG, measure(CONFIG, episodes), action_dim=2)
    learner = algorithm.learners["policy"]
    data = learner.prepare(episodes, {}, jax.random.key(0))
    keys = jax.random.split(jax.random.key(2), 4)
    batch = jax.vmap(learner.draw, (None, 0))(data, keys)
    state = jax.jit(learner.init)(jax.random.key(1), batch, {})
    spoiled = jax.tree.map(lambda leaf: leaf * jnp.nan, state.params)

    def action(state: TrainState):
        return algorithm.act(
            {"policy": state},
            algorithm.init_carry(1),
            jax.random.key(0),
            np.full((1, 1), 5.0, np.float32),
            np.ones(1, bool),
        )[0].action

    np.testing.assert_array_equal(
        action(dataclasses.replace(state, params=spoiled)), action(state)
    )


def test_a_policy_of_goals_needs_a_goal():
    episodes = straight_lines(20)
    algorithm = bc(CONFIG, measure(CONFIG, episodes), action_dim=2)
    with pytest.raises(UserError, match="give it a goal"):
        algorithm.act({}, (), jax.random.key(0), np.zeros((1, 2)), np.ones(1, bool))


def test_options_are_checked():
    for wrong, flag in (
        ({"hidden": 0}, "--hidden"),
        ({"ema_decay": 1.5}, "--ema-decay"),
        ({"learning_rate": float("nan")}, "--learning-rate"),
    ):
        with pytest.raises(UserError, match=flag):
            BCConfig(**wrong)
