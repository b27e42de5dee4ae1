import dataclasses

import numpy as np
import pytest
from records import make

from jaxdiff.data.oddities import oddities


@pytest.fixture
def episodes():
    """Twenty walks of thirty small steps, each from a place of its own."""
    rng = np.random.default_rng(0)
    episodes = make([30] * 20)
    walks = rng.normal(size=(20, 31, 3)).cumsum(1) * 0.1 + rng.normal(size=(20, 1, 3))
    actions = rng.normal(size=episodes.actions.shape)
    return episodes.replace(
        observations=walks.reshape(-1, 3).astype(np.float32),
        actions=actions.astype(np.float32),
    )


def test_sound_data_are_not_odd(episodes):
    assert oddities(episodes) == []


def test_a_jump_within_an_episode_is_named(episodes):
    observations = episodes.observations.copy()
    observations[31 * 4 + 12 : 31 * 5] += 30  # episode 4, on arriving in step 12
    (said,) = oddities(episodes.replace(observations=observations))
    assert "in episode 4 at step 11" in said


@pytest.mark.parametrize("where", ["after", "before"])
def test_timeouts_that_are_out_of_step_are_recognised(episodes, where):
    places = np.repeat(10 * np.random.default_rng(1).normal(size=(20, 3)), 31, axis=0)
    x = episodes.observations + places.astype(np.float32)
    first, last = episodes.starts, episodes.starts + 30
    if where == "before":  # a flag too late: the next episode has begun
        x[last[:-1]] = x[first[1:]]
    else:
        x[first[1:]] = x[last[:-1]]
    found = oddities(episodes.replace(observations=x))
    assert f"in 100% of the episodes that step stands right {where} an end" in found[1]


def test_constant_columns_and_actions_at_bounds_are_named(episodes):
    observations, actions = episodes.observations.copy(), episodes.actions.copy()
    observations[:, 1] = 7
    actions[:, 0] = actions[:, 0].clip(-1, 1)
    found = oddities(episodes.replace(observations=observations, actions=actions))
    assert found[0] == "observations 1 never change"
    assert found[1].startswith("actions 0 lie at their smallest or largest value in 3")
    assert len(found) == 2


def test_a_gripper_of_two_values_is_as_it_should(episodes):
    actions = episodes.actions.copy()
    actions[:, 1] = np.sign(actions[:, 1])
    assert oddities(dataclasses.replace(episodes, actions=actions)) == []
