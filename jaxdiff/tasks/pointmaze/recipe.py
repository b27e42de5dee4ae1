"""Make PointMaze data: one long drive of the waypoint expert, goal after goal.

The drive is a single stream. It is cut every 1000 steps into episodes only because
storage and sampling need episodes: the first observation of an episode is the last one
of the episode before, and no episode ends in the task's own sense.
"""

import copy
import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np

from jaxdiff.data.storage import datasets_root, replacing, write_minari
from jaxdiff.errors import UserError, require_at_least
from jaxdiff.options import Options, at_least
from jaxdiff.tasks.base import Recipe
from jaxdiff.tasks.pointmaze.drive import (
    EPISODE_STEPS,
    Stream,
    measure_references,
    of_one_goal,
    record_stream,
)
from jaxdiff.tasks.pointmaze.environment import Setting
from jaxdiff.tasks.pointmaze.world import (
    MAZES,
    Maze,
    environment_of,
    maze_by_name,
    maze_of_file,
)

_OF_ONE_GOAL = " Rewards are for the one goal of D4RL's task."


@dataclasses.dataclass(frozen=True)
class DriveOptions(Options):
    """How the expert drives.

    Attributes:
      noise: standard deviation of the Gaussian noise on the expert's actions.
    """

    noise: float = 0.5

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 0, "noise")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MapOptions(DriveOptions):
    """How the expert drives in a maze that a user drew.

    Attributes:
      map: text file of the maze, one line for each row of cells; "#" or "1" is a wall,
        ".", "0" or a space is free.
      name: name of the dataset; by default that of the file.
    """

    map: str
    name: str | None = None


def task_name(maze: str, setting: Setting) -> str:
    """Name a maze with its goals, as recipes and datasets are named."""
    return f"{maze}-single" if setting == "single" else maze


def pointmaze_id(name: str) -> str:
    """Return the Minari id of a dataset."""
    return f"jaxdiff/pointmaze/{name}-v0"


def make_pointmaze(
    maze: str,
    *,
    steps: int,
    seed: int = 0,
    noise: float = 0.5,
    setting: Setting = "multi",
    root: str | os.PathLike | None = None,
) -> pathlib.Path:
    """Record the waypoint expert in one of D4RL's mazes as a Minari dataset.

    The same arguments give the same arrays, bit for bit. The dataset appears only
    when it is complete, and one of the same name is replaced only then.

    Args:
      maze: "umaze", "medium" or "large".
      steps: number of transitions, at least 1; the last episode takes the remainder.
      seed: seed of the environment and of the expert's noise.
      noise: standard deviation of the Gaussian noise on the expert's actions.
      setting: "single" pays for the one goal of D4RL's task, wherever the expert
        drives, "multi" for the goal that it drives to.
      root: folder of datasets; `MINARI_DATASETS_PATH`, or else Minari's own, by
        default.

    Returns:
      The dataset's folder.

    Raises:
      UserError: unknown maze, bad `steps` or `noise`, simulator missing, a drive that
        is not finite, or a folder that cannot be written.
    """
    return _record(
        maze_by_name(maze),
        task_name(maze, setting),
        steps=steps,
        seed=seed,
        noise=noise,
        setting=setting,
        root=root,
    )


def make_own(
    *,
    steps: int,
    map: str,
    name: str | None = None,
    seed: int = 0,
    noise: float = 0.5,
    root: str | os.PathLike | None = None,
) -> pathlib.Path:
    """Record the waypoint expert in a maze that a user drew; see `make_pointmaze`.

    The dataset is `jaxdiff/pointmaze/<name>-v0`. The map travels in the keyword
    arguments of its environment, so that policies are scored in the same maze.

    Args:
      steps: number of transitions.
      map: text file of the maze, see `jaxdiff.tasks.pointmaze.maps`.
      name: name of the dataset; by default that of the file.
      seed: seed of the environment and of the expert's noise.
      noise: standard deviation of the Gaussian noise on the expert's actions.
      root: folder of datasets.

    Raises:
      UserError: a file that is no map, a name that is none of a dataset, or what
        `make_pointmaze` raises.
    """
    name = pathlib.Path(map).stem if name is None else name
    if not re.fullmatch(r"[-\w]+", name):
        raise UserError(
            f"a dataset cannot be called {name!r}; choose a `name` of letters, digits, "
            "hyphens and underscores"
        )
    maze = maze_of_file(map)
    return _record(
        maze, name, steps=steps, seed=seed, noise=noise, setting="multi", root=root
    )


