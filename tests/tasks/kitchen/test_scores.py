"""Scores in a kitchen: of its demonstrators, and of policies that err somehow."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import kitchen as benchmark
from jaxdiff import figures
from jaxdiff.algorithms.base import ActOutput, Algorithm
from jaxdiff.cli import main
from jaxdiff.data.episodes import load_dataset
from jaxdiff.errors import UserError
from jaxdiff.evaluation import evaluate_run
from jaxdiff.run import Run
from jaxdiff.scoring import save_evaluation
from jaxdiff.tasks.imitation_figures import plot_times
from jaxdiff.tasks.kitchen import toy as toy_kitchen
from jaxdiff.tasks.kitchen import world as kitchen
from jaxdiff.tasks.kitchen.recipe import record_episode
from jaxdiff.tasks.kitchen.scores import evaluate_kitchen, paths_of, score_paths, times
from jaxdiff.tasks.recipes import RECIPES


def demonstrated(count, seed):
    rng = np.random.default_rng(seed)
    episodes = [record_episode(rng, noise=0.1)[0] for _ in range(count)]
    return [kitchen.seen(shown) for shown in episodes]


DEMONSTRATIONS, OTHERS = demonstrated(60, 0), demonstrated(60, 1)
CEILING = score_paths(DEMONSTRATIONS, OTHERS)


def stub_run(path, act, environment=kitchen.TOY):
    document = {
        "dataset": {
            "name": "toy-kitchen",
            "environment": environment,
            "references": {},
            "action_dim": 9,
            "fingerprint": "",
        }
    }
    (path / "evaluations").mkdir(exist_ok=True)
    algorithm = Algorithm({}, act, lambda batch: jnp.zeros(batch))
    return Run(path, "stub", None, None, algorithm, {}, document)


def idle(states, carry, key, observation, reset, goal=None):
    return ActOutput(action=jnp.zeros((len(observation), 9))), carry


def straight(states, carry, key, observation, reset, goal=None):
    """Do one task of the toy kitchen: the first of `TASKS`."""
    handle = jnp.asarray(toy_kitchen.HANDLES[0])
    end = jnp.asarray(toy_kitchen.grips(np.full(7, 1.05))[0])
    # Whether the handle has been reached is carried along.
    near = jnp.linalg.norm(observation[:, :9] - handle, axis=-1) < 0.1
    carry = jnp.where(reset, 0.0, jnp.maximum(carry, near))
    target = jnp.where(carry[:, None] > 0, end, handle)
    move = (target - observation[:, :9]) / toy_kitchen.STEP
    size = jnp.linalg.norm(move, axis=-1, keepdims=True)
    return ActOutput(action=move / jnp.maximum(size, 1)), carry


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
    run = stub_run(tmp_path, straight)
    record, rollouts = evaluate_run(run, episodes=3, num_envs=2, setting="multi")
    assert record["tasks_at_least_1"] == record["mean_tasks"] == 1
    assert record["tasks_at_least_2"] == record["score"] == 0
    assert record["mean_length"] == 280
    assert (rollouts.returns == 1).all()
    assert [len(path) for path in paths_of(rollouts)] == [281] * 3
    done = [kitchen.completions(path) for path in paths_of(rollouts)]
    assert {task for each in done for task, _ in each} == {"bottom burner"}
    save_evaluation(run, record)
    other = stub_run(tmp_path, idle, environment="Pendulum-v1")
    with pytest.raises(UserError, match="no kitchen"):
        evaluate_kitchen(other)


def test_policies_play_the_franka_kitchen(tmp_path):
    pytest.importorskip("gymnasium_robotics")

    def random(states, carry, key, observation, reset, goal=None):
        assert observation.shape[1] == 30
        action = jax.random.uniform(key, (len(observation), 9), minval=-1.0)
        return ActOutput(action=action), carry

    run = stub_run(tmp_path, random, environment=kitchen.FRANKA)
    record, rollouts = evaluate_kitchen(run, episodes=1, num_envs=1)
    assert record["mean_length"] == 280
    assert rollouts.observations.shape == (1, 281, 30)
    # The arm moves, and the environment has counted as we do.
    assert np.ptp(rollouts.observations[0, :, :7], axis=0).min() > 0.05
    assert rollouts.returns[0] == record["mean_tasks"]


def test_cloning_trains_and_is_evaluated(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    main(["data", "make", "toy-kitchen", "--steps", "400"])
    run = str(tmp_path / "run")
    named = ("--dataset", "toy-kitchen", "--run", run, "--devices", "1")
    sizes = ("--network", "mlp", "--hidden", "8", "--batch-size", "8")
    main(["train", "bc", *named, *sizes, "--num-steps", "2", "--log-every", "1"])
    main(["evaluate", run, "--episodes", "1", "--devices", "1"])
    assert "tasks_at_least_4" in capsys.readouterr().out


def test_the_benchmark_scores_runs_beside_demonstrators(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    make = RECIPES["toy-kitchen"].make
    make(steps=2500)
    asked = []
    run = stub_run(tmp_path, straight)
    fingerprint = load_dataset("toy-kitchen").fingerprint
    run.document["dataset"]["fingerprint"] = fingerprint

    def load(path, overrides):
        asked.append((path.name, overrides))
        return run

    monkeypatch.setattr(benchmark, "load_run", load)
    monkeypatch.setattr(benchmark, "select_devices", lambda: jax.devices()[:1])
    results = tmp_path / "results"
    options = benchmark.Options(
        runs=(Path("a"), Path("b"), Path("a")),
        methods=("one", "one", "x"),
        overrides=("", "", "extra_steps=1"),
        episodes=2,
        num_envs=2,
    )
    benchmark.main(options, directory=results)
    assert asked == [("a", {}), ("b", {}), ("a", {"extra_steps": 1})]
    rows = json.loads((results / "kitchen.json").read_text())
    found = {(row["method"], row["metric"]): row["value"] for row in rows}
    assert {row["setting"] for row in rows} == {"toy-kitchen"}
    assert found["demonstrator", "tasks_at_least_4"] == 1
    assert found["one", "tasks_at_least_1"] == 1
    assert found["one", "tasks_at_least_2"] == 0
    assert found["one", "time_w"] > found["demonstrator", "time_w"]
    seeds = {row["method"]: (row["seeds"], row["n"]) for row in rows}
    assert seeds == {"demonstrator": (1, 2), "one": (2, 4), "x": (1, 2)}
    assert '--overrides "" "" "extra_steps=1"' in rows[0]["command"]
    assert (results / "figures" / "kitchen-toy-kitchen.png").is_file()
    # The demonstrators alone: all of the other half.
    alone = benchmark.Options(dataset="toy-kitchen", episodes=100)
    benchmark.main(alone, directory=tmp_path / "alone")
    (row, *_) = json.loads((tmp_path / "alone" / "kitchen.json").read_text())
    count = len(load_dataset("toy-kitchen").episodes.lengths)
    assert row["n"] == count - count // 2
    run.document["dataset"]["fingerprint"] = "another"
    for wrong, words in ((benchmark.Options(), "nothing to score"), (options, "other")):
        with pytest.raises(UserError, match=words):
            benchmark.main(wrong, directory=results)
    make(steps=500)
    with pytest.raises(UserError, match="at least 12"):
        benchmark.main(alone, directory=results)


def test_the_picture_has_a_panel_a_task(tmp_path):
    steps = np.array([[10.0, 20.0], [30.0, np.nan]])
    both = {"demonstrator": np.array([[5.0, 9.0]]), "policy": steps}
    figure = plot_times(both, shaded="demonstrator", horizon=40)
    assert len(figure.axes) == 2
    for axes, expected in zip(figure.axes, ([0, 0.5, 1.0], [0, 0, 0.5]), strict=True):
        (line,) = (one for one in axes.lines if one.get_gid() == "policy")
        np.testing.assert_allclose(line.get_ydata()[[5, 15, 40]], expected)
        (area,) = (one for one in axes.collections if one.get_gid() == "demonstrator")
        assert area.get_paths()[0].contains_point((20, 0.5))
    figures.save(figure, tmp_path / "times.png")
