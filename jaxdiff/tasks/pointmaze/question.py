"""What `jaxdiff plan` takes in a maze: points, discs to keep out of, points to pass.

A disc is kept out of in two ways at once: its value finds ways round it, and a
projection holds estimates and plans to it. Their arrays are arguments of module-level
functions, so that another disc compiles nothing.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxdiff.diffusion import keep_out, keep_out_value, pass_by_value
from jaxdiff.errors import UserError
from jaxdiff.options import Options
from jaxdiff.run import Run
from jaxdiff.tasks.base import Question, Request
from jaxdiff.tasks.pointmaze.world import Maze, cell_to_xy, maze_of, require_free

_POSITION = (2, 3)  # entries of a row [action | observation]
_MARGIN = 0.15  # m beside a disc, for the controller that follows the plan
# What made plans in the medium maze take another way (see benchmarks/properties.py).
_SCALE = 30.0
_DRAWN = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class MazeQuestion(Options):
    """What a plan in a maze is made for.

    Attributes:
      start: where the plan starts, at rest; a cell "row,col", or with `xy` "x,y".
      goal: where the plan ends, at rest; written as the start is. Left out, the plan
        has no goal.
      avoid: disc to keep out of, "row,col,radius", or with `xy` "x,y,radius"; the
        radius is in metres. Give the flag once for each disc.
      via: point to pass, written as the start is. Give the flag once for each point.
      xy: read points as metres.
    """

    start: str
    goal: str | None = None
    avoid: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    via: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    xy: bool = False


def read_question(options: MazeQuestion, run: Run) -> Request:
    """Read points and discs, and check that they fit the maze of a run.

    Raises:
      UserError: text that is no point or disc, a point in a wall, or a disc that covers
        the start or the goal.
    """
    maze = run_maze(run)
    read = functools.partial(_point, maze, xy=options.xy)
    start = read("start", options.start)
    goal = None if options.goal is None else read("goal", options.goal)
    discs = [_disc(maze, text, options.xy) for text in options.avoid]
    points = [read("via", text) for text in options.via]
    ends = {"start": start} if goal is None else {"start": start, "goal": goal}
    for name, point in ends.items():
        require_free(maze, point, name)
        for text, (x, y, radius) in zip(options.avoid, discs, strict=True):
            if math.dist(point, (x, y)) < radius:
                raise UserError(
                    f"the disc {text} of `avoid` covers the {name} ({point[0]:g}, "
                    f"{point[1]:g}); choose a smaller radius or another place"
                )
    for point in points:
        require_free(maze, point, "point to pass")
    # Entries of a goal that are not given are zero, which is a velocity of zero.
    entries = None
    if goal is not None:
        entries = np.array(goal, np.float32)[: run.config.goal_dim or None]
    return Request(
        start=at_rest(start),
        goal=entries,
        options=detour(discs, points),
        draw=functools.partial(_draw, maze, start, goal, discs, points),
    )


QUESTION = Question(MazeQuestion, read_question)


def run_maze(run: Run) -> Maze:
    """Return the maze of the environment that a run is scored in.

    Raises:
      UserError: the run is of no maze.
    """
    environment = run.environment()
    if environment is None:
        raise UserError(
            f"{run.path} was trained on {run.dataset['name']}, which does not say the "
            "maze that it was recorded in"
        )
    return maze_of(environment)


def at_rest(point: Any) -> np.ndarray:
    """Return the observation `[4]` of a ball that rests at a point `[2]`."""
    return np.array([*point, 0.0, 0.0], np.float32)


def detour(
    avoid: Sequence[Any] = (),
    via: Sequence[Any] = (),
    *,
    by: Sequence[str] = ("value", "project"),
) -> dict[str, Any]:
    """Say where a plan must not and must go, as keywords for `jaxdiff.plan`.

    Args:
      avoid: discs to keep out of, each `[3]`, centre and radius in metres. Plans keep
        0.15 m beside them, for the controller that follows.
      via: points to pass, each `[2]`.
      by: how to keep out of discs: "value" finds ways round, "project" holds the plan
        outside.
    """
    discs = jnp.asarray(avoid, jnp.float32).reshape(-1, 3) + jnp.array([0, 0, _MARGIN])
    points = jnp.asarray(via, jnp.float32).reshape(-1, 2)
    asked: dict[str, Any] = {}
    if len(discs) and "project" in by:
        asked |= {"project": project_out, "project_args": discs}
    climbed = discs if "value" in by else discs[:0]
    if len(climbed) or len(points):
        asked |= {"value": value_of, "value_args": (climbed, points)}
        asked["value_scale"] = _SCALE
    return asked


def value_of(trajectories: jax.Array, args: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Value trajectories `[N, H, A + O]` that keep out of discs and pass points: `[N]`.

    Args:
      trajectories: environment units.
      args: discs `[D, 3]` and points `[P, 2]`.
    """
    discs, points = args
    values = [
        keep_out_value(disc[:2], disc[2], dims=_POSITION, width=0.1) for disc in discs
    ] + [pass_by_value(point, dims=_POSITION, width=0.3) for point in points]
    return sum(value(trajectories) for value in values)  # type: ignore[return-value]


def project_out(trajectories: jax.Array, discs: jax.Array) -> jax.Array:
    """Push trajectories `[N, H, A + O]` out of discs `[D, 3]`, one after the other.

    Where two discs overlap, being pushed out of one may lead into the other.
    """
    for disc in discs:
        trajectories = keep_out(disc[:2], disc[2], dims=_POSITION)(trajectories)
    return trajectories


def _point(maze: Maze, name: str, text: str, xy: bool) -> tuple[float, float]:
    """Read "row,col", or "x,y" in metres, as a position."""
    kind = float if xy else int
    try:
        first, second = (kind(part) for part in text.split(","))
    except ValueError:
        form = "x,y in metres" if xy else "row,col of a cell"
        raise UserError(
            f"`{name}` is {text!r}; write it as {form}, such as 1,1"
        ) from None
    x, y = (first, second) if xy else cell_to_xy(maze, (first, second))
    return float(x), float(y)


def _disc(maze: Maze, text: str, xy: bool) -> tuple[float, float, float]:
    """Read a point and a radius, "row,col,radius" or "x,y,radius"."""
    point, _, radius = text.rpartition(",")
    try:
        size = float(radius)
        if not 0 < size < math.inf:
            raise ValueError
        return *_point(maze, "avoid", point, xy), size
    except (ValueError, UserError):
        form = "x,y,radius" if xy else "row,col,radius"
        raise UserError(
            f"`avoid` is {text!r}; write it as {form}, the radius in metres, such as "
            "1,1,0.4"
        ) from None


def _draw(
    maze: Maze, start: Any, goal: Any, discs: Any, points: Any, plans: Any
) -> Any:
    """Draw the best plans."""
    from jaxdiff.tasks.pointmaze.figures import plot_plans

    shown = plans.observations[:_DRAWN, :, :2]
    count = len(shown)
    return plot_plans(
        maze,
        shown,
        starts=[start] * count,
        goals=None if goal is None else [goal] * count,
        avoid=[discs] * count if discs else None,
        via=[points] * count if points else None,
        titles=[f"dynamics error {error:.2f}" for error in plans.dynamics_error],
    )
