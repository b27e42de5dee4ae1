"""Tasks are found by exact ids, and presets by their names."""

import dataclasses
import importlib

import numpy as np
import pytest
from points import straight_lines

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.data.episodes import Dataset
from jaxdiff.data.spec import Environment
from jaxdiff.data.windows import return_to_go
from jaxdiff.errors import UserError
from jaxdiff.tasks.control import CONTROL
from jaxdiff.tasks.lookup import (
    TASKS,
    Reading,
    find_preset,
    load_dataset,
    presets_of,
    recipes,
    spec_of,
    task_of,
)

FOLDERS = ("antmaze", "claw", "doom", "kitchen", "locomotion", "pointmaze", "pusht")
DATASET = Dataset("lines", straight_lines(4), (2,), "")


def in_environment(environment, **fields):
    return DATASET._replace(evaluation=Environment(environment), **fields)


def test_every_folder_is_a_task():
    for folder in FOLDERS:
        task = importlib.import_module(f"jaxdiff.tasks.{folder}").TASK
        assert TASKS[task.name] == task
        assert task.environments
        assert task_of(Environment(task.environments[0])) == task
    assert len(TASKS) >= len(FOLDERS)


def test_no_two_tasks_claim_one_environment_or_one_recipe():
    ids = [name for task in TASKS.values() for name in task.environments]
    assert len(set(ids)) == len(ids)
    made = [name for task in TASKS.values() for name in task.recipes]
    assert len(made) == len(set(made)) == len(recipes())
    stored = [recipe.dataset_id for recipe in recipes().values()]
    assert len(set(stored)) == len(stored)


@pytest.mark.parametrize(
    "name",
    [
        "Own-v0",
        "PointMaze_UMaze-v3-like",
        "my/PointMaze_UMaze-v3",
        "module:PointMaze_UMaze-v3",
        "Grant-v4",
        "Hopper",
        "hopper-v5",
        "Ant-v5",
        "",
    ],
)
def test_other_ids_are_controls_however_much_they_resemble(name):
    assert task_of(Environment(name)) is CONTROL


def test_without_an_environment_there_is_control():
    assert task_of(None) is CONTROL


@pytest.mark.parametrize(
    "name", ["/home/grant/data", "claw-project/pen.npz", "mujoco/ant/medium-v0"]
)
def test_the_name_of_a_dataset_says_nothing(name):
    dataset = in_environment("Ant-v5", name=name, metadata={"dataset_id": name})
    assert task_of(dataset.evaluation) is CONTROL
    assert presets_of("iql", dataset) == ["generic"]
    assert find_preset("iql", dataset, spec_of(dataset)).name == "generic"


def test_a_dataset_is_named_by_its_path_and_not_its_folder(tmp_path):
    folder = tmp_path / "claw-kitchen-pointmaze"
    folder.mkdir()
    np.savez(
        folder / "hopper-medium.npz",
        **{
            field.name: getattr(DATASET.episodes, field.name)
            for field in dataclasses.fields(DATASET.episodes)
        },
    )
    dataset = load_dataset(folder / "hopper-medium.npz")
    assert dataset.environment is dataset.evaluation is None
    assert task_of(dataset.evaluation) is CONTROL
    named = load_dataset(folder / "hopper-medium.npz", environment="Hopper-v5")
    assert task_of(named.evaluation).name == "locomotion"


def test_the_environment_of_evaluation_decides():
    dataset = DATASET._replace(
        environment=Environment("Hopper-v5"), evaluation=Environment("Own-v0")
    )
    assert task_of(dataset.evaluation) is CONTROL
    assert presets_of("diffuser", dataset) == ["generic"]


def test_the_demo_comes_first_and_then_generic_serves():
    dataset = in_environment("Hopper-v5")
    assert presets_of("diffuser", dataset)[0] == "demo"
    assert presets_of("diffuser", dataset)[-1] == "generic"
    preset = find_preset("diffuser", dataset, spec_of(dataset))
    assert preset.name == "demo"
    assert type(preset.config) is ALGORITHMS["diffuser"].config
    generic = find_preset("diffuser", dataset, spec_of(dataset), "generic")
    assert generic.name == "generic"


