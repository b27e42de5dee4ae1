"""Scores in a kitchen: of its demonstrators, and of policies that err somehow."""

import jax
import numpy as np
import pytest
from kitchens import straight
from stubs import stub_run

from jaxdiff.algorithms.base import ActOutput
from jaxdiff.evaluation import evaluate, save_evaluation
from jaxdiff.rollouts import Session
from jaxdiff.tasks.control import paths_of
from jaxdiff.tasks.kitchen import TASK, scores
from jaxdiff.tasks.kitchen import world as kitchen
from jaxdiff.tasks.kitchen.recipe import record_episode
from jaxdiff.tasks.kitchen.scores import score_paths, times


def demonstrated(count, seed):
    rng = np.random.default_rng(seed)
    episodes = [record_episode(rng, noise=0.1)[0] for _ in range(count)]
    return [kitchen.seen(shown) for shown in episodes]


DEMONSTRATIONS, OTHERS = demonstrated(60, 0), demonstrated(60, 1)
CEILING = score_paths(DEMONSTRATIONS, OTHERS)


def kitchen_run(path, act, environment=kitchen.TOY):
    return stub_run(path, act, environment, observation_shape=(30,), action_dim=9)


def test_demonstrators_score_well_and_nobody_scores_perfectly():
    assert CEILING["tasks_at_least_4"] == 1
    assert CEILING["tasks_at_least_5"] == 0
    same = score_paths(DEMONSTRATIONS, DEMONSTRATIONS)
    for metric in ("task_w", "time_w", "state_w"):
        assert same[metric] == pytest.approx(0, abs=1e-6)
        assert CEILING[metric] > 0
    assert same["coverage"] == 1
    assert 0.6 < CEILING["coverage"] <= 1
    assert 0.7 < CEILING["density"] < 1.4


def test_each_score_sees_its_own_fault():
    # Twice as slow: orders, ways and states are the same.
    slow = score_paths(DEMONSTRATIONS, [np.repeat(x, 2, axis=0) for x in OTHERS])
    assert slow["task_w"] == pytest.approx(CEILING["task_w"])
    assert slow["state_w"] == pytest.approx(CEILING["state_w"], abs=0.02)
    expected = np.mean(np.minimum(times(DEMONSTRATIONS), 1e9))
    assert slow["time_w"] == pytest.approx(expected, rel=0.15)
    # One episode again and again.
    stuck = score_paths(DEMONSTRATIONS, OTHERS[:1] * 60)
    assert stuck["tasks_at_least_4"] == 1
    assert stuck["task_w"] > CEILING["task_w"] + 1
    assert stuck["coverage"] < 0.2
    # Nothing is ever done.
    still = score_paths(DEMONSTRATIONS, [np.repeat(x[:1], 281, axis=0) for x in OTHERS])
    assert still["tasks_at_least_1"] == 0
    assert still["task_w"] == pytest.approx(4)
    unfinished = 280 - np.mean(times(DEMONSTRATIONS))
    assert still["time_w"] == pytest.approx(unfinished)
    assert still["density"] == still["coverage"] == 0
    # Joints astray, with the right objects: only states and ways suffer.
    astray = [x + np.append(np.full(9, 1.0), np.zeros(21)) for x in OTHERS]
    moved = score_paths(DEMONSTRATIONS, astray)
    assert moved["task_w"] == CEILING["task_w"]
    assert moved["state_w"] > CEILING["state_w"] + 0.2
    assert moved["density"] < 0.1


def test_what_follows_the_fourth_task_is_not_compared():
    longer = [np.concatenate([x, np.full((50, 30), 7.0)]) for x in OTHERS]
    assert score_paths(DEMONSTRATIONS, longer) == CEILING


def test_positions_that_never_change_do_not_count():
    constant = [x.copy() for x in OTHERS]
    for x in constant:
        x[:, 9:11] = 3.0  # belongs to no task, and is 0 in every demonstration
    assert score_paths(DEMONSTRATIONS, constant) == pytest.approx(CEILING)


def test_times_of_tasks():
    table = times([OTHERS[0], OTHERS[0][:1].repeat(3, 0)])
    steps = [step for _, step in kitchen.completions(OTHERS[0])]
    np.testing.assert_array_equal(table[0], steps)
    assert np.isnan(table[1]).all()
    assert times([OTHERS[0]], count=6)[0, 4:].shape == (2,)


def test_policies_play_the_toy_kitchen(tmp_path):
    run = kitchen_run(tmp_path, straight)
    record, played = evaluate(run, episodes=3, num_envs=2)
    assert record["tasks_at_least_1"] == record["mean_tasks"] == 1
    assert record["tasks_at_least_2"] == record["score"] == 0
    assert record["mean_length"] == 280
    assert (played.returns == 1).all()
    assert [len(path) for path in paths_of(played)] == [281] * 3
    done = [kitchen.completions(path) for path in paths_of(played)]
    assert {task for each in done for task, _ in each} == {"bottom burner"}
    (tmp_path / "evaluations").mkdir()
    save_evaluation(run, record)


def test_policies_play_the_franka_kitchen(tmp_path):
    pytest.importorskip("gymnasium_robotics")

    def random(states, carry, keys, observation, reset, goal=None, guidance=None):
        assert observation.shape[1] == 30
        draw = jax.vmap(lambda key: jax.random.uniform(key, (9,), minval=-1.0))
        return ActOutput(action=draw(keys)), carry

    run = kitchen_run(tmp_path, random, environment=kitchen.FRANKA)
    record, played = evaluate(run, episodes=1, num_envs=1)
    assert record["mean_length"] == 280
    assert played.observations.shape == (1, 281, 30)
    # The arm moves, and the environment has counted as we do.
    assert np.ptp(played.observations[0, :, :7], axis=0).min() > 0.05
    assert played.returns[0] == record["mean_tasks"]


def test_kitchens_side_by_side_are_at_most_25(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "jaxdiff.tasks.control.play", lambda *args: asked.append(args[-1].num_envs)
    )
    for count in (4, 100):
        TASK.play(TASK, None, None, Session(None, episodes=9, num_envs=count))
    assert asked == [4, 25]


def test_cloning_trains_and_is_evaluated(tmp_path, monkeypatch):
    from jaxdiff.training import train_run

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    TASK.recipes["toy-kitchen"].make(steps=400)
    run = train_run(
        "bc",
        "toy-kitchen",
        tmp_path / "run",
        config={"network": "mlp", "hidden": 8},
        training={"num_steps": 2, "batch_size": 8, "log_every": 1},
    )
    record, _ = evaluate(run, episodes=1)
    assert "tasks_at_least_4" in record


def test_an_episode_is_read_up_to_the_step_of_its_last_demonstrated_task():
    """What follows the fourth task is no part of a demonstration, its step is."""
    path = DEMONSTRATIONS[0]
    *_, (_, last) = kitchen.completions(path)
    found = scores._until_done(path)
    np.testing.assert_array_equal(found, path[: last + 1])
    assert kitchen.done(found)[-1].sum() == 4
    assert kitchen.done(found)[:-1].any(0).sum() == 3
    longer = np.concatenate([path, np.repeat(path[-1:], 50, axis=0)])
    np.testing.assert_array_equal(scores._until_done(longer), path[: last + 1])
