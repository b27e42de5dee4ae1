import dataclasses
import importlib.util
import json
import pathlib

import numpy as np
import pytest

from jaxdiff.data.spec import Environment
from jaxdiff.errors import UserError
from jaxdiff.rollouts import Rollouts
from jaxdiff.scoring import bootstrap
from jaxdiff.tasks.pointmaze.scores import MazeRollouts
from jaxdiff.tasks.pointmaze.world import MAZES

_FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
_SPEC = importlib.util.spec_from_file_location("rows", _FOLDER / "rows.py")
assert _SPEC is not None
assert _SPEC.loader is not None
rows = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(rows)
bootstrap_interval, write_rows = rows.bootstrap_interval, rows.write_rows
measured = rows.measured

FIELDS = {
    *("experiment", "setting", "method", "metric", "value", "low", "high", "n"),
    *("seeds", "seconds", "load", "command", "commit", "device", "versions"),
}


def row(setting="umaze", method="diffuser", metric="score", value=1.0, **more):
    named = {"setting": setting, "method": method, "metric": metric, "value": value}
    return {**named, **more}


def written(path):
    return json.loads(path.read_text())


def test_rows_have_every_field(tmp_path):
    path = write_rows(
        "maze", [row(low=0.5, high=1.5, n=3)], command="measure", directory=tmp_path
    )
    (stored,) = written(path)
    assert path == tmp_path / "maze.json"
    assert stored.keys() == FIELDS
    assert stored["experiment"] == "maze"
    assert stored["command"] == "measure"
    assert (stored["low"], stored["high"], stored["n"]) == (0.5, 1.5, 3)
    assert stored["seeds"] is stored["seconds"] is None
    assert stored["versions"]["jax"]
    assert stored["commit"]
    assert stored["device"]


def test_a_row_replaces_the_one_of_its_name_and_no_other(tmp_path):
    old = [row(), row(method="random"), row(setting="large"), row(metric="success")]
    path = write_rows("maze", old, command="old", directory=tmp_path)
    write_rows("maze", [row(value=2.0)], command="new", directory=tmp_path)
    after = written(path)
    assert [stored["value"] for stored in after] == [2.0, 1.0, 1.0, 1.0]
    assert [stored["command"] for stored in after] == ["new", "old", "old", "old"]
    write_rows("maze", [row(method="expert")], command="new", directory=tmp_path)
    assert len(written(path)) == 5
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("field", ["setting", "method", "metric", "value"])
def test_a_row_must_name_itself_and_its_value(tmp_path, field):
    broken = row()
    del broken[field]
    with pytest.raises(ValueError, match=field):
        write_rows("maze", [row(), broken], command="measure", directory=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_field_of_another_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="lowest"):
        write_rows("maze", [row(lowest=0.0)], command="measure", directory=tmp_path)


def test_interval_is_of_its_statistic():
    # One outlier in ten moves the mean, and not the median.
    values = [1.0] * 9 + [100.0]
    low, high = bootstrap_interval(values, statistic=np.median)
    assert low == high == 1.0
    low, high = bootstrap_interval(values)
    assert low == 1.0
    assert high > np.mean(values)


def test_interval_is_that_of_evaluations():
    values = np.random.default_rng(1).exponential(size=25)
    assert bootstrap_interval(values, seed=3) == bootstrap(values, seed=3)


def test_a_row_has_the_interval_of_its_value():
    values = [3.0, 1.0, 2.0, 10.0]
    low, high = bootstrap_interval(values, statistic=np.median)
    found = measured(values, statistic=np.median)
    assert found == {"value": 2.5, "low": low, "high": high, "n": 4}
    assert measured([True, False])["value"] == 0.5


def test_interval_shrinks_and_is_the_seeds():
    values = np.random.default_rng(0).normal(5.0, 2.0, 1600)
    low, high = bootstrap_interval(values)
    # The mean of n normal numbers has an interval of 2 * 1.96 sigma / sqrt(n).
    np.testing.assert_allclose(high - low, 2 * 1.96 * 2 / 40, rtol=0.1)
    wide = bootstrap_interval(values[:100])
    np.testing.assert_allclose((wide[1] - wide[0]) / (high - low), 4, rtol=0.25)
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval(values, seed=1) != (low, high)
    narrow = bootstrap_interval(values, confidence=0.5)
    assert low < narrow[0] < narrow[1] < high


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]]])
def test_interval_needs_a_list_of_values(values):
    with pytest.raises(ValueError, match="non-empty list"):
        bootstrap_interval(values)


