"""Doom: the game, the demonstrator, data, presets, scores and pictures."""

import dataclasses

import gymnasium

from jaxdiff.data.spec import Environment
from jaxdiff.tasks import control
from jaxdiff.tasks.doom import environment as games
from jaxdiff.tasks.doom import world as doom
from jaxdiff.tasks.doom.play import DoomOptions, play
from jaxdiff.tasks.doom.presets import PRESETS
from jaxdiff.tasks.doom.recipe import RECIPES
from jaxdiff.tasks.doom.scores import score


def make_env(environment: Environment, options: DoomOptions) -> gymnasium.Env:
    """Make a game as policies see it, with flat pictures.

    Keyword arguments of the recording are dropped, since they serve the demonstrator.

    Raises:
      UserError: ViZDoom is not installed.
    """
    raw = games.make_env(doom.block_of(environment), asynchronous=options.live)
    return control.as_seen(raw, control.split)


TASK = dataclasses.replace(
    control.CONTROL,
    name="doom",
    environments=tuple(doom.ENVIRONMENTS.values()),
    make_env=make_env,
    play=play,
    score=score,
    options=DoomOptions,
    recipes=RECIPES,
    presets=PRESETS,
    question=None,
)
