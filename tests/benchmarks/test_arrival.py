"""Arrivals: every horizon is played, and once the earliest."""

import json
import types
from pathlib import Path

import numpy as np
import pytest

from benchmarks import arrival
from jaxdiff import figures
from jaxdiff.algorithms.planning.diffuser import DiffuserConfig, declared_horizons
from jaxdiff.errors import UserError
from jaxdiff.tasks.pointmaze import world as pointmaze
from jaxdiff.tasks.presets import PRESETS, preset

CONFIG = DiffuserConfig(horizon=64, horizons=(32, 96), train_horizons=(32,))
MAZES = {name: types.SimpleNamespace(name=name) for name in pointmaze.MAZES}


def rollouts(value, success=True):
    return types.SimpleNamespace(
        returns=np.array([value, value + 2.0]), successes=np.array([success, True])
    )


@pytest.fixture
def played(monkeypatch):
    """A game whose return is the horizon, or 200 for the earliest."""
    seen = []

    def load(path, overrides=None):
        overrides = dict(overrides or {})
        return types.SimpleNamespace(path=path, config=CONFIG, overrides=overrides)

    def play(run, *, devices, episodes, seed):
        seen.append(run.overrides)
        fixed = run.overrides["choose"] == "fixed"
        return rollouts(run.overrides["horizon"] if fixed else 200.0, success=not fixed)

    monkeypatch.setattr(arrival, "load_run", load)
    monkeypatch.setattr(arrival, "require_maze", lambda run: MAZES[run.path.name])
    monkeypatch.setattr(arrival, "play_maze", play)
    monkeypatch.setattr(
        arrival,
        "maze_references",
        lambda maze, **game: (rollouts(100.0), rollouts(0.0)),
    )
    return seen


def test_every_horizon_is_played_and_drawn(played, tmp_path):
    options = arrival.Options(runs=(Path("umaze"), Path("medium")), episodes=2)
    arrival.main(options, directory=tmp_path)
    rows = json.loads((tmp_path / "arrival.json").read_text())
    scores = {
        (row["setting"], row["method"]): row["value"]
        for row in rows
        if row["metric"] == "score"
    }
    for maze in ("umaze", "medium"):
        for horizon in (32, 64, 96):
            assert scores[maze, f"fixed-{horizon}"] == pytest.approx(horizon)
        assert scores[maze, "earliest"] == pytest.approx(200)
    # One open plan an episode: what mends plans on the way would hide their horizon.
    fixed = [each for each in played if each["choose"] == "fixed"]
    assert all(each["lost"] == each["replan_every"] == 0 for each in fixed)

    above, _, below, _ = figures.plot_arrivals(rows).axes
    (line, earliest), _ = above.get_lines(), below.get_lines()
    np.testing.assert_allclose(line.get_xdata(), [32, 64, 96])
    np.testing.assert_allclose(line.get_ydata(), [32, 64, 96])
    np.testing.assert_allclose(earliest.get_ydata(), 200)
    np.testing.assert_allclose(below.get_lines()[0].get_ydata(), 0.5)
    assert (above.get_title(), below.get_xlabel()) == ("umaze", "horizon, steps")


@pytest.mark.parametrize("maze", ["umaze", "medium", "large"])
@pytest.mark.parametrize("name", PRESETS)
def test_every_horizon_of_a_preset_can_be_played(monkeypatch, maze, name):
    config, _ = preset("diffuser", name, f"pointmaze-{maze}")
    run = types.SimpleNamespace(config=config)
    monkeypatch.setattr(arrival, "load_run", lambda path: run)
    methods = dict(arrival._methods(Path("run")))
    assert list(methods)[-1] == "earliest"
    for overrides in methods.values():
        declared_horizons(arrival.dataclasses.replace(config, **overrides))


def test_one_run_of_each_maze(played, tmp_path):
    for runs, words in (((), "no run"), ((Path("umaze"),) * 2, "one run of each")):
        with pytest.raises(UserError, match=words):
            arrival.main(arrival.Options(runs=runs), directory=tmp_path)


def test_there_must_be_a_horizon_to_draw():
    with pytest.raises(UserError, match="no result is of a fixed horizon"):
        figures.plot_arrivals([{"setting": "umaze", "method": "earliest"}])
