import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.data.episodes import Episodes
from jaxdiff.data.transitions import (
    Transitions,
    beside,
    draw_transition,
    measure_rewards,
    scale_rewards,
    transitions,
)
from jaxdiff.errors import UserError


def counted(*, goals=False):
    """Two episodes whose numbers tell where they come from: 10 e + t.

    The first has 3 transitions and terminates, the second 2 and runs out of time.
    """
    rows = np.array([0, 1, 2, 3, 10, 11, 12], np.float32)
    rewards = np.array([1, 1, 5, 0, 1, 2, 0], np.float32)
    return Episodes(
        observations=rows[:, None],
        actions=-rows[:, None],
        rewards=rewards,
        starts=np.array([0, 4]),
        lengths=np.array([3, 2]),
        terminated=np.array([True, False]),
        goals=rows[:, None] + 100 if goals else None,
    )


def test_each_step_leads_to_the_next_and_none_to_another_episode():
    found = transitions(counted())
    np.testing.assert_array_equal(found.inputs[:, 0], [0, 1, 2, 10, 11])
    np.testing.assert_array_equal(found.next_inputs[:, 0], [1, 2, 3, 11, 12])
    np.testing.assert_array_equal(found.actions[:, 0], [0, -1, -2, -10, -11])
    np.testing.assert_array_equal(found.rewards, [1, 1, 5, 1, 2])


def test_only_what_terminates_is_terminal():
    terminals = transitions(counted()).terminals
    np.testing.assert_array_equal(terminals, [False, False, True, False, False])


def test_what_ran_out_of_time_may_be_left_out():
    found = transitions(counted(), drop_timeouts=True)
    np.testing.assert_array_equal(found.inputs[:, 0], [0, 1, 2, 10])
    np.testing.assert_array_equal(found.terminals, [False, False, True, False])


def test_that_leaves_nothing_of_single_steps_without_an_end():
    single = Episodes(
        observations=np.zeros((2, 1), np.float32),
        actions=np.zeros((2, 1), np.float32),
        rewards=np.zeros(2, np.float32),
        starts=np.array([0]),
        lengths=np.array([1]),
        terminated=np.array([False]),
    )
    assert len(transitions(single).rewards) == 1
    with pytest.raises(UserError, match="`drop_timeouts=False`"):
        transitions(single, drop_timeouts=True)


def test_the_goal_of_its_own_row_stands_beside_each_observation():
    found = transitions(counted(goals=True))
    np.testing.assert_array_equal(found.inputs[2], [2, 102])
    np.testing.assert_array_equal(found.next_inputs[2], [3, 103])


@pytest.mark.parametrize(
    ("kind", "rewards"),
    [
        ("raw", [1, 1, 5, 1, 2]),
        ("minus-one", [0, 0, 4, 0, 1]),
        # 0 and 1 of AntMaze become -2 and 2.
        ("centred", [2, 2, 18, 2, 6]),
        # The episodes return 7 and 3.
        ("range", [250, 250, 1250, 250, 500]),
    ],
)
def test_rewards_are_shifted_and_scaled(kind, rewards):
    episodes = counted()
    scale = measure_rewards(kind, episodes)
    found = scale_rewards(scale, transitions(episodes).rewards)
    np.testing.assert_allclose(found, rewards)


def test_equal_returns_have_no_range():
    episodes = counted()
    episodes.rewards[:] = 0
    with pytest.raises(UserError, match="`rewards='raw'`"):
        measure_rewards("range", episodes)


def test_draws_are_uniform_and_whole():
    data = transitions(counted())
    keys = jax.random.split(jax.random.key(0), 5000)
    drawn = jax.vmap(draw_transition, (None, 0))(data, keys)
    for name in Transitions.__dataclass_fields__:
        assert getattr(drawn, name).shape == (5000, *getattr(data, name).shape[1:])
    np.testing.assert_array_equal(drawn.next_inputs, drawn.inputs + 1)
    np.testing.assert_array_equal(drawn.terminals, drawn.inputs[:, 0] == 2)
    shares = [np.mean(drawn.inputs == x) for x in data.inputs[:, 0]]
    np.testing.assert_allclose(shares, 0.2, atol=0.03)


def test_a_goal_stands_beside_where_it_is_asked_for():
    observation, goal = jnp.zeros((2, 3)), jnp.ones((2, 1))
    assert beside(observation, goal, 3).shape == (2, 3)
    np.testing.assert_array_equal(beside(observation, goal, 4)[:, 3], 1)
    with pytest.raises(UserError, match="give it a goal"):
        beside(observation, None, 4)
