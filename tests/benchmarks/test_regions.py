"""Regions that plans keep out of: who enters, for how long it counts, what is asked."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from stubs import stub_run

from benchmarks import regions
from jaxdiff.algorithms.planning.conditions import keeps_out
from jaxdiff.algorithms.planning.decision_diffuser import (
    DecisionDiffuserActing,
    DecisionDiffuserConfig,
)
from jaxdiff.errors import UserError
from jaxdiff.rollouts import Rollouts
from jaxdiff.tasks.pointmaze.world import MAZES

DISCS = np.array([[0.0, 0.0, 0.5], [3.0, 0.0, 1.0]])


def test_the_rim_is_outside_and_every_region_counts():
    points = np.array([[0.5, 0.0], [0.49, 0.0], [1.0, 0.0], [2.5, 0.5]])
    np.testing.assert_array_equal(keeps_out(points, DISCS).all(-1), [1, 0, 1, 0])
    np.testing.assert_array_equal(keeps_out(points, DISCS[:1]).all(-1), [1, 0, 1, 1])


def rollouts(driven, planned):
    count = len(driven)

    def rows(paths, before):
        paths = np.asarray(paths, np.float32)
        filled = np.zeros((*paths.shape[:2], before), np.float32)
        return np.concatenate([filled, paths, 0 * paths], -1)

    return Rollouts(
        returns=np.zeros(count),
        peaks=np.zeros(count),
        successes=np.zeros(count, bool),
        lengths=np.full(count, 5),
        observations=rows(driven, 0),
        goals=np.zeros((count, 2)),
        plans=rows(planned, 2),
    )


AROUND = [[-1, 0], [0, 1], [3, 2]]
THROUGH = [[-1, 0], [0, 0.2], [3, 2]]


def test_what_is_entered_after_the_plan_has_ended_does_not_count():
    later, end = [3, 0], [5, 0]
    driven = [[*AROUND, later, end], [*THROUGH, end, end], [*AROUND, end, end]]
    found = regions.outcomes(rollouts(driven, [AROUND, AROUND, THROUGH]), DISCS)
    np.testing.assert_array_equal(found["driven"], [1, 0, 1])
    np.testing.assert_array_equal(found["planned"], [1, 1, 0])
    np.testing.assert_allclose(found["way"][0], 2**0.5 + 10**0.5, rtol=1e-6)


CONFIG = DecisionDiffuserConfig(condition="region", regions=tuple(DISCS.ravel()))


@pytest.fixture
def played(monkeypatch):
    """Episodes that note what they were asked for; every second one begins inside."""
    seen = []

    def evaluate(run, *, options, episodes, seed, devices, guidance):
        assert (options, seed) == ({"setting": "multi"}, 1_000)
        seen.append((guidance.values.tolist(), guidance.weights.tolist()))
        inside = [[0, 0], [0, 1], [3, 2]]
        paths = [inside if i % 2 else AROUND for i in range(episodes)]
        return {}, rollouts(paths, paths)

    run = stub_run(
        "told", None, MAZES["umaze"].environment, observation_shape=(4,), action_dim=2,
        config=CONFIG,
    )._replace(acting=DecisionDiffuserActing(guidance_weight=1.5))  # fmt: skip
    monkeypatch.setattr(regions, "load_run", lambda path: run)
    monkeypatch.setattr(regions, "evaluate", evaluate)
    return seen


def test_regions_are_asked_for_one_by_one_and_together(played, tmp_path):
    options = regions.Options(run=Path("told"), episodes=5)
    regions.main(options, directory=tmp_path)
    assert played == [
        ([[1, 0], [0, 1]], [0.0, 0.0]),
        ([[1, 0]], [1.5]),
        ([[0, 1]], [1.5]),
        ([[1, 0], [0, 1]], [1.5, 1.5]),
    ]
    rows = json.loads((tmp_path / "regions.json").read_text())
    found = {(row["setting"], row["method"], row["metric"]): row for row in rows}
    assert len(found) == 3 * 2 * 3
    row = found["umaze, out of 1 and 2", regions.ASKED, "driven"]
    # Those that begin inside are left out.
    assert (row["value"], row["n"]) == (1.0, 3)
    assert (tmp_path / "figures" / "regions-umaze.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "changes", [{"condition": "return", "regions": ()}, {"goal_dim": 2}]
)
def test_who_was_told_of_no_regions_or_has_goals_is_refused(
    played, monkeypatch, changes
):
    other = dataclasses.replace(CONFIG, **changes)
    run = regions.load_run(Path("told"))._replace(config=other)
    monkeypatch.setattr(regions, "load_run", lambda path: run)
    with pytest.raises(UserError, match="must have been told of regions"):
        regions.main(regions.Options(run=Path("told")))
    assert not played


def test_episodes_that_all_begin_inside_are_refused(played, monkeypatch):
    inside = [[[0, 0], [0, 1]]]
    found = {}, rollouts(inside, inside)
    monkeypatch.setattr(regions, "evaluate", lambda *_, **options: found)
    with pytest.raises(UserError, match="all of 1 episodes begin in a region"):
        regions.main(regions.Options(run=Path("told"), episodes=1))
