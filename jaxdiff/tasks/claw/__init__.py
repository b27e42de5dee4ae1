"""The claw machine: scenes, data, presets, scores and pictures."""

import dataclasses
from typing import TYPE_CHECKING

import jaxdiff.tasks.claw.environment  # noqa: F401  (registers the ids)
from jaxdiff.run import Run
from jaxdiff.tasks import control
from jaxdiff.tasks.claw.play import ClawPlayed, play
from jaxdiff.tasks.claw.presets import PRESETS
from jaxdiff.tasks.claw.recipe import RECIPES
from jaxdiff.tasks.claw.scores import score
from jaxdiff.tasks.claw.world import ENVIRONMENTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(run: Run, played: ClawPlayed) -> "Figure":
    """Draw the actions of a run in every scene."""
    from jaxdiff.tasks.claw.figures import plot_actions

    return plot_actions(played.family, {run.name: played.actions})


TASK = dataclasses.replace(
    control.CONTROL,
    name="claw",
    environments=tuple(ENVIRONMENTS.values()),
    play=play,
    score=score,
    recipes=RECIPES,
    presets=PRESETS,
    question=None,
    draw=draw,
)
