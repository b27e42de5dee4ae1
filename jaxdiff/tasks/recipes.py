"""Makers of local datasets, by the name that commands use."""

import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple, get_args

from jaxdiff.tasks.claw.recipe import claw_id, make_claw
from jaxdiff.tasks.claw.world import Family
from jaxdiff.tasks.doom.recipe import doom_id, make_doom
from jaxdiff.tasks.doom.world import Block
from jaxdiff.tasks.kitchen.recipe import TOY_KITCHEN_ID, make_toy_kitchen
from jaxdiff.tasks.pointmaze.recipe import make_pointmaze, pointmaze_id
from jaxdiff.tasks.pointmaze.world import MAZES, Setting, task_name
from jaxdiff.tasks.pusht.recipe import PUSHT_ID, make_pusht


class Recipe(NamedTuple):
    """One dataset that can be made locally.

    Attributes:
      dataset_id: Minari id it is stored under.
      make: `make(*, steps, seed=0, root=None, ...) -> Path` writes it.
      steps: transitions, unless someone asks for another number.
      noisy: `make` takes `noise`, that of the expert's actions.
    """

    dataset_id: str
    make: Callable[..., pathlib.Path]
    steps: int
    noisy: bool


_CLAWS: dict[str, Family] = {"claw": "uniform", "claw-biased": "biased"}
RECIPES: dict[str, Recipe] = {
    f"pointmaze-{task_name(name, setting)}": Recipe(
        pointmaze_id(name, setting),
        functools.partial(make_pointmaze, name, setting=setting),
        steps=1_000_000,
        noisy=True,
    )
    for setting in get_args(Setting)
    for name in MAZES
} | {
    name: Recipe(
        claw_id(family), functools.partial(make_claw, family), steps=20_000, noisy=False
    )
    for name, family in _CLAWS.items()
}
RECIPES["toy-kitchen"] = Recipe(
    TOY_KITCHEN_ID, make_toy_kitchen, steps=90_000, noisy=True
)
RECIPES["pusht"] = Recipe(PUSHT_ID, make_pusht, steps=50_000, noisy=True)
_DOOMS: dict[str, Block] = {"doom": 1, "doom-half": 2, "doom-quarter": 4}
RECIPES |= {
    name: Recipe(
        doom_id(block), functools.partial(make_doom, block), steps=45_000, noisy=False
    )
    for name, block in _DOOMS.items()
}
