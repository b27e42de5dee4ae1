"""The experiment that asks what guidance is worth: who plays, with which options."""

import json
from pathlib import Path

import pytest
from stubs import stub_run

from benchmarks import hopper, playing
from jaxdiff.algorithms.planning.diffuser import DiffuserActing, DiffuserConfig
from jaxdiff.errors import UserError

GUIDED = DiffuserConfig(horizon=32, return_model=True)
GUIDING = DiffuserActing(guide_scale=0.1, rank="return")


def stub(path, config=GUIDED):
    run = stub_run(
        path, None, None, observation_shape=(3,), action_dim=1, dataset="any",
        config=config,
    )  # fmt: skip
    run.document["dataset"]["fingerprint"] = run.path.name.partition("-of-")[2]
    return run._replace(acting=GUIDING)


@pytest.fixture
def played(monkeypatch):
    """Runs that are loaded and then scored by the strength of their guidance."""
    seen, changes = [], {}

    def load(path, overrides=None):
        changes[path.name] = dict(overrides or {})
        return stub(path)

    def evaluate(run, *, options, episodes, seed, devices):
        assert options is None
        overrides = changes[run.path.name]
        seen.append((run.path.name, overrides, episodes, seed))
        value = overrides.get("guide_scale", -1.0)
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

    monkeypatch.setattr(hopper, "load_run", load)
    monkeypatch.setattr(playing, "evaluate", evaluate)
    return seen


def rows(folder, experiment):
    found = json.loads((folder / f"{experiment}.json").read_text())
    return {(row["setting"], row["method"], row["metric"]): row for row in found}


def test_all_methods_meet_the_same_episodes(played, tmp_path):
    options = hopper.Options(
        run=Path("own"), bc=Path("cloned"), clean=Path("clean"), episodes=3, seed=5
    )
    hopper.main(options, directory=tmp_path)
    assert {(episodes, seed) for *_, episodes, seed in played} == {(3, 5)}
    found = rows(tmp_path, "hopper-guided")
    scores = {
        method: row["value"]
        for (setting, method, metric), row in found.items()
        if metric == "score" and setting == "hopper-like"
    }
    assert scores == {
        "bc": -1.0,
        "diffuser-unguided": 0.0,
        "diffuser-ranked": 0.0,
        "diffuser-guided": 0.1,
        "diffuser-overguided": pytest.approx(10.0),
    }
    # Without guidance, one has no choice of candidates and the other has.
    unguided, ranked = (overrides for _, overrides, *_ in played[1:3])
    assert unguided == {"guide_scale": 0.0, "candidates": 1}
    assert ranked == {"guide_scale": 0.0}
    row = found["hopper-like", "diffuser-guided", "return"]
    assert (row["low"], row["value"], row["high"], row["n"]) == (0.0, 1.0, 2.0, 3)
    assert row["command"].endswith(
        "--bc BC_RUN --clean CLEAN_RUN --overguided 100 --episodes 3 --seed 5"
    )


def test_places_are_compared_with_both_models_of_returns(played, tmp_path):
    options = hopper.Options(run=Path("own"), clean=Path("clean"), scale=0.3)
    hopper.main(options, directory=tmp_path)
    assert set(rows(tmp_path, "guidance-place")) == {
        (setting, place, metric)
        for setting in ("noised", "clean")
        for place in ("x_t", "mean")
        for metric in ("score", "return")
    }
    places = [(name, overrides) for name, overrides, *_ in played[-4:]]
    assert places == [
        (name, {"guide_scale": 0.3, "guide_at": place})
        for name in ("own", "clean")
        for place in ("x_t", "mean")
    ]


def test_a_run_without_a_model_of_returns_is_refused(monkeypatch, tmp_path):
    run = stub("maze", DiffuserConfig())
    monkeypatch.setattr(hopper, "load_run", lambda path: run)
    with pytest.raises(UserError, match="no model of returns"):
        hopper.main(hopper.Options(run=Path("maze")), directory=tmp_path)
    assert not list(tmp_path.iterdir())


def test_runs_of_other_data_are_refused_before_anything_is_played(played, tmp_path):
    options = hopper.Options(run=Path("own"), bc=Path("cloned-of-others"))
    with pytest.raises(UserError, match="cloned-of-others was trained on other data"):
        hopper.main(options, directory=tmp_path)
    assert not played
    assert not list(tmp_path.iterdir())