def test_unknown_preset_names_those_there_are():
    dataset = in_environment("Hopper-v5")
    with pytest.raises(UserError) as refused:
        find_preset("diffuser", dataset, spec_of(dataset), "fancy")
    said = str(refused.value)
    assert "no preset 'fancy' of diffuser for lines" in said
    assert f"choose one of {', '.join(presets_of('diffuser', dataset))}" in said
    with pytest.raises(UserError, match="choose one of generic with `preset`"):
        find_preset("bc", DATASET, spec_of(DATASET), "demo")
    with pytest.raises(UserError, match=r"no algorithm 'magic'; choose one of .*iql"):
        find_preset("magic", DATASET, spec_of(DATASET))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_data_that_no_task_knows_have_options_for_every_algorithm(name):
    entry, spec = ALGORITHMS[name], spec_of(DATASET)
    preset = find_preset(name, DATASET, spec)
    statistics = entry.measure(preset.config, DATASET.episodes, spec)
    built = entry.build(preset.config, preset.acting, statistics, spec)
    assert set(built.learners) <= set(preset.training)


def corridor(path, **more):
    """Twenty walks from 0 to 3 and back that ran out of time: each ends where the next
    begins."""
    x = np.tile(np.array([0, 1, 2, 3, 2, 1, 0], np.float32), 20)
    rewards = np.zeros((20, 7), np.float32)
    rewards[1::2, 2] = 1
    actions = np.append(np.diff(x), 0).astype(np.float32)
    actions[6::7] = 0
    np.savez(
        path, observations=np.stack([x, 0 * x], 1), actions=actions[:, None],
        rewards=rewards.ravel(), starts=np.arange(20) * 7, lengths=np.full(20, 6),
        terminated=np.zeros(20, bool), **more,
    )  # fmt: skip
    return path


def test_episodes_that_are_stated_are_joined_only_where_that_is_asked(tmp_path):
    path = corridor(tmp_path / "corridor.npz")
    stated = load_dataset(path).trained_on()
    assert stated.lengths.tolist() == [6] * 20
    assert return_to_go(stated, 1.0)[[0, 7]].tolist() == [0, 1]
    joined = load_dataset(path, reading=Reading(join_episodes=True))
    assert joined.trained_on().lengths.tolist() == [120]
    assert joined.fingerprint == load_dataset(path).fingerprint


def test_a_task_whose_data_are_one_stream_says_so(tmp_path):
    path = corridor(tmp_path / "corridor.npz")
    for environment, episodes in (("PointMaze_UMaze-v3", 1), ("Hopper-v5", 20)):
        dataset = load_dataset(path, environment=environment)
        assert len(dataset.trained_on().lengths) == episodes


def test_goals_are_left_out_where_that_is_asked(tmp_path):
    path = corridor(tmp_path / "corridor.npz", goals=np.ones((140, 2), np.float32))
    assert spec_of(load_dataset(path)).goal_dim == 2
    dataset = load_dataset(path, reading=Reading(goals=False))
    assert spec_of(dataset).goal_dim == 0
    path = corridor(tmp_path / "without.npz")
    with pytest.raises(UserError, match="has no goals; leave out `goals=False`"):
        load_dataset(path, reading=Reading(goals=False))


def test_a_recipe_that_was_not_made_says_how(tmp_path):
    with pytest.raises(UserError, match="run `jaxdiff data make pointmaze-umaze`"):
        load_dataset("pointmaze-umaze", root=tmp_path)


def test_a_task_may_be_added_and_taken_away(monkeypatch):
    mine = dataclasses.replace(CONTROL, name="mine", environments=("Mine-v0",))
    with monkeypatch.context() as patch:
        patch.setitem(TASKS, "mine", mine)
        assert task_of(Environment("Mine-v0")) is mine
    assert task_of(Environment("Mine-v0")) is CONTROL
