"""The experiments of Decision Diffuser: who plays, what with, what is a success."""

import dataclasses
import json
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stubs import stub_run

from benchmarks import circles, classifier_free, playing, target_return
from jaxdiff.algorithms.base import ActOutput
from jaxdiff.algorithms.imitation.bc import BCActing, BCConfig
from jaxdiff.algorithms.planning.conditions import Returns
from jaxdiff.algorithms.planning.decision_diffuser import (
    DecisionDiffuserActing,
    DecisionDiffuserConfig,
)
from jaxdiff.algorithms.planning.diffuser import DiffuserActing, DiffuserConfig
from jaxdiff.errors import UserError

GUIDED = DiffuserConfig(horizon=32, return_model=True)
GUIDING = DiffuserActing(
    guide_scale=0.1, rank="return", temperature=0.4, sampling_steps=6
)
ASKING = DecisionDiffuserActing()
OPTIONS = {
    "guided": (GUIDED, GUIDING),
    "clean": (dataclasses.replace(GUIDED, noised_returns=False), GUIDING),
    "free": (DecisionDiffuserConfig(actions="diffused"), ASKING),
    "decision": (DecisionDiffuserConfig(), ASKING),
    "wide": (DecisionDiffuserConfig(actions="diffused", dim=64), ASKING),
    "foreign": (DecisionDiffuserConfig(actions="diffused"), ASKING),
    "bc": (BCConfig(), BCActing()),
}
RETURNS = Returns(
    low=0.0, high=2.0, target=0.9, edges=np.linspace(0, 2, 51), counts=np.ones(50)
)


def act(states, carry, keys, observation, reset, goal=None, guidance=None):
    return ActOutput(action=jnp.zeros((1, 1))), carry


@pytest.fixture
def played(monkeypatch):
    """Runs that are loaded, and earn what their overrides sum up to."""
    seen, changes = [], {}

    def load(path, overrides=None):
        config, acting = OPTIONS[path.name]
        changes[path.name] = dict(overrides or {})
        run = stub_run(
            path, act, "Pendulum-v1", observation_shape=(3,), action_dim=1,
            dataset="hopper-like", config=config,
        )  # fmt: skip
        run.document["dataset"]["fingerprint"] = path.name == "foreign"
        return run._replace(
            acting=dataclasses.replace(acting, **changes[path.name]),
            statistics=types.SimpleNamespace(returns=RETURNS),
        )

    def evaluate(run, *, options, episodes, seed, devices):
        overrides = changes[run.path.name]
        seen.append((run.path.name, overrides, options, episodes, seed))
        value = float(sum(overrides.values()))
        record = {
            "setting": "hopper-like",
            "mean_return": 10 * value,
            "return_interval": (10 * value - 1, 10 * value + 1),
            "score": value,
            "score_low": value - 0.1,
            "score_high": value + 0.1,
            "seconds": 1.23,
        }
        return record, None

    for module in (target_return, classifier_free):
        monkeypatch.setattr(module, "load_run", load)
    monkeypatch.setattr(playing, "evaluate", evaluate)
    return seen


def rows(folder, experiment):
    found = json.loads((folder / f"{experiment}.json").read_text())
    return {(row["setting"], row["method"], row["metric"]): row for row in found}


# --- target returns ------------------------------------------------------------------


def test_targets_are_compared_on_one_dataset(played, tmp_path):
    options = target_return.Options(run=Path("decision"), bc=Path("foreign"))
    with pytest.raises(UserError, match="foreign was trained on other data"):
        target_return.main(options, directory=tmp_path)
    assert not played
    assert not list(tmp_path.iterdir())


