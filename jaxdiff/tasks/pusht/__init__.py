"""PushT: the demonstrator, data, presets, scores and pictures."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxdiff.data.spec import Layout
from jaxdiff.rollouts import Rollouts
from jaxdiff.run import Run
from jaxdiff.tasks import control
from jaxdiff.tasks.pusht.environment import make_env
from jaxdiff.tasks.pusht.presets import PRESETS
from jaxdiff.tasks.pusht.recipe import RECIPES
from jaxdiff.tasks.pusht.world import ENVIRONMENT, way_round

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def score(
    played: Rollouts, options: Any, references: Mapping[str, float]
) -> dict[str, Any]:
    """Score by success, in percent; a return is smaller the sooner an episode is done.

    Args:
      played: N episodes.
      options: options of the task; not read.
      references: references of the dataset; not read.
    """
    record = control.score(played, options, {})
    low, high = record["success_interval"]
    return {
        "score": 100 * record["success_rate"],
        "score_low": 100 * low,
        "score_high": 100 * high,
        "scale": "percent of episodes that succeed",
        **record,
    }


def draw(run: Run, played: Rollouts) -> "Figure":
    """Draw the agent's paths in the first episodes of a run."""
    from jaxdiff.tasks.pusht.figures import plot_pushes

    paths = control.paths_of(played)[:10]
    return plot_pushes({run.name: paths}, {run.name: [way_round(x) for x in paths]})


TASK = dataclasses.replace(
    control.CONTROL,
    name="pusht",
    environments=(ENVIRONMENT,),
    make_env=make_env,
    score=score,
    layout=lambda dataset: Layout(position=(0, 1)),
    recipes=RECIPES,
    presets=PRESETS,
    draw=draw,
)