def _record(
    maze: Maze,
    name: str,
    *,
    steps: int,
    seed: int,
    noise: float,
    setting: Setting,
    root: str | os.PathLike | None,
) -> pathlib.Path:
    require_at_least(1, steps=steps)
    options = {"seed": seed, **vars(DriveOptions(noise=noise))}
    folder = datasets_root(root) / pointmaze_id(name)
    with replacing(folder) as partial:
        stream = record_stream(maze, steps=steps, seed=seed, noise=noise)
        for field, value in stream._asdict().items():
            if not np.isfinite(value).all():
                raise UserError(
                    f"the recorded {field} of {name} are not finite, so nothing was "
                    "stored; choose another `seed` or a smaller `noise`"
                )
        if setting == "single":
            stream = of_one_goal(maze, stream)
        references = measure_references(maze, setting=setting)
        _write(partial, name, maze, stream, references, options, setting)
    return folder


def _write(
    folder: pathlib.Path,
    name: str,
    maze: Maze,
    stream: Stream,
    references: dict[str, Any],
    options: dict[str, Any],
    setting: Setting,
) -> None:
    """Write a stream as the Minari dataset `folder`."""
    import gymnasium
    from gymnasium import spaces

    environment = environment_of(maze)
    spec = copy.deepcopy(gymnasium.spec(environment.id))
    spec.kwargs.update(environment.kwargs)
    spec.max_episode_steps = environment.max_episode_steps
    box: dict[str, spaces.Space] = {
        name: spaces.Box(-np.inf, np.inf, (size,), np.float32)
        for name, size in (
            ("observation", 4),
            ("achieved_goal", 2),
            ("desired_goal", 2),
        )
    }
    steps = len(stream.actions)
    episodes = []
    for start in range(0, steps, EPISODE_STEPS):
        end = min(start + EPISODE_STEPS, steps)
        observations = stream.observations[start : end + 1]
        length = end - start
        episodes.append(
            {
                "observations": {
                    "observation": observations,
                    "achieved_goal": observations[:, :2],
                    "desired_goal": stream.goals[start : end + 1],
                },
                "actions": stream.actions[start:end],
                "rewards": stream.rewards[start:end],
                "terminations": np.zeros(length, bool),
                "truncations": np.arange(length) == length - 1,
            }
        )
    write_minari(
        folder,
        episodes,
        observation_space=spaces.Dict(box),
        action_space=spaces.Box(-1.0, 1.0, (2,), np.float32),
        env_spec=spec,
        metadata={
            "dataset_id": pointmaze_id(name),
            "algorithm_name": "waypoint expert",
            "description": (
                f"One continuing drive through {_described(maze)} with a new goal "
                "whenever one is reached, cut into episodes."
                + (_OF_ONE_GOAL if setting == "single" else "")
            ),
            "requirements": ["gymnasium-robotics>=1.4"],
            "ref_min_score": references["random"],
            "ref_max_score": references["expert"],
            "num_episodes_average_score": references["episodes"],
            "jaxdiff": {
                "setting": setting,
                "stream": True,
                "references": references,
                **options,
            },
        },
    )


def _described(maze: Maze) -> str:
    return maze.environment if maze.name in MAZES else f"a maze of the map {maze.name}"


def _recipe(maze: str, setting: Setting) -> Recipe:
    make = functools.partial(make_pointmaze, maze, setting=setting)
    return Recipe(pointmaze_id(task_name(maze, setting)), make, 1_000_000, DriveOptions)


RECIPES = {
    f"pointmaze-{task_name(maze, setting)}": _recipe(maze, setting)
    for setting in get_args(Setting)
    for maze in MAZES
}
RECIPES["pointmaze"] = Recipe(pointmaze_id("NAME"), make_own, 1_000_000, MapOptions)