def test_every_target_and_weight_meets_the_same_episodes(played, tmp_path):
    options = target_return.Options(
        run=Path("decision"), bc=Path("bc"), diffuser=Path("guided"),
        diffused=Path("free"), targets=(0.0, 1.5), weights=(1.0, 2.0), episodes=3,
        seed=5, setting="single",
    )  # fmt: skip
    target_return.main(options, directory=tmp_path)
    assert all(game == [{"setting": "single"}, 3, 5] for _, _, *game in played)
    swept = rows(tmp_path, "target-return")
    assert {name: row["value"] for name, row in swept.items()} == {
        ("hopper-like, y=0", "decision-diffuser", "return"): 0.0,
        ("hopper-like, y=1.5", "decision-diffuser", "return"): 15.0,
    }
    assert {setting for setting, *_ in rows(tmp_path, "condition-weight")} == {
        "hopper-like, w=1", "hopper-like, w=2",
    }  # fmt: skip
    compared = [(name, overrides) for name, overrides, *_ in played[4:]]
    assert compared == [
        ("bc", {}),
        ("guided", {"guide_scale": 0.0, "candidates": 1}),
        ("free", {}),
        ("decision", {}),
    ]
    found = rows(tmp_path, "decision-diffuser")
    assert {(setting, method) for setting, method, _ in found} == {
        ("hopper-like", method)
        for method in (
            "bc", "diffuser-unguided", "diffused-actions", "decision-diffuser",
        )
    }  # fmt: skip
    command = swept["hopper-like, y=0", "decision-diffuser", "return"]["command"]
    assert command.endswith(
        "--diffused DIFFUSED_RUN --targets 0 1.5 --weights 1 2 --setting single "
        "--episodes 3 --seed 5"
    )
    for name in (
        "target-return-hopper-like", "condition-weight-hopper-like",
        "returns-hopper-like",
    ):  # fmt: skip
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


def test_who_was_told_no_returns_cannot_be_asked_for_any(played, tmp_path):
    with pytest.raises(UserError, match="was told no returns"):
        target_return.main(target_return.Options(run=Path("guided")))
    assert not played


# --- classifier against classifier-free ----------------------------------------------


def test_guidance_is_compared_at_equal_calls_of_networks(played, tmp_path):
    options = classifier_free.Options(
        classifier=Path("guided"), free=Path("free"), clean=Path("clean"),
        decision=Path("decision"), episodes=2, calls=3, seed=7,
    )  # fmt: skip
    classifier_free.main(options, directory=tmp_path)
    common = {"candidates": 1, "sampling_steps": 6, "temperature": 0.4}
    guided, free = {**common, "guide_steps": 1}, {**common, "init_temperature": 0.4}
    assert played == [
        ("guided", guided, None, 2, 7),
        ("clean", guided, None, 2, 7),
        ("free", free, None, 2, 7),
        ("decision", free, None, 2, 7),
    ]
    found = rows(tmp_path, "classifier-vs-free")
    assert set(found) == {
        ("hopper-like", method, metric)
        for method in (
            "classifier", "classifier-clean", "classifier-free", "decision-diffuser",
        )
        for metric in ("score", "seconds_per_decision")
    }  # fmt: skip
    timed = found["hopper-like", "classifier", "seconds_per_decision"]
    assert 0 < timed["low"] <= timed["value"] <= timed["high"]
    assert timed["n"] == 3
    assert "--clean CLEAN_RUN --decision DECISION_RUN --episodes 2" in timed["command"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("decision", "free"), "must be a Diffuser with a model of returns"),
        (("guided", "decision"), "must be trained with `actions='diffused'`"),
        (("guided", "wide"), "differs from guided in dim"),
        (("guided", "foreign"), "trained on other data"),
    ],
)
def test_what_cannot_be_compared_is_refused(played, tmp_path, names, words):
    classifier, free = map(Path, names)
    options = classifier_free.Options(classifier=classifier, free=free)
    with pytest.raises(UserError, match=words):
        classifier_free.main(options, directory=tmp_path)
    assert not played
    noised = classifier_free.Options(Path("guided"), Path("free"), clean=Path("guided"))
    with pytest.raises(UserError, match="return model of clean windows"):
        classifier_free.main(noised, directory=tmp_path)


# --- two circles ---------------------------------------------------------------------


def test_paths_keep_to_the_circle_that_they_are_told():
    episodes = circles.make_paths(600, np.random.default_rng(0))
    paths = episodes.observations.reshape(600, 51, 2)
    assert episodes.goals is not None
    labels = episodes.goals.reshape(600, 51, 2)
    np.testing.assert_array_equal(labels.sum(-1), 1)
    assert (labels == labels[:, :1]).all()
    # A label is always true, and of what is both either, alike.
    points, told = paths[:, :50], labels[:, 0].argmax(-1)
    kept = [circles.obeys(points, name) for name in ("inside", "outside")]
    assert np.choose(told, kept).all()
    both = kept[0] & kept[1]
    assert 0.4 < told[both].mean() < 0.6
    assert 0.25 < both.mean() < 0.45
    # All begin between the circles, at the right, and go round anticlockwise.
    begin = np.linalg.norm(paths[:, 0], axis=-1)
    assert (abs(begin - 0.85) <= 0.121).all()
    assert (paths[:, 0, 0] > 0.6).all()
    x, y = np.moveaxis(points, -1, 0)
    turned = x[:, :-1] * y[:, 1:] - y[:, :-1] * x[:, 1:]
    assert (turned > 0).all()
    # The row after the last action is where it leads.
    np.testing.assert_allclose(
        paths[:, 49] + episodes.actions.reshape(600, 51, 2)[:, 49],
        paths[:, 50],
        atol=1e-6,
    )


