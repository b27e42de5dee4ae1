"""Environments without a task of their own: what is seen, made and scored."""

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from stubs import stub_run

from jaxdiff.algorithms.base import ActOutput
from jaxdiff.data.spec import Environment
from jaxdiff.errors import UserError
from jaxdiff.evaluation import evaluate, save_evaluation
from jaxdiff.rollouts import Rollouts
from jaxdiff.scoring import bootstrap
from jaxdiff.tasks.control import (
    CONTROL,
    Ends,
    make_env,
    make_raw,
    numbers,
    paths_of,
    read_ends,
    split,
)


class Paying(gymnasium.Env):
    """Pays what the action is, for as many steps as the seed says."""

    observation_space = gymnasium.spaces.Box(-100, 100, (3,))
    action_space = gymnasium.spaces.Box(-1, 2, (2,), np.float32)

    def __init__(self, factor=1.0):
        self.factor = factor

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 1 + (seed or 0) % 4
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.left -= 1
        reward = self.factor * float(action.sum())
        return np.zeros(3, np.float32), reward, self.left == 0, False, {}


class Reaching(Paying):
    """Shows a square picture and a goal, and calls reaching a success."""

    observation_space = gymnasium.spaces.Dict(
        observation=gymnasium.spaces.Box(0, 255, (2, 2), np.uint8),
        achieved_goal=gymnasium.spaces.Box(-1, 1, (1,)),
        desired_goal=gymnasium.spaces.Box(-1, 1, (1,)),
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._seen(), {}

    def step(self, action):
        _, *rest, _ = super().step(action)
        return self._seen(), *rest, {"is_success": self.left == 0}

    def _seen(self):
        picture = np.arange(4, dtype=np.uint8).reshape(2, 2)
        return {
            "observation": picture,
            "achieved_goal": np.zeros(1, np.float32),
            "desired_goal": np.full(1, 0.5, np.float32),
        }


gymnasium.register("Paying-v0", Paying)
gymnasium.register("Reaching-v0", Reaching)


def paid_run(path, environment="Paying-v0", references=None, *, observations=3):
    """A run that asks for more than the environment takes."""

    def act(states, carry, keys, observation, reset, goal=None, guidance=None):
        action = jnp.broadcast_to(jnp.array([5.0, -0.5]), (len(observation), 2))
        return ActOutput(action=action), carry

    return stub_run(
        path, act, environment, observation_shape=(observations,), action_dim=2,
        dataset="data", references=references,
    )  # fmt: skip


def test_control_is_scored_by_the_references_of_the_dataset(tmp_path):
    references = {"random": 1.0, "expert": 5.0}
    run = paid_run(tmp_path, references=references)
    record, played = evaluate(run, episodes=4, num_envs=3, seed=8)
    # Actions are clipped to [-1, 2]: 1.5 a step, for 1, 2, 3 and 4 steps.
    np.testing.assert_allclose(played.returns, [1.5, 3.0, 4.5, 6.0])
    assert record["setting"] == "data"
    assert record["environment"] == "Paying-v0"
    assert record["mean_return"] == 3.75
    assert record["mean_length"] == 2.5
    np.testing.assert_allclose(record["score"], 100 * (3.75 - 1) / 4)
    low, high = bootstrap(played.returns)
    assert record["return_interval"] == (low, high)
    np.testing.assert_allclose(record["score_low"], 100 * (low - 1) / 4)
    np.testing.assert_allclose(record["score_high"], 100 * (high - 1) / 4)
    assert "return of 1 and 100 of 5" in record["scale"]
    assert "success_rate" not in record
    save_evaluation(run, record)


@pytest.mark.parametrize("references", [{}, {"random": 2.0, "expert": 2.0}])
def test_without_references_there_is_a_return_and_no_score(tmp_path, references):
    run = paid_run(tmp_path, references=references)
    record, _ = evaluate(run, episodes=2, num_envs=2, seed=0)
    assert record["mean_return"] == 2.25
    assert not {"score", "scale"} & set(record)


def test_success_is_scored_where_the_environment_reports_it(tmp_path):
    run = paid_run(tmp_path, "Reaching-v0", observations=4)
    record, played = evaluate(run, episodes=3, num_envs=3)
    assert record["success_rate"] == 1.0
    assert record["success_interval"] == (1.0, 1.0)
    np.testing.assert_array_equal(played.goals, np.full((3, 1), 0.5))
    np.testing.assert_array_equal(played.observations[0, 0], np.arange(4))


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ("Nowhere-v7", "Nowhere-v7 cannot be made"),
        ("CartPole-v1", r"takes actions of Discrete\(2\)"),
        ("Pendulum-v1", "has actions of 1 numbers, and .* on actions of 2;"),
        ("Reaching-v0", "has observations of 4 numbers, and .* on observations of 3;"),
        (None, "does not say the environment"),
    ],
)
def test_environments_that_cannot_be_played_are_refused(tmp_path, environment, words):
    with pytest.raises(UserError, match=words):
        evaluate(paid_run(tmp_path, environment), episodes=1)


