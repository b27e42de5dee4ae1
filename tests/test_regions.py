"""Regions that plans keep out of: who enters, until when it counts, what is asked."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import regions
from jaxdiff.algorithms.base import ActOutput, Algorithm
from jaxdiff.algorithms.decision_diffuser import DecisionDiffuserConfig
from jaxdiff.envs.pointmaze import MAZES
from jaxdiff.errors import UserError
from jaxdiff.evaluate import Rollouts
from jaxdiff.run import Run

DISCS = np.array([[0.0, 0.0, 0.5], [3.0, 0.0, 1.0]])


def test_the_rim_is_outside_and_every_region_counts():
    points = np.array([[0.5, 0.0], [0.49, 0.0], [1.0, 0.0], [2.5, 0.5]])
    np.testing.assert_array_equal(regions.keeps_out(points, DISCS), [1, 0, 1, 0])
    np.testing.assert_array_equal(regions.keeps_out(points, DISCS[:1]), [1, 0, 1, 1])


def rollouts(paths, plans=None):
    count = len(paths)
    paths = np.asarray(paths, np.float32)
    states = np.concatenate([paths, 0 * paths], -1)
    if plans is None:
        plans = np.concatenate([np.zeros_like(paths), states], -1)
    return Rollouts(
        returns=np.zeros(count),
        peaks=np.zeros(count),
        successes=np.arange(count) % 2 == 0,
        lengths=np.full(count, paths.shape[1]),
        observations=states,
        goals=np.tile(np.array([5.0, 0.0], np.float32), (count, 1)),
        plans=plans,
    )


def test_what_is_entered_after_the_goal_was_reached_does_not_count():
    around = [[-1, 0], [0, 1], [3, 2], [5, 0], [5, 0]]
    through = [[-1, 0], [0, 0.2], [3, 2], [5, 0], [5, 0]]
    later = [[-1, 0], [0, 1], [3, 2], [5, 0.4], [3, 0]]
    found = regions.outcomes(rollouts([around, through, later]), DISCS)
    np.testing.assert_array_equal(found["driven"], [1, 0, 1])
    np.testing.assert_array_equal(found["planned"], [1, 0, 0])
    np.testing.assert_array_equal(found["success"], [1, 0, 1])


CONFIG = DecisionDiffuserConfig(
    condition="region", regions=tuple(DISCS.ravel()), guidance_weight=1.5
)


@pytest.fixture
def played(monkeypatch):
    """Agents that say what they were asked for."""
    seen = []

    def act(states, carry, key, observation, reset, goal=None, *, guidance=None):
        assert guidance is not None
        seen.append((np.asarray(guidance.conditions).tolist(), guidance.weights))
        return ActOutput(action=jnp.zeros((1, 2))), carry

    def play(run, make_env, *, episodes, seed, devices, options):
        run.algorithm.act(None, None, None, None, None)
        seen.append((options["reset_cell"].tolist(), options["goal_cell"].tolist()))
        return rollouts([[[-1, 0], [0, 1], [3, 2], [5, 0]]] * episodes)

    run = Run(
        path=Path("told"), name="decision-diffuser", config=CONFIG, statistics=None,
        algorithm=Algorithm({}, act, lambda batch: None), states={},
        document={"dataset": {"environment": MAZES["umaze"].environment}},
    )  # fmt: skip
    monkeypatch.setattr(regions, "load_run", lambda path, overrides=None: run)
    monkeypatch.setattr(regions, "play", play)
    return seen


def test_regions_are_asked_for_one_by_one_and_together(played, tmp_path):
    options = regions.Options(run=Path("told"), episodes=3)
    regions.main(options, directory=tmp_path)
    ways = ([3, 1], [1, 1])
    assert played == [
        ([[1, 0], [0, 1]], [0.0, 0.0]), ways,
        ([[1, 0]], [1.5]), ways,
        ([[0, 1]], [1.5]), ways,
        ([[1, 0], [0, 1]], [1.5, 1.5]), ways,
    ]  # fmt: skip
    rows = json.loads((tmp_path / "regions.json").read_text())
    found = {(row["setting"], row["method"], row["metric"]): row for row in rows}
    assert len(found) == 3 * 2 * 3
    row = found["umaze, all 2", regions.ASKED, "driven"]
    assert (row["value"], row["n"]) == (1.0, 3)
    assert (tmp_path / "figures" / "regions-umaze.png").stat().st_size > 10_000


def test_who_was_told_of_no_regions_cannot_be_asked(played, monkeypatch):
    other = dataclasses.replace(CONFIG, condition="return", regions=())
    run = regions.load_run(Path("told"))._replace(config=other)
    monkeypatch.setattr(regions, "load_run", lambda path, overrides=None: run)
    with pytest.raises(UserError, match="was told of no regions"):
        regions.main(regions.Options(run=Path("told")))
    assert not played