def test_one_point_decides():
    angle = np.linspace(0, 5, 50)
    ring = 0.85 * np.stack([np.cos(angle), np.sin(angle)], -1)
    out, inner = ring.copy(), ring.copy()
    out[20] *= 1.2
    inner[20] *= 0.8
    paths = np.stack([ring, out, inner])
    for question, expected in {
        "inside": [1, 0, 1],
        "outside": [1, 1, 0],
        "inside and outside": [1, 0, 0],
        "not inside": [0, 1, 0],
        "not outside": [0, 0, 1],
    }.items():
        np.testing.assert_array_equal(circles.obeys(paths, question), expected)


def test_every_question_is_planned_for_and_scored(monkeypatch, tmp_path):
    asked = {}

    def plans(options, episodes):
        ring = circles.make_paths(options.count, np.random.default_rng(1))
        paths = ring.observations.reshape(options.count, 51, 2)[:, :50]
        asked["paths"] = len(episodes.lengths)
        found = {
            f"decision-diffuser, w={weight:g}": {
                setting: dict.fromkeys(questions, paths)
                for setting, questions in circles.QUESTIONS.items()
            }
            for weight in options.weights
        }
        return found, paths

    monkeypatch.setattr(circles, "make_plans", plans)
    options = circles.Options(paths=40, count=20, weights=(1.0, 2.5))
    circles.main(options, directory=tmp_path)
    assert asked == {"paths": 40}
    found = rows(tmp_path, "circles")
    for setting in ("single", "and", "not"):
        for weight in ("1", "2.5"):
            row = found[setting, f"decision-diffuser, w={weight}", "success"]
            assert row["low"] <= row["value"] <= row["high"]
            assert row["n"] == 20 * len(circles.QUESTIONS[setting])
    assert "--weights 1 2.5" in row["command"]
    # The pair of a question and its negation leaves nothing out.
    single, negated = (
        found[setting, "nothing asked", "success"]["value"]
        for setting in ("single", "not")
    )
    assert single + negated == pytest.approx(1)
    assert (tmp_path / "figures" / "circles.png").stat().st_size > 10_000


@pytest.mark.parametrize("weights", [(), (1.0, 0.0), (-1.0,)])
def test_weights_must_ask_for_something(tmp_path, weights):
    with pytest.raises(UserError, match="all above 0"):
        circles.main(circles.Options(weights=weights), directory=tmp_path)


@pytest.mark.slow
def test_plans_are_made_for_every_question():
    options = circles.Options(updates=2, paths=20, count=3, weights=(1.0, 2.0))
    small = dataclasses.replace(
        circles.CONFIG, dit_width=32, dit_depth=1, dim=8, diffusion_steps=2,
        learning_rate=0.1, learning_rate_decay=0.0, ema_decay=0.0,
    )  # fmt: skip
    acting = dataclasses.replace(circles.ACTING, sampling_steps=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(circles, "CONFIG", small)
        patch.setattr(circles, "ACTING", acting)
        episodes = circles.make_paths(20, np.random.default_rng(0))
        plans, nothing = circles.make_plans(options, episodes)
    once, twice = (plans[f"decision-diffuser, w={w}"]["single"] for w in (1, 2))
    starts = once["inside"][:, 0]
    radius = np.linalg.norm(starts, axis=-1)
    assert ((radius > circles.SMALL) & (radius < circles.LARGE)).all()
    for paths in [nothing, *jax.tree.leaves(plans)]:
        assert paths.shape == (3, 50, 2)
        np.testing.assert_allclose(paths[:, 0], starts, atol=1e-5)
    assert np.abs(once["inside"] - once["outside"]).max() > 0
    assert np.abs(once["inside"] - twice["inside"]).max() > 0
