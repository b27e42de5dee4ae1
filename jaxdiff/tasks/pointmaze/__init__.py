"""PointMaze: the mazes, their data, their scores and their pictures."""

import dataclasses
from typing import Any

from jaxdiff.data.episodes import Dataset
from jaxdiff.data.spec import Layout
from jaxdiff.tasks.control import CONTROL
from jaxdiff.tasks.pointmaze.dynamics import simulate
from jaxdiff.tasks.pointmaze.environment import make_env
from jaxdiff.tasks.pointmaze.presets import PRESETS
from jaxdiff.tasks.pointmaze.question import QUESTION
from jaxdiff.tasks.pointmaze.recipe import RECIPES
from jaxdiff.tasks.pointmaze.scores import MazeOptions, play, score, settle
from jaxdiff.tasks.pointmaze.world import MAZES


def _layout(dataset: Dataset) -> Layout:
    del dataset
    return Layout(position=(0, 1), velocity=(2, 3), goal=(0, 1, 2, 3))


def _draw(run: Any, played: Any) -> Any:
    # matplotlib is slow to import, and most commands draw nothing.
    from jaxdiff.tasks.pointmaze.figures import plot_episodes

    return plot_episodes(run, played)


TASK = dataclasses.replace(
    CONTROL,
    name="pointmaze",
    environments=tuple(maze.environment for maze in MAZES.values()),
    make_env=make_env,
    play=play,
    score=score,
    options=MazeOptions,
    settle=settle,
    layout=_layout,
    recipes=RECIPES,
    presets=PRESETS,
    question=QUESTION,
    draw=_draw,
    simulate=simulate,
    stream=True,
)
