"""The Franka kitchen and a toy of it: tasks, data, presets, scores and pictures."""

import dataclasses
from typing import TYPE_CHECKING, Any

import gymnasium

from jaxdiff.data.spec import Environment
from jaxdiff.rollouts import Rollouts
from jaxdiff.run import Run
from jaxdiff.tasks import control
from jaxdiff.tasks.kitchen.presets import PRESETS
from jaxdiff.tasks.kitchen.recipe import RECIPES
from jaxdiff.tasks.kitchen.scores import score, times
from jaxdiff.tasks.kitchen.world import ENVIRONMENTS, HORIZON, split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_ENVS = 25  # a Franka kitchen needs 80 MB


def make_env(environment: Environment, options: Any = None) -> gymnasium.Env:
    """Make a kitchen as policies see it, with all seven tasks and 280 steps.

    Keyword arguments and the time limit of the recording are dropped: they choose the
    tasks that counted there.
    """
    import jaxdiff.tasks.kitchen.toy_environment  # noqa: F401  (registers the id)

    # Gymnasium's checker warns that observations share their goals, which nobody sees.
    raw = control.make_raw(Environment(environment.id), disable_env_checker=True)
    return control.as_seen(raw, split)


def play(*asked: Any, num_envs: int, **options: Any) -> Rollouts:
    """Play episodes in lock-step, in at most 25 environments, which fit in memory."""
    return control.play(*asked, num_envs=min(num_envs, _MOST_ENVS), **options)


def draw(run: Run, played: Rollouts) -> "Figure":
    """Draw when the tasks of a run were done."""
    from jaxdiff.tasks.kitchen.figures import plot_times

    return plot_times({run.name: times(control.paths_of(played))}, horizon=HORIZON)


TASK = dataclasses.replace(
    control.CONTROL,
    name="kitchen",
    environments=ENVIRONMENTS,
    split=split,
    make_env=make_env,
    play=play,
    score=score,
    recipes=RECIPES,
    presets=PRESETS,
    draw=draw,
)
