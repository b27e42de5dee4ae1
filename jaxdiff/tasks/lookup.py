"""Which task belongs to what: environments, datasets, recipes and presets by name.

A task is found by the exact Gymnasium id of an environment, never by a part of a name.
Each folder of `jaxdiff/tasks` exports one `TASK`; others come from entry points of the
group "jaxdiff.tasks" or from modules that assign to `TASKS`.
"""

import dataclasses
import importlib
import math
import os
import pkgutil
from collections.abc import Mapping

import jaxdiff.tasks
from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.base import Preset
from jaxdiff.data.episodes import (
    Dataset,
    check_episodes,
    episodes_of,
    fingerprint,
)
from jaxdiff.data.locate import dataset_folder, locate
from jaxdiff.data.readers import Timeouts, read
from jaxdiff.data.spec import Environment, Spec
from jaxdiff.errors import UserError
from jaxdiff.registry import Registry
from jaxdiff.tasks.base import Recipe, Task
from jaxdiff.tasks.control import CONTROL


def _own_tasks() -> Mapping[str, Task]:
    """Import every folder beside this file; a folder that is gone is no task."""
    found = [
        importlib.import_module(f"jaxdiff.tasks.{module.name}").TASK
        for module in pkgutil.iter_modules(jaxdiff.tasks.__path__)
        if module.ispkg
    ]
    return {task.name: task for task in found}


TASKS: Registry[Task] = Registry("task", group="jaxdiff.tasks", discover=_own_tasks)
"""Name -> `Task`, all but `CONTROL`, which serves every other environment."""


def task_of(environment: Environment | None) -> Task:
    """Return the task of an environment, by its exact id; else `CONTROL`."""
    if environment is not None:
        for task in TASKS.values():
            if environment.id in task.environments:
                return task
    return CONTROL


def recipes() -> dict[str, Recipe]:
    """Return all recipes of all tasks by name."""
    return {
        name: recipe for task in TASKS.values() for name, recipe in task.recipes.items()
    }


@dataclasses.dataclass(frozen=True)
class Reading:
    """How stored data are read.

    Attributes:
      timeouts: what a timeout means in a file of D4RL's layout: "ignore" if the
        environment goes on there, as in a maze's one stream, or "episode" if it is
        reset. By default the steps over timeouts tell.
      join_episodes: join episodes that meet, one ending in the observation that the
        next begins with. By default only data of tasks that record one stream are.
      goals: keep goals. Leave them out where rewards know nothing of them.
    """

    timeouts: Timeouts | None = None
    join_episodes: bool = False
    goals: bool = True


def load_dataset(
    name: str | os.PathLike,
    *,
    root: str | os.PathLike | None = None,
    download: bool = False,
    environment: str | None = None,
    reading: Reading = Reading(),
) -> Dataset:
    """Load a dataset by recipe, Minari id or path.

    Args:
      name: a recipe such as `jaxdiff list` shows, a Minari id, or the path of a Minari
        dataset folder, an HDF5 file in D4RL's layout or an NPZ file.
      root: folder of local datasets; `MINARI_DATASETS_PATH`, or else Minari's own.
      download: fetch a Minari id that is not stored locally.
      environment: Gymnasium id that policies are scored in, `Id` or `module:Id`; by
        default what the dataset says.
      reading: how the data are read.

    Raises:
      UserError: the dataset does not exist, cannot be fetched or is unsound, or
        `reading` asks for what it does not have.
    """
    name = os.fspath(name)
    known = recipes()
    if name in known:
        path = dataset_folder(known[name].dataset_id, root)
        if not (path / "data").is_dir():
            raise UserError(
                f"the dataset {name!r} has not been made yet; run "
                f"`jaxdiff data make {name}`"
            )
    else:
        path = locate(name, root=root, download=download)
    recording = read(path, reading.timeouts)
    evaluation = recording.evaluation or recording.environment
    if environment is not None:
        evaluation = Environment(environment)
    task = task_of(evaluation)
    episodes = episodes_of(recording, task.split, str(path))
    if not reading.goals:
        if episodes.goals is None:
            raise UserError(f"{path} has no goals; leave out `goals=False`")
        episodes = dataclasses.replace(episodes, goals=None)
    check_episodes(episodes, str(path))
    return Dataset(
        name=name,
        episodes=episodes,
        observation_shape=_shape(recording.observations[0], episodes),
        fingerprint=fingerprint(episodes),
        environment=recording.environment,
        evaluation=evaluation,
        references=recording.references,
        metadata=recording.metadata,
        stream=task.stream or reading.join_episodes,
    )


def _shape(raw, episodes) -> tuple[int, ...]:
    """Give the shape of an observation; that of a picture as it was stored."""
    size = episodes.observations.shape[1]
    shape = () if isinstance(raw, Mapping) else raw.shape[1:]
    return tuple(shape) if shape and math.prod(shape) == size else (size,)


def spec_of(dataset: Dataset) -> Spec:
    """Return what algorithms are built for on a dataset."""
    goals = dataset.episodes.goals
    return Spec(
        observation_shape=dataset.observation_shape,
        action_dim=dataset.episodes.actions.shape[1],
        goal_dim=0 if goals is None else goals.shape[1],
        layout=task_of(dataset.evaluation).layout(dataset),
    )


def presets_of(algorithm: str, dataset: Dataset) -> list[str]:
    """List the presets of an algorithm for a dataset, the default first."""
    task = task_of(dataset.evaluation)
    named = [name for owner, name in task.presets if owner == algorithm]
    return [*sorted(named, key=lambda name: name != "demo"), "generic"]


def find_preset(
    algorithm: str, dataset: Dataset, spec: Spec, name: str | None = None
) -> Preset:
    """Return the options to start from.

    Args:
      algorithm: a name of `ALGORITHMS`.
      dataset: the data.
      spec: of the data.
      name: of the preset: one of the task's, such as "demo" for a laptop, "released"
        for the authors' code, "paper" where the paper differs from it, or "generic",
        which derives from the data. By default "demo" where the task has it, else
        "generic".

    Raises:
      UserError: there is no such preset for this algorithm and dataset.
    """
    entry = ALGORITHMS.find(algorithm)
    known = presets_of(algorithm, dataset)
    name = known[0] if name is None else name
    if name not in known:
        raise UserError(
            f"there is no preset {name!r} of {algorithm} for {dataset.name}; choose "
            f"one of {', '.join(known)} with `preset`"
        )
    if name == "generic":
        return entry.generic(dataset, spec)._replace(name=name)
    find = task_of(dataset.evaluation).presets[algorithm, name]
    return find(dataset, spec)._replace(name=name)
