"""Tasks are found by exact ids, and presets by their names."""

import dataclasses
import importlib

import numpy as np
import pytest
from points import straight_lines

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.data.episodes import Dataset
from jaxdiff.data.spec import Environment
from jaxdiff.errors import UserError
from jaxdiff.tasks.control import CONTROL
from jaxdiff.tasks.lookup import (
    TASKS,
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


def test_a_recipe_that_was_not_made_says_how(tmp_path):
    with pytest.raises(UserError, match="run `jaxdiff data make pointmaze-umaze`"):
        load_dataset("pointmaze-umaze", root=tmp_path)


def test_a_task_may_be_added_and_taken_away(monkeypatch):
    mine = dataclasses.replace(CONTROL, name="mine", environments=("Mine-v0",))
    with monkeypatch.context() as patch:
        patch.setitem(TASKS, "mine", mine)
        assert task_of(Environment("Mine-v0")) is mine
    assert task_of(Environment("Mine-v0")) is CONTROL
