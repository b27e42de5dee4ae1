"""AntMaze: an ant walks to a goal in a maze, as in D4RL and gymnasium-robotics."""

import dataclasses
import itertools
from typing import Any

import gymnasium

from jaxdiff.data.episodes import Dataset
from jaxdiff.data.spec import Environment, Layout
from jaxdiff.tasks.antmaze.observation import split
from jaxdiff.tasks.antmaze.presets import PRESETS
from jaxdiff.tasks.control import CONTROL, as_seen, make_raw

_MAZES = ("UMaze",) + tuple(
    maze + kind
    for maze in ("Open", "Medium", "Large")
    for kind in ("", "_Diverse_G", "_Diverse_GR")
)


def make_env(environment: Environment, options: Any = None) -> gymnasium.Env:
    """Make a maze whose observations begin with the position of the ant."""
    return as_seen(make_raw(environment), split)


def layout(dataset: Dataset) -> Layout:
    """Return where the position is; torques, which are the actions, have none."""
    return Layout(goal=(0, 1))


TASK = dataclasses.replace(
    CONTROL,
    name="antmaze",
    environments=tuple(
        f"AntMaze_{maze}{rewards}-v{version}"
        for maze, rewards, version in itertools.product(
            _MAZES, ("", "Dense"), (3, 4, 5)
        )
    ),
    split=split,
    make_env=make_env,
    layout=layout,
    presets=PRESETS,
)
