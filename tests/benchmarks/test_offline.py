"""The table of offline algorithms: what is trained, what is played, what is written."""

import json

import numpy as np
import pytest
from points import straight_lines
from stubs import stub_run

from benchmarks import offline
from jaxdiff import training
from jaxdiff.data.episodes import Dataset
from jaxdiff.data.spec import Environment
from jaxdiff.errors import UserError
from jaxdiff.rollouts import Rollouts
from jaxdiff.tasks.pointmaze.scores import MazeRollouts
from jaxdiff.tasks.pointmaze.world import MAZES

REFERENCES = {"random": 10.0, "expert": 30.0}


def rollouts(returns, successes=None):
    count = len(returns)
    return Rollouts(
        returns=returns, peaks=returns, successes=successes,
        lengths=np.ones(count, int), observations=np.zeros((count, 2, 3)), goals=None,
        plans=None,
    )  # fmt: skip


@pytest.fixture
def made(monkeypatch, points):
    """Runs that are written down instead of trained, and earn ten times their seed."""
    trained = []

    def train(algorithm, dataset, spec, path, options, *, seed, resume, **others):
        path.mkdir(parents=True, exist_ok=True)
        steps = sorted({one.num_steps for one in options.training.values()})
        trained.append((algorithm, dataset.name, path.name, seed, steps, resume))
        run = stub_run(
            path, None, dataset.evaluation.id, observation_shape=(2,), action_dim=2,
            dataset=dataset.name, references=REFERENCES, config=options.config,
        )  # fmt: skip
        run.document["dataset"]["metadata"] = dataset.metadata
        return run

    def evaluate(run, *, episodes, seed, devices):
        return {}, rollouts(10.0 * seed_of(run) + np.arange(episodes) + seed)

    monkeypatch.setattr(offline, "load_dataset", points)
    monkeypatch.setattr(training.runs, "train", train)
    monkeypatch.setattr(offline, "evaluate", evaluate)
    return trained


@pytest.fixture
def points():
    """A dataset of any name, of an environment that its name says."""

    def load(name):
        maze = next((maze for maze in MAZES if name.startswith(maze)), None)
        id_ = MAZES[maze].environment if maze else "Hopper-v5"
        metadata = {"setting": "single" if "single" in name else "multi"}
        return Dataset(
            name, straight_lines(3), (2,), "", Environment(id_), Environment(id_),
            metadata=metadata,
        )  # fmt: skip

    return load


def seed_of(run):
    return int(run.path.name.rpartition("-")[2])


def options(tmp_path, **changes):
    few = {"dataset": "hopper-like", "algorithms": ("iql",), "episodes": 3, "seed": 5}
    return offline.Options(runs=tmp_path / "runs", **{**few, **changes})


def rows(folder, experiment="offline"):
    found = json.loads((folder / f"{experiment}.json").read_text())
    return {(row["setting"], row["method"], row["metric"]): row for row in found}


def test_all_seeds_of_an_algorithm_make_its_rows(made, tmp_path):
    offline.main(options(tmp_path), directory=tmp_path)
    assert [(one[0], one[2], one[3]) for one in made] == [
        ("iql", f"hopper-like-iql-{seed}", seed) for seed in range(3)
    ]
    assert all(one[4] == [20_000] and one[5] for one in made)
    found = rows(tmp_path)
    earned = found["hopper-like", "iql", "return"]
    # 5, 6, 7 and ten and twenty more.
    assert (earned["value"], earned["n"], earned["seeds"]) == (16.0, 9, 3)
    scored = found["hopper-like", "iql", "score"]
    assert scored["value"] == pytest.approx(30.0)  # 6 of the 20 between the references
    assert scored["low"] < 30.0 < scored["high"]
    assert "--seeds 3 --episodes 3" in scored["command"]


def test_only_what_is_trained_now_is_timed(made, tmp_path):
    offline.main(options(tmp_path, seeds=2), directory=tmp_path)
    timed = rows(tmp_path)["hopper-like", "iql", "training_seconds"]
    assert timed["n"] == 2
    assert timed["low"] <= timed["value"] <= timed["high"]
    offline.main(options(tmp_path, seeds=2), directory=tmp_path / "again")
    assert ("hopper-like", "iql", "training_seconds") not in rows(tmp_path / "again")


def test_updates_are_those_of_every_learner(made, tmp_path):
    offline.main(
        options(tmp_path, algorithms=("srpo", "bc"), seeds=1, updates=70),
        directory=tmp_path,
    )
    assert [(one[0], one[4]) for one in made] == [("srpo", [70]), ("bc", [70])]
    assert {method for _, method, _ in rows(tmp_path)} == {"srpo", "bc"}


def test_a_variant_is_an_algorithm_with_other_options(made, monkeypatch, tmp_path):
    configs, train = [], training.runs.train

    def watched(*named, **others):
        configs.append(named[-1].config)
        return train(*named, **others)

    monkeypatch.setattr(training.runs, "train", watched)
    offline.main(
        options(tmp_path, algorithms=("edp", "diffusion-ql"), seeds=1),
        directory=tmp_path,
    )
    assert [(one[0], one[2]) for one in made] == [
        ("diffusion-ql", "hopper-like-edp-0"),
        ("diffusion-ql", "hopper-like-diffusion-ql-0"),
    ]
    assert [config.one_step for config in configs] == [True, False]
    assert {method for _, method, _ in rows(tmp_path)} == {"edp", "diffusion-ql"}


def test_a_maze_is_played_in_both_settings(made, monkeypatch, tmp_path):
    def play(run, setting, episodes, seed):
        assert (episodes, seed) == (3, 5)
        value = (4.0 if setting == "multi" else 2.0) + 2 * seed_of(run)
        own = rollouts(np.full(3, value), np.full(3, value > 3))
        expert, chance = (rollouts(np.full(3, value)) for value in (10.0, 0.0))
        return MazeRollouts(
            **vars(own), maze=MAZES["umaze"], expert=expert, chance=chance
        )

    monkeypatch.setattr(offline, "play_maze", play)
    offline.main(options(tmp_path, seeds=2, dataset="umaze"), directory=tmp_path)
    found = rows(tmp_path, "maze")
    assert found["umaze-multi", "iql", "score"]["value"] == pytest.approx(50.0)
    assert found["umaze-single", "iql", "score"]["value"] == pytest.approx(30.0)
    assert found["umaze-single", "iql", "success"]["value"] == pytest.approx(0.5)
    assert found["umaze-single", "iql", "success"]["n"] == 6
    # What was trained on the one goal does not take the place of these rows.
    offline.main(options(tmp_path, seeds=2, dataset="umaze-single"), directory=tmp_path)
    more = rows(tmp_path, "maze")
    assert {name: more[name] for name in found} == found
    assert {setting for setting, *_ in more.keys() - found.keys()} == {
        "umaze-single, of one goal"
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": 0}, "`seeds` is 0; it must be at least 1"),
        ({"episodes": -1}, "`episodes` is -1"),
        ({"updates": 0}, "`updates` is 0"),
        ({"preset": "best"}, "there is no preset 'best'"),
    ],
)
def test_wrong_options_are_said_before_anything_is_trained(
    made, tmp_path, changes, words
):
    with pytest.raises(UserError, match=words):
        offline.main(options(tmp_path, **changes), directory=tmp_path)
    assert not made