def test_stored_results_hold_their_values():
    for path in (_FOLDER / "results").glob("*.json"):
        for stored in written(path):
            # Older rows do not say how busy the machine was.
            assert stored.keys() >= FIELDS - {"load"}, path
            if stored["low"] is not None:
                rounding = 1e-12 * abs(stored["value"])
                assert stored["low"] - rounding <= stored["value"], stored
                assert stored["value"] <= stored["high"] + rounding, stored


# --- the maze benchmark ---------------------------------------------------------------


@pytest.fixture
def maze(monkeypatch):
    monkeypatch.syspath_prepend(str(_FOLDER.parent))
    return importlib.import_module("benchmarks.maze")


def test_runs_of_a_maze_are_scored_and_drawn(maze, tiny_run, tmp_path, monkeypatch):
    def made_up(run, setting, episodes, seed):
        assert (episodes, seed) == (2, 1_000)
        played.append((run.acting.choose, run.acting.replan_every, setting))
        plans = np.tile(np.linspace(-1, 1, 16)[None, :, None], (2, 1, 6))
        mine = {
            "returns": np.array([10.0, 30.0]) * len(played),
            "successes": np.array([True, False]),
            "plans": plans,
        }
        return MazeRollouts(
            **{**vars(chance), **mine}, maze=MAZES["umaze"], expert=expert,
            chance=chance,
        )  # fmt: skip

    played = []
    chance = Rollouts(
        returns=np.zeros(2),
        peaks=np.zeros(2),
        successes=np.zeros(2, bool),
        lengths=np.full(2, 3),
        observations=np.zeros((2, 4, 4), np.float32),
        goals=np.ones((2, 2)),
        plans=None,
    )
    expert = dataclasses.replace(chance, returns=np.array([50.0, 150.0]))
    monkeypatch.setattr(maze, "play_maze", made_up)
    options = maze.Options(
        runs=(tiny_run, tiny_run),
        episodes=2,
        settings=("multi",),
        methods=("diffuser-replan", "diffuser-earliest"),
    )
    maze.main(options, directory=tmp_path)
    assert played == [("fixed", 40, "multi")] * 2 + [("earliest", 0, "multi")] * 2
    rows_written = written(tmp_path / "maze.json")
    stored = {(one["method"], one["metric"]): one for one in rows_written}
    # Means over two runs of (10, 30) and (20, 60), of an expert's 100 and chance's 0.
    replanned = stored["diffuser-replan", "score"]
    assert (replanned["value"], replanned["low"], replanned["high"]) == (30, 30, 30)
    assert (replanned["n"], replanned["seeds"]) == (4, 2)
    # All runs of an episode are drawn together: a mean of 15 or of 45, or of both.
    back = stored["diffuser-replan", "return"]
    assert (back["value"], back["low"], back["high"]) == (30, 15, 45)
    assert stored["diffuser-replan", "success"]["value"] == 0.5
    assert stored["expert", "score"]["value"] == 100
    assert stored["random", "score"]["value"] == 0
    assert replanned["command"] == (
        "python -m benchmarks.maze RUN RUN --episodes 2 --settings multi "
        "--methods diffuser-replan diffuser-earliest --seed 1000"
    )
    for name in ("plans-umaze.png", "episode-umaze.gif"):
        assert (tmp_path / "figures" / name).stat().st_size > 1000


def test_runs_that_cannot_be_compared_are_refused(
    maze, tiny_run, tmp_path, monkeypatch
):
    with pytest.raises(UserError, match="no run to score"):
        maze.main(maze.Options(runs=()), directory=tmp_path)
    with pytest.raises(UserError, match=r"'best'.*diffuser-earliest"):
        maze.main(maze.Options(runs=(tiny_run,), methods=("best",)), directory=tmp_path)
    umaze, large = maze.load_run(tiny_run), tmp_path / "large"
    played_in = Environment(MAZES["large"].environment)._asdict()
    dataset = {**umaze.dataset, "environment": played_in, "evaluation": played_in}
    other = umaze._replace(document={**umaze.document, "dataset": dataset})
    monkeypatch.setattr(maze, "load_run", lambda path: {large: other}.get(path, umaze))
    with pytest.raises(UserError, match=r"'large'.*'umaze'.*by themselves"):
        maze.main(maze.Options(runs=(tiny_run, large)), directory=tmp_path)
    assert not (tmp_path / "maze.json").exists()


def test_results_that_cannot_be_written_leave_the_old_ones(tmp_path, monkeypatch):
    path = write_rows("maze", [row()], command="old", directory=tmp_path)
    rows.require_place(tmp_path)
    assert list(tmp_path.iterdir()) == [path]

    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", no_room)
    with pytest.raises(UserError, match=r"maze\.json cannot be written \(No space"):
        write_rows("maze", [row(value=2.0)], command="new", directory=tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    assert written(path)[0]["command"] == "old"
