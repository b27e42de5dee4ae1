"""The study of maze options: its variants."""

import dataclasses
import json

import numpy as np
import pytest
from points import straight_lines

from benchmarks import study
from benchmarks.study import ACTING, PLAIN, VARIANTS, variant
from jaxdiff.algorithms.planning.diffuser import ENTRY
from jaxdiff.data.episodes import Dataset
from jaxdiff.data.spec import Environment
from jaxdiff.errors import UserError
from jaxdiff.rollouts import Rollouts
from jaxdiff.run import Run
from jaxdiff.tasks.lookup import spec_of
from jaxdiff.tasks.pointmaze.scores import MazeRollouts
from jaxdiff.tasks.pointmaze.world import MAZES

MEDIUM = Environment(MAZES["medium"].environment)
DATASET = Dataset("any", straight_lines(2), (4,), "", MEDIUM, MEDIUM)


def options_of(preset):
    """All options of a preset by name, those of training too."""
    config, acting, training, _ = preset
    return {**vars(training["denoiser"]), **vars(config), **vars(acting)}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_changes_what_it_names_and_can_be_built(name):
    plain = options_of(variant("plain", DATASET, 10))
    found = options_of(variant(name, DATASET, 10))
    assert {**plain, **VARIANTS[name]} == found
    assert {**plain, **PLAIN, **ACTING} == plain
    assert (plain["num_steps"], plain["save_every"], plain["keep"]) == (10, 10, 1)


def test_a_variant_is_played_at_its_horizon_and_at_a_shorter_one(monkeypatch, tmp_path):
    small = {"horizon": 16, "dim": 8, "dim_mults": (1,), "patch": 1}
    monkeypatch.setitem(study.VARIANTS, "small", small)
    points = straight_lines(20, steps=30)
    moving = np.concatenate([points.observations, points.actions], axis=1)
    dataset = DATASET._replace(
        episodes=dataclasses.replace(points, observations=moving)
    )
    monkeypatch.setattr(study, "load_dataset", lambda name: dataset)

    def train(algorithm, dataset, path, *, preset):
        config, acting, training, name = preset
        assert name == "small"
        spec = spec_of(dataset)
        statistics = ENTRY.measure(config, dataset.episodes, spec)
        built = ENTRY.build(config, acting, statistics, spec)
        assert training["denoiser"].num_steps == 2
        return Run(path, algorithm, config, acting, statistics, spec, built, {}, {})

    monkeypatch.setattr(study, "train_run", train)

    def play(run, setting, episodes, seed):
        count, horizon = episodes, float(run.config.horizon)
        own, expert, chance = (
            Rollouts(
                returns=np.full(count, value), peaks=np.zeros(count),
                successes=np.full(count, horizon < 16), lengths=np.ones(count, int),
                observations=np.zeros((count, 2, 4)), goals=None, plans=None,
            )
            for value in (horizon, 32.0, 0.0)
        )  # fmt: skip
        return MazeRollouts(
            **vars(own), maze=MAZES["medium"], expert=expert, chance=chance
        )

    monkeypatch.setattr(study, "play_maze", play)
    study.main(
        study.Options(variants=("small",), updates=2, episodes=3), directory=tmp_path
    )
    rows = json.loads((tmp_path / "maze-study.json").read_text())
    found = {row["metric"]: row["value"] for row in rows}
    assert found.pop("updates_per_second") > 0
    assert found == {"success": 0.0, "success_at_12": 1.0, "score": 50.0}
    assert {row["setting"] for row in rows} == {"medium-multi;2 updates"}
    assert {(row["method"], row["n"]) for row in rows} == {("small", 3)}
    assert rows[0]["command"] == (
        "python -m benchmarks.study VARIANT --dataset pointmaze-medium --updates 2 "
        "--episodes 3 --seed 1000"
    )


def test_a_variant_unheard_of_is_refused():
    with pytest.raises(UserError, match="no variant 'best'"):
        study.main(study.Options(variants=("best",)))
