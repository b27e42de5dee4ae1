"""The table of offline algorithms: what is trained, what is played, what is written."""

import dataclasses
import json
import types

import numpy as np
import pytest

from benchmarks import offline
from jaxdiff.errors import UserError

REFERENCES = {"random": 10.0, "expert": 30.0}


@pytest.fixture
def made(monkeypatch, tmp_path):
    """Runs that are written down instead of trained, and earn ten times their seed."""
    trained = []

    def load(name):
        return types.SimpleNamespace(name=name)

    def train(algorithm, dataset, path, *, config, training, seed, resume):
        path.mkdir(parents=True, exist_ok=True)
        steps = sorted({one.num_steps for one in training.values()})
        trained.append((algorithm, dataset.name, path.name, seed, steps, resume))
        document = {"dataset": {"references": REFERENCES, "environment": "Hopper-v5"}}
        return types.SimpleNamespace(path=path, document=document, seed=seed)

    def evaluate(run, *, episodes, seed, devices):
        returns = 10.0 * run.seed + np.arange(episodes) + seed
        return {}, types.SimpleNamespace(returns=returns)

    monkeypatch.setattr(offline, "load_dataset", load)
    monkeypatch.setattr(offline, "train_run", train)
    monkeypatch.setattr(offline, "maze_of", lambda run: None)
    monkeypatch.setattr(offline, "evaluate_control", evaluate)
    return trained


def options(tmp_path, **changes):
    return offline.Options(
        "hopper-like",
        runs=tmp_path / "runs",
        **{"algorithms": ("iql",), "episodes": 3, "seed": 5, **changes},
    )


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
    configs, train = [], offline.train_run

    def watched(*named, config, **others):
        configs.append(config)
        return train(*named, config=config, **others)

    monkeypatch.setattr(offline, "train_run", watched)
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
    maze = types.SimpleNamespace(name="umaze")

    def play(run, *, episodes, setting, seed, devices=None):
        returns = np.full(episodes, 4.0 if setting == "multi" else 2.0) + 2 * run.seed
        return types.SimpleNamespace(returns=returns, successes=returns > 3)

    def references(maze, **game):
        return tuple(
            types.SimpleNamespace(returns=np.full(game["episodes"], value))
            for value in (10.0, 0.0)
        )

    monkeypatch.setattr(offline, "maze_of", lambda run: maze)
    monkeypatch.setattr(offline, "play_maze", play)
    monkeypatch.setattr(offline, "maze_references", references)
    monkeypatch.setattr("benchmarks.maze.d4rl_score", lambda maze, value: value)
    offline.main(options(tmp_path, seeds=2), directory=tmp_path)
    found = rows(tmp_path, "maze")
    assert found["umaze-multi", "iql", "score"]["value"] == pytest.approx(50.0)
    assert found["umaze-single", "iql", "score"]["value"] == pytest.approx(30.0)
    assert found["umaze-single", "iql", "success"]["value"] == pytest.approx(0.5)
    assert found["umaze-single", "iql", "success"]["n"] == 6
    # What was trained on the one goal does not take the place of these rows.
    one = dataclasses.replace(options(tmp_path, seeds=2), dataset="umaze-single-v0")
    offline.main(one, directory=tmp_path)
    more = rows(tmp_path, "maze")
    assert {name: more[name] for name in found} == found
    assert {setting for setting, *_ in more.keys() - found.keys()} == {
        "umaze-single, of one goal"
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": 0}, "--seeds is 0; it must be at least 1"),
        ({"episodes": -1}, "--episodes is -1"),
        ({"updates": 0}, "--updates is 0"),
        ({"preset": "best"}, "there is no preset 'best'"),
    ],
)
def test_wrong_options_are_said_before_anything_is_trained(
    made, tmp_path, changes, words
):
    with pytest.raises(UserError, match=words):
        offline.main(options(tmp_path, **changes), directory=tmp_path)
    assert not made
