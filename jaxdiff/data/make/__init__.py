"""Makers of local datasets, by the name that commands use."""

import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from jaxdiff.data.make.pointmaze import make_pointmaze, pointmaze_id
from jaxdiff.envs.pointmaze import MAZES


class Recipe(NamedTuple):
    """One dataset that can be made locally.

    Attributes:
      dataset_id: Minari id it is stored under.
      make: `make(*, steps, seed=0, root=None, ...) -> Path` writes it.
    """

    dataset_id: str
    make: Callable[..., pathlib.Path]


RECIPES: dict[str, Recipe] = {
    f"pointmaze-{name}": Recipe(
        pointmaze_id(name), functools.partial(make_pointmaze, name)
    )
    for name in MAZES
}