def test_keyword_arguments_and_time_limit_of_the_environment_count():
    env = make_env(Environment("Paying-v0", {"factor": 3.0}, max_episode_steps=2))
    env.reset(seed=3)
    _, reward, *ended, _ = env.step(np.array([9.0, 1.0], np.float32))
    assert (reward, ended) == (9.0, [False, False])
    assert env.step(np.zeros(2, np.float32))[2:4] == (False, True)
    again = make_raw(Environment("Paying-v0", {"factor": 3.0}), factor=4.0)
    assert again.unwrapped.factor == 4.0
    with pytest.raises(UserError, match="Paying-v0 cannot be made"):
        make_raw(Environment("Paying-v0", {"size": 1}))


def test_policies_see_flat_observations_and_goals():
    seen, goal = split(np.zeros((5, 2, 3)))
    assert seen.shape == (5, 6)
    assert goal is None
    pictures = {"observation": np.zeros((5, 2, 2), np.uint8), "image": np.zeros(5)}
    seen, goal = split(pictures)
    assert (seen.shape, seen.dtype, goal) == ((5, 4), np.uint8, None)
    seen, goal = split({"observation": np.zeros((5, 3)), "desired_goal": np.ones(5)})
    assert goal.shape == (5, 1)
    with pytest.raises(UserError, match=r"without the key 'observation' .*pixels"):
        split({"pixels": np.zeros((5, 3))})


def test_spaces_are_those_of_what_is_seen():
    env = make_env(Environment("Reaching-v0"))
    observation, _ = env.reset(seed=0)
    assert env.observation_space["observation"].shape == (4,)
    assert env.observation_space["desired_goal"].shape == (1,)
    assert observation.keys() == {"observation", "desired_goal"}
    plain = make_env(Environment("Paying-v0"))
    assert plain.observation_space.shape == plain.reset(seed=0)[0].shape == (3,)


def test_plans_are_asked_for_by_numbers(tmp_path):
    request = read_ends(Ends(start="0,0.5,-1"), paid_run(tmp_path))
    np.testing.assert_array_equal(request.start, np.float32([0, 0.5, -1]))
    assert request.goal is None
    assert CONTROL.question.read(Ends("1", "2"), paid_run(tmp_path)).goal == [2.0]
    with pytest.raises(UserError, match="`goal` is '1;2'; write numbers separated"):
        numbers("goal", "1;2")


def test_paths_end_where_their_episodes_did():
    played = Rollouts(
        *[np.zeros(2)] * 3, np.array([1, 2]), np.arange(12.0).reshape(2, 3, 2), None,
        None,
    )  # fmt: skip
    short, long = paths_of(played)
    np.testing.assert_array_equal(short, [[0, 1], [2, 3]])
    assert long.shape == (3, 2)
