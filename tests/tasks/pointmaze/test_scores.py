"""Runs are scored beside the expert and the random policy, on the same episodes."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stubs import stub_run

from jaxdiff.algorithms.base import ActOutput
from jaxdiff.errors import UserError
from jaxdiff.evaluation import evaluate
from jaxdiff.rollouts import RandomPolicy, Session, rollout
from jaxdiff.tasks.lookup import task_of
from jaxdiff.tasks.pointmaze import TASK, environment, scores
from jaxdiff.tasks.pointmaze import world as pointmaze
from jaxdiff.tasks.pointmaze.environment import make_env, make_maze
from jaxdiff.tasks.pointmaze.expert import Expert
from jaxdiff.tasks.pointmaze.scores import (
    MazeOptions,
    d4rl_score,
    maze_references,
    plan_paths,
    settle,
)

pytest.importorskip("gymnasium_robotics")

UMAZE = pointmaze.maze_by_name("umaze")
ENVIRONMENT = pointmaze.environment_of(UMAZE)


def straight(states, carry, keys, observation, reset, goal=None, guidance=None):
    """Drives straight to the goal, with a little noise; counts its own steps."""
    del states, guidance
    count = jnp.where(reset, 0, carry + 1)
    noise = 0.01 * jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)
    action = 10 * (goal - observation[:, :2]) - 4 * observation[:, 2:] + noise
    plan = jnp.broadcast_to(count[:, None, None], (len(count), 3, 6))
    return ActOutput(action=jnp.clip(action, -1, 1), plan=plan, planned=reset), count


def driving_run(path):
    run = stub_run(path, straight, ENVIRONMENT.id, observation_shape=(4,), action_dim=2)
    return run._replace(spec=run.spec.__class__((4,), 2, goal_dim=2))


@pytest.fixture
def short(monkeypatch):
    """Make episodes of two steps."""
    maze_references.cache_clear()
    for module in (environment, scores):
        monkeypatch.setattr(
            module, "make_maze", lambda maze: make_maze(maze, max_episode_steps=2)
        )
    yield
    maze_references.cache_clear()


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("umaze", 23.85, 161.86), ("medium", 13.13, 277.39), ("large", 6.7, 273.99)],
)
def test_d4rl_score_has_its_published_constants(name, low, high):
    maze = pointmaze.maze_by_name(name)
    assert d4rl_score(maze, low) == 0.0
    assert d4rl_score(maze, high) == 100.0
    np.testing.assert_allclose(d4rl_score(maze, (low + high) / 2), 50.0)


def test_the_task_is_found_by_the_exact_id():
    assert task_of(ENVIRONMENT) is TASK
    for other in ("PointMaze_UMazeDense-v3", "PointMaze_UMaze-v30"):
        assert task_of(ENVIRONMENT._replace(id=other)) is not TASK


def test_starts_and_goals_do_not_depend_on_the_wave():
    def play(num_envs, seed=0):
        env = make_maze(UMAZE)
        session = Session(
            lambda count, seeds: RandomPolicy(env.action_space, seed=seeds[0]),
            episodes=7,
            num_envs=num_envs,
            seed=seed,
        )
        return rollout(session, lambda: make_maze(UMAZE, max_episode_steps=4))

    three, five, later = play(3), play(5), play(3, seed=2)
    for some in (five, later):
        shift = 2 if some is later else 0
        count = 7 - shift
        np.testing.assert_array_equal(three.goals[shift:], some.goals[:count])
        np.testing.assert_array_equal(
            three.observations[shift:, 0], some.observations[:count, 0]
        )
    assert len(np.unique(three.observations[:, 0, 0])) == 7


def test_returns_are_those_of_a_plain_loop():
    def by_hand(seed):
        env = make_env(ENVIRONMENT)
        policy = Expert(UMAZE, 1, seeds=[seed])
        state, _ = env.reset(seed=seed)
        total, success, over, steps = 0.0, False, False, 0
        while not over:
            action = policy(state["observation"][None], state["desired_goal"][None])
            state, reward, terminated, truncated, info = env.step(action[0])
            over = terminated or truncated
            total, steps = total + reward, steps + 1
            success |= bool(info["success"])
        env.close()
        return total, success, steps

    session = Session(
        lambda count, seeds: Expert(UMAZE, count, seeds), episodes=2, num_envs=1, seed=5
    )
    played = rollout(session, lambda: make_maze(UMAZE))
    for i in range(2):
        total, success, steps = by_hand(5 + i)
        assert played.returns[i] == total
        assert played.successes[i] == success
        assert played.lengths[i] == steps == UMAZE.max_episode_steps
    assert played.returns.max() > 0


def test_expert_earns_its_known_return_and_random_little():
    # 200 episodes gave 234.1 +- 3.0 and 17.0 +- 2.9 (mean and its standard error).
    expert, chance = maze_references(UMAZE, episodes=12, seed=3)
    assert 200 < expert.returns.mean() < 268
    assert chance.returns.mean() < 60
    # They are played once for several runs.
    assert maze_references(UMAZE, episodes=12, seed=3)[0] is expert


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    run = driving_run(tmp_path_factory.mktemp("run"))
    return run, *evaluate(run, episodes=4, num_envs=4, seed=3)


def test_episodes_on_a_device_are_those_of_mujoco(evaluated):
    run, record, played = evaluated
    there, simulated = evaluate(run, episodes=4, num_envs=4, seed=3, on_device=True)
    assert "score" in record
    assert "score" not in there
    np.testing.assert_array_equal(simulated.goals, played.goals.astype(np.float32))
    np.testing.assert_allclose(simulated.observations, played.observations, atol=1e-4)
    np.testing.assert_array_equal(simulated.plans, played.plans)
    np.testing.assert_allclose(simulated.returns, played.returns, atol=1)
    np.testing.assert_array_equal(simulated.successes, played.successes)


def test_a_record_agrees_with_its_episodes(evaluated):
    _, record, played = evaluated
    assert record["setting"] == "umaze-multi"
    assert record["episodes"] == 4
    assert record["mean_return"] == played.returns.mean()
    assert record["success_rate"] == played.successes.mean()
    span = record["expert_return"] - record["random_return"]
    relative = (record["mean_return"] - record["random_return"]) / span
    np.testing.assert_allclose(record["score"], 100 * relative)
    assert record["score_low"] <= record["score"] <= record["score_high"]
    for name, value in (("return", "mean_return"), ("success", "success_rate")):
        low, high = record[f"{name}_interval"]
        assert low <= record[value] <= high
    assert record["d4rl_score"] == d4rl_score(UMAZE, record["mean_return"])
    assert record["expert_success_rate"] == 1.0
    assert json.loads(json.dumps(record)) == {
        **record,
        "success_interval": list(record["success_interval"]),
        "return_interval": list(record["return_interval"]),
    }


def test_references_meet_the_same_starts_and_goals(evaluated):
    _, _, played = evaluated
    for other in (played.expert, played.chance):
        np.testing.assert_array_equal(
            other.observations[:, 0], played.observations[:, 0]
        )
        np.testing.assert_array_equal(other.goals, played.goals)


def test_two_devices_score_as_one(evaluated):
    run, record, played = evaluated
    two, same = evaluate(run, episodes=4, num_envs=4, seed=3, devices=jax.devices()[:2])
    chex.assert_trees_all_equal({**two, "seconds": 0}, {**record, "seconds": 0})
    np.testing.assert_array_equal(same.observations, played.observations)


def test_episodes_that_pay_no_one_have_no_score(tmp_path, short):
    with pytest.raises(UserError, match="more `episodes`"):
        evaluate(driving_run(tmp_path), episodes=2, num_envs=2)


def test_waves_compile_nothing_after_the_first(
    compilations, tmp_path, short, monkeypatch
):
    monkeypatch.setattr(scores, "require_scale", lambda *_: None)
    run = driving_run(tmp_path)

    def play(episodes):
        session = Session(
            lambda count, seeds: run.policy(count, seeds=seeds), episodes, num_envs=2
        )
        return TASK.play(TASK, ENVIRONMENT, MazeOptions(), session)

    play(2)
    compilations.clear()
    played = play(6)
    assert not compilations
    assert len(played.returns) == 6


def test_the_dataset_says_which_goals_are_scored_unless_the_user_does():
    assert settle(MazeOptions(), {}).setting == "multi"
    assert settle(MazeOptions(), {"setting": "single"}).setting == "single"
    chosen = MazeOptions(setting="multi")
    assert settle(chosen, {"setting": "single"}).setting == "multi"
    with pytest.raises(UserError, match="`setting` is 'double'"):
        MazeOptions(setting="double")


def test_single_keeps_one_goal(tmp_path):
    run = driving_run(tmp_path)
    run.document["dataset"]["metadata"]["setting"] = "single"
    record, played = evaluate(run, episodes=3, num_envs=2)
    assert record["setting"] == "umaze-single"
    goal = pointmaze.cell_to_xy(UMAZE, UMAZE.goal_cell)
    assert (np.abs(played.goals - goal) <= 0.25).all()
    assert len(np.unique(played.observations[:, 0, 0])) == 3


def test_a_maze_of_ones_own_is_scored_without_d4rls_constants(tmp_path):
    run = driving_run(tmp_path)
    cells = [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1]]
    run.document["dataset"]["evaluation"] = {
        "id": "PointMaze_UMaze-v3",
        "kwargs": {"maze_map": cells},
        "max_episode_steps": 100,
    }
    record, played = evaluate(run, episodes=3, num_envs=3)
    assert record["setting"] == "own-4x4-multi"
    assert "d4rl_score" not in record
    assert (played.lengths == 100).all()
    assert pointmaze.is_free(played.maze, played.observations[..., :2]).all()


def test_paths_of_plans_end_where_they_arrive(evaluated):
    _, _, played = evaluated
    assert played.plans.shape == (4, 3, 6)
    assert (played.plans == 0).all()  # the first plan of an episode
    assert [len(path) for path in plan_paths(played)] == [1] * 4
    with pytest.raises(ValueError, match="without plans"):
        plan_paths(played.expert)
