"""Arrivals: every horizon is played, and once the earliest."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from points import straight_lines

from benchmarks import arrival, figures
from jaxdiff.algorithms.planning.diffuser import (
    DiffuserActing,
    DiffuserConfig,
    diffuser,
    measure,
)
from jaxdiff.algorithms.planning.options import declared_horizons
from jaxdiff.data.episodes import Dataset
from jaxdiff.data.spec import Environment, Layout, Spec
from jaxdiff.errors import UserError
from jaxdiff.options import override
from jaxdiff.rollouts import Rollouts
from jaxdiff.run import Run
from jaxdiff.tasks.pointmaze.presets import PRESETS
from jaxdiff.tasks.pointmaze.scores import MazeRollouts
from jaxdiff.tasks.pointmaze.world import MAZES

SPEC = Spec((4,), action_dim=2, goal_dim=2, layout=Layout((0, 1), (2, 3), (0, 1, 2, 3)))
CONFIG = DiffuserConfig(horizon=64, horizons=(32, 96), train_horizons=(32,), goal_dim=2)
ACTING = DiffuserActing(choose="earliest", controller="track", lost=0.5)
POINTS = straight_lines(20)
MOVING = np.concatenate([POINTS.observations, POINTS.actions], axis=1)
STATISTICS = measure(CONFIG, dataclasses.replace(POINTS, observations=MOVING), SPEC)


def loaded(path, config, acting, overrides):
    """A run without parameters in the maze that its folder is called after."""
    acting = override(acting, overrides or {}, "acting")
    played_in = Environment(MAZES[path.name].environment)._asdict()
    dataset = {"name": path.name, "environment": played_in, "evaluation": played_in}
    return Run(
        path, "diffuser", config, acting, STATISTICS, SPEC,
        diffuser(config, acting, STATISTICS, SPEC), {}, {"dataset": dataset},
    )  # fmt: skip


def rollouts(value, success=True):
    return Rollouts(
        returns=np.array([value, value + 2.0]), peaks=np.ones(2),
        successes=np.array([success, True]), lengths=np.ones(2, int),
        observations=np.zeros((2, 2, 4)), goals=None, plans=None,
    )  # fmt: skip


@pytest.fixture
def played(monkeypatch):
    """A game whose return is the horizon, or 200 for the earliest."""
    seen = []

    def play(run, setting, episodes, seed):
        assert (setting, episodes, seed) == ("multi", 2, 1_000)
        seen.append(run.acting)
        fixed = run.acting.choose == "fixed"
        own = rollouts(run.config.horizon if fixed else 200.0, success=not fixed)
        return MazeRollouts(
            **vars(own), maze=MAZES[run.path.name], expert=rollouts(100.0),
            chance=rollouts(0.0),
        )  # fmt: skip

    monkeypatch.setattr(
        arrival,
        "load_run",
        lambda path, overrides=None: loaded(path, CONFIG, ACTING, overrides),
    )
    monkeypatch.setattr(arrival, "play_maze", play)
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
    # One plan an episode: planning anew on the way would hide its horizon.
    fixed = [each for each in played if each.choose == "fixed"]
    assert len(fixed) == 6
    assert all(each.lost == each.replan_every == 0 for each in fixed)

    above, _, below, _ = figures.plot_arrivals(rows).axes
    (line, earliest), _ = above.get_lines(), below.get_lines()
    np.testing.assert_allclose(line.get_xdata(), [32, 64, 96])
    np.testing.assert_allclose(line.get_ydata(), [32, 64, 96])
    np.testing.assert_allclose(earliest.get_ydata(), 200)
    np.testing.assert_allclose(below.get_lines()[0].get_ydata(), 0.5)
    assert (above.get_title(), below.get_xlabel()) == ("umaze", "horizon, steps")


@pytest.mark.parametrize("maze", ["umaze", "medium", "large"])
@pytest.mark.parametrize("name", ["demo", "released", "paper"])
def test_every_horizon_of_a_preset_can_be_played(monkeypatch, maze, name):
    environment = Environment(MAZES[maze].environment)
    dataset = Dataset("any", None, (4,), "", environment, environment)  # pyright: ignore
    config, acting, *_ = PRESETS["diffuser", name](dataset, SPEC)
    monkeypatch.setattr(
        arrival,
        "load_run",
        lambda path, overrides=None: loaded(path, config, acting, overrides),
    )
    methods = dict(arrival.methods(Path(maze)))
    *fixed, earliest = methods.values()
    assert [run.config.horizon for run in fixed] == declared_horizons(config)
    assert list(methods)[-1] == "earliest"
    assert earliest.acting.choose == "earliest"
    for run in fixed:
        assert (run.acting.choose, run.acting.lost) == ("fixed", 0)
        kept = {"horizon": config.horizon, "train_horizons": config.train_horizons}
        assert dataclasses.replace(run.config, **kept) == config


def test_one_run_of_each_maze(played, tmp_path):
    for runs, words in (((), "no run"), ((Path("umaze"),) * 2, "one run of each")):
        with pytest.raises(UserError, match=words):
            arrival.main(arrival.Options(runs=runs), directory=tmp_path)


def test_there_must_be_a_horizon_to_draw():
    with pytest.raises(UserError, match="no result is of a fixed horizon"):
        figures.plot_arrivals([{"setting": "umaze", "method": "earliest"}])
