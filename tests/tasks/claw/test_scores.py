"""Scores at the claw machine: of the demonstrator, and of policies that err somehow."""

import json
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import claw as benchmark
from jaxdiff import figures
from jaxdiff.algorithms.base import ActOutput, Algorithm
from jaxdiff.cli import main
from jaxdiff.errors import UserError
from jaxdiff.evaluation import evaluate_run
from jaxdiff.run import Run
from jaxdiff.scoring import save_evaluation
from jaxdiff.tasks.claw import world as claw
from jaxdiff.tasks.claw.scores import (
    demonstrations,
    evaluate_claw,
    labels_of,
    score_actions,
)
from jaxdiff.tasks.control import evaluate_control
from jaxdiff.tasks.imitation_figures import draw_actions


def knowing_run(path, family="uniform", environment=None):
    """A run whose policy knows the pictures and draws as the demonstrator does."""
    scenes = claw.scenes(family)
    images = jnp.stack([jnp.asarray(s.image.ravel(), jnp.float32) for s in scenes])
    # One distribution function after another, scene i's from i to i + 1.
    below = np.stack([np.cumsum(claw.demonstrator(s).ravel()) for s in scenes])
    table = jnp.asarray((below / below[:, -1:] + np.arange(7)[:, None]).ravel())

    def act(states, carry, key, observation, reset, goal=None):
        scene = (observation[:, None] == images).all(-1).argmax(1)
        drawn, within = jax.random.split(key)
        u = jax.random.uniform(drawn, scene.shape, minval=1e-4, maxval=1 - 1e-4)
        pixel = jnp.searchsorted(table, scene + u) % 64**2
        corner = jnp.stack([pixel % 64, pixel // 64], axis=-1)
        jitter = jax.random.uniform(within, corner.shape, maxval=0.999)
        return ActOutput(action=(corner + jitter) / 64), carry

    document = {
        "dataset": {
            "name": "claw",
            "environment": environment or claw.ENVIRONMENTS[family],
            "references": {"random": 0.15, "expert": 1.0},
            "action_dim": 2,
        }
    }
    (path / "evaluations").mkdir(exist_ok=True)
    algorithm = Algorithm({}, act, lambda batch: jnp.zeros(batch))
    return Run(path, "knowing", None, None, algorithm, {}, document)


@pytest.mark.parametrize("family", ["uniform", "biased"])
def test_who_draws_as_the_demonstrator_scores_as_it_does(tmp_path, family):
    run = knowing_run(tmp_path, family)
    record, actions = evaluate_claw(run, samples=300, seed=5)
    assert actions.shape == (7, 300, 2)
    assert record["setting"] == f"claw-{family}"
    assert (record["validity"], record["score"]) == (1.0, 100.0)
    ceiling = score_actions(family, demonstrations(family, samples=300, seed=6))
    assert ceiling["validity"] == 1.0
    for metric, slack in (
        *(("energy", 0.01), ("share_error", 0.04), ("sliced_wasserstein", 0.02)),
        *(("density", 0.05), ("coverage", 0.05)),
    ):
        assert record[metric] == pytest.approx(ceiling[metric], abs=slack), metric
    assert abs(record["energy"]) < 0.01
    assert record["share_error"] < 0.05
    assert record["coverage"] > 0.9
    save_evaluation(run, record)
    if family == "uniform":
        again, few = evaluate_claw(run, samples=50, num_envs=20)
        assert again["validity"] == 1.0
        assert again["samples"] == few.shape[1] == 50
        assert len(np.unique(few[0], axis=0)) == 50


def test_each_score_sees_its_own_fault():
    rng = np.random.default_rng(0)
    truth = demonstrations("biased", samples=300)
    good = score_actions("biased", demonstrations("biased", samples=300, seed=1))
    # The mean of two toys lies on neither.
    two = demonstrations("uniform", samples=300)
    mean = np.broadcast_to(two.mean(1, keepdims=True), two.shape)
    blurred = score_actions("uniform", mean)
    assert blurred["validity"] < 0.75
    assert blurred["coverage"] < 0.1
    # One toy too often: all on toys, in wrong shares.
    tilted = np.stack(
        [claw.draw_actions(p, 300, rng) for p in claw.guided("biased", 4.0)]
    )
    guided = score_actions("biased", tilted)
    assert guided["validity"] == 1.0
    assert guided["share_error"] == pytest.approx(0.9 * 6 / 7, abs=0.03)
    assert guided["energy"] > 10 * good["energy"] + 0.1
    # One point again and again: nothing is covered.
    stuck = np.broadcast_to(truth[:, :1], truth.shape)
    assert score_actions("biased", stuck)["coverage"] < 0.1
    assert (labels_of("biased", stuck) >= 0).all()


def test_closed_loop_play_agrees(tmp_path):
    run = knowing_run(tmp_path)
    record, rollouts = evaluate_control(run, episodes=40, num_envs=10)
    assert record["mean_return"] == record["mean_length"] == 1.0
    assert record["score"] == 100.0
    assert rollouts.successes.all()
    assert len(np.unique(rollouts.observations[:, 0], axis=0)) == 7


def test_evaluate_run_and_bad_requests(tmp_path):
    run = knowing_run(tmp_path)
    record, actions = evaluate_run(run, episodes=20, setting="multi", num_envs=100)
    assert record["samples"] == actions.shape[1] == 20
    for options, words in (
        ({"samples": 3}, "at least 10"),
        ({"num_envs": 0}, "--num-envs is 0"),
    ):
        with pytest.raises(UserError, match=words):
            evaluate_claw(run, **options)
    other = knowing_run(tmp_path, environment="Pendulum-v1")
    with pytest.raises(UserError, match="no claw machine"):
        evaluate_claw(other)


@pytest.mark.slow
def test_behaviour_cloning_trains_on_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    main(["data", "make", "claw", "--steps", "300"])
    run = str(tmp_path / "run")
    sizes = ("--hidden", "32", "--num-steps", "20", "--batch-size", "32")
    named = ("--dataset", "claw", "--run", run, "--devices", "1")
    main(["train", "bc", *named, *sizes, "--log-every", "10"])
    main(["evaluate", run, "--episodes", "20", "--devices", "1"])
    assert "share_error" in capsys.readouterr().out
    monkeypatch.setattr(benchmark, "select_devices", lambda: jax.devices()[:1])
    options = benchmark.Options(runs=(Path(run),), samples=20)
    benchmark.main(options, directory=tmp_path / "results")
    rows = json.loads((tmp_path / "results" / "claw.json").read_text())
    found = {(row["method"], row["metric"]): row["value"] for row in rows}
    # What is not random covers little.
    assert found["bc", "coverage"] < 0.5 < found["demonstrator", "coverage"]
    assert found["demonstrator", "validity"] == 1.0
    assert (tmp_path / "results" / "figures" / "claw-uniform.png").is_file()


def test_runs_of_one_name_are_seeds_of_it(monkeypatch, tmp_path):
    asked, run = [], knowing_run(tmp_path)

    def load(path, overrides):
        asked.append((path.name, overrides))
        return run

    monkeypatch.setattr(benchmark, "load_run", load)
    options = benchmark.Options(
        runs=(Path("a"), Path("b"), Path("a")),
        methods=("one", "one", "two"),
        overrides=("", "", "sampler=ddim sampling_steps=10 clip=None"),
        samples=20,
        guided=(0.0,),
    )
    monkeypatch.setattr(benchmark, "select_devices", lambda: jax.devices()[:1])
    benchmark.main(options, directory=tmp_path)
    changed = {"sampler": "ddim", "sampling_steps": 10, "clip": None}
    assert asked == [("a", {}), ("b", {}), ("a", changed)]
    rows = json.loads((tmp_path / "claw.json").read_text())
    seeds = {row["method"]: (row["seeds"], row["n"]) for row in rows}
    once = dict.fromkeys(("demonstrator", "exact guidance, w = 0", "two"), (1, 140))
    assert seeds == {**once, "one": (2, 280)}
    found = {(row["method"], row["metric"]): row["value"] for row in rows}
    for metric in ("validity", "share_error", "coverage"):
        # Without weight, and of the same seed, it is the demonstrator itself.
        exact = found["exact guidance, w = 0", metric]
        assert exact == found["demonstrator", metric]
    assert "--overrides" in rows[0]["command"]
    three = options.runs
    for wrong, words in (
        ({"runs": ()}, "no run to score"),
        ({"methods": ("one",)}, "1 entries for 3 runs"),
        ({"overrides": ("a", "", "")}, "'a'; write NAME=VALUE"),
        ({"methods": ("demonstrator",) * 3}, "row of its own"),
    ):
        options = types.SimpleNamespace(
            **{"runs": three, "methods": (), "overrides": (), **wrong}
        )
        with pytest.raises(UserError, match=words):
            list(benchmark.asked(options))


def test_the_picture_shows_hits_and_misses(tmp_path):
    truth = demonstrations("uniform", samples=30)
    missed = np.zeros_like(truth) + 0.01
    figure = draw_actions("uniform", {"truth": truth, "missed": missed})
    assert len(figure.axes) == 14

    def count(axes, name):
        (dots,) = (one for one in axes.collections if one.get_gid() == name)
        return len(dots.get_offsets())

    for i, axes in enumerate(figure.axes):
        hits, misses = (30, 0) if i < 7 else (0, 30)
        assert (count(axes, "hit"), count(axes, "miss")) == (hits, misses)
        assert axes.get_ylim() == (1, 0)  # rows go down
    assert [figure.axes[i].get_ylabel() for i in (0, 7)] == ["truth", "missed"]
    figures.save(figure, tmp_path / "claw.png")
