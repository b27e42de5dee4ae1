"""Pictures of mazes: plans, denoising, horizons and animated episodes.

As in `jaxdiff.figures`, every function takes arrays and returns a new Figure. Positions
are metres in the maze's frame, whose origin is the centre of the maze.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import ArrayLike
from PIL import Image

from jaxdiff.errors import writing
from jaxdiff.figures.style import ACCENT, INK, SMALL, TEXT, WIDTH, blank, time_colours
from jaxdiff.files import write_whole
from jaxdiff.run import Run
from jaxdiff.tasks.pointmaze.scores import MazeRollouts, plan_paths
from jaxdiff.tasks.pointmaze.world import GOAL_RADIUS, TIME_STEP, Maze, cell_to_xy

_WALL, _AVOID, _VIA = "#c3c8d0", "#cc79a7", "#0072b2"
_BORDER = 0.35  # part of an outer wall's thickness that is shown


def _draw_maze(axes: Axes, maze: Maze) -> None:
    """Draw the walls, one polygon a wall cell, in axes that show just the maze."""
    wall = np.array([[cell == "#" for cell in row] for row in maze.map])
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    cells = cell_to_xy(maze, np.argwhere(wall))[:, None] + corners
    # The edges in the faces' colour hide the seams between neighbours.
    axes.add_collection(
        PolyCollection(list(cells), color=_WALL, linewidth=0.6, gid="walls")
    )
    rows, columns = maze.shape
    half_x, half_y = columns / 2 - 1 + _BORDER, rows / 2 - 1 + _BORDER
    axes.set(xlim=(-half_x, half_x), ylim=(-half_y, half_y), aspect="equal")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _draw_plan(axes: Axes, plan: ArrayLike, size: float) -> PathCollection:
    """Draw a path `[H, 2]` as points coloured from its first step to its last."""
    plan = np.asarray(plan)
    if plan.ndim != 2 or plan.shape[1] != 2:
        raise ValueError(f"a path has shape [H, 2], not {list(plan.shape)}")
    time = np.linspace(0.0, 1.0, len(plan))
    return axes.scatter(
        *plan.T, c=time, s=size, cmap=time_colours(), vmin=0.0, vmax=1.0,
        linewidths=0, zorder=3, gid="plan",
    )  # fmt: skip


def _draw_start(axes: Axes, start: ArrayLike, size: float) -> None:
    axes.scatter(
        *np.asarray(start), s=4 * size, facecolor="white", edgecolor=INK,
        linewidth=1.3, zorder=5, gid="start",
    )  # fmt: skip


def _draw_goal(axes: Axes, goal: ArrayLike, size: float) -> None:
    x, y = np.asarray(goal)
    disc = Circle(
        (x, y), GOAL_RADIUS, color=ACCENT, alpha=0.16, linewidth=0, zorder=2,
        gid="reached",
    )  # fmt: skip
    axes.add_patch(disc)
    axes.scatter(
        x, y, s=9 * size, marker="*", color=ACCENT, edgecolor="white", linewidth=0.6,
        zorder=6, gid="goal",
    )  # fmt: skip


def _draw_region(axes: Axes, region: ArrayLike) -> None:
    x, y, radius = np.asarray(region)
    disc = Circle(
        (x, y), radius, facecolor=_AVOID, edgecolor=_AVOID, alpha=0.35, hatch="////",
        linewidth=0.8, zorder=2, gid="avoid",
    )  # fmt: skip
    axes.add_patch(disc)


def _draw_waypoint(axes: Axes, point: ArrayLike, size: float) -> None:
    axes.scatter(
        *np.asarray(point), s=5 * size, marker="D", color=_VIA, edgecolor="white",
        linewidth=0.6, zorder=6, gid="via",
    )  # fmt: skip


def _panels(
    maze: Maze, count: int, columns: int, *, margin: float = 0.9
) -> tuple[Figure, list[Axes], float]:
    """Lay out mazes in a grid; also return the area of points, in square points.

    The margin, in inches, holds the key of colours beside the panels.
    """
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    height, width = (length - 2 + 2 * _BORDER for length in maze.shape)
    # A panel of a lone row of few columns would be larger than it deserves.
    panel = min(WIDTH / columns, 3.2 * max(1.0, width / height))
    size = (columns * panel + margin, rows * (panel * height / width + 0.28))
    figure = blank(size, layout="compressed")
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    for one in axes:
        _draw_maze(one, maze)
    points_per_metre = 72 * panel / width
    return figure, axes, float(np.clip((0.12 * points_per_metre) ** 2, 9.0, 30.0))


def _add_time_key(figure: Figure, axes: list[Axes], plan: PathCollection) -> None:
    shrink = min(1.0, 1.6 / figure.get_figheight())
    bar = figure.colorbar(
        plan, ax=axes, fraction=0.05, pad=0.015, shrink=shrink, aspect=16
    )
    bar.set_ticks([0.0, 1.0], labels=["first step", "last step"])
    for label, place in zip(bar.ax.get_yticklabels(), ("bottom", "top"), strict=True):
        label.set_verticalalignment(place)
    bar.ax.tick_params(labelsize=SMALL, length=0, labelcolor=INK)
    bar.outline.set_visible(False)  # type: ignore[operator]


def plot_plans(
    maze: Maze,
    plans: Sequence[ArrayLike] | np.ndarray,
    *,
    executed: Sequence[ArrayLike] | np.ndarray | None = None,
    starts: ArrayLike | None = None,
    goals: ArrayLike | None = None,
    avoid: Sequence[ArrayLike] | np.ndarray | None = None,
    via: Sequence[ArrayLike] | np.ndarray | None = None,
    titles: Sequence[str] | None = None,
    columns: int = 4,
) -> Figure:
    """Draw plans, one a panel: their points, and the path that was driven as a line.

    Args:
      maze: the maze.
      plans: P paths `[H, 2]`; their horizons may differ.
      executed: P paths `[T, 2]` that were driven.
      starts: `[P, 2]`, drawn as open circles.
      goals: `[P, 2]`, drawn as stars in the disc in which the goal counts as reached.
      avoid: P times `[3]` or `[R, 3]`, centres and radii of discs to keep out of, drawn
        hatched.
      via: P times `[2]` or `[W, 2]`, points to pass, drawn as diamonds.
      titles: P texts.
      columns: panels in a row.
    """
    if not len(plans):
        raise ValueError("there are no plans to draw")
    figure, axes, size = _panels(maze, len(plans), columns)
    for i, (one, plan) in enumerate(zip(axes, plans, strict=True)):
        points = _draw_plan(one, plan, size)
        if executed is not None:
            one.plot(
                *np.asarray(executed[i]).T, color=INK, linewidth=0.9, zorder=4,
                solid_capstyle="round", gid="executed",
            )  # fmt: skip
        if starts is not None:
            _draw_start(one, np.asarray(starts)[i], size)
        if goals is not None:
            _draw_goal(one, np.asarray(goals)[i], size)
        if avoid is not None:
            for region in np.reshape(avoid[i], (-1, 3)):
                _draw_region(one, region)
        if via is not None:
            for point in np.reshape(via[i], (-1, 2)):
                _draw_waypoint(one, point, size)
        if titles is not None:
            one.set_title(titles[i], fontsize=TEXT, color=INK, pad=4)
    _add_time_key(figure, axes, points)
    return figure


def plot_denoising(
    maze: Maze,
    path: ArrayLike,
    *,
    frames: int = 6,
    start: ArrayLike | None = None,
    goal: ArrayLike | None = None,
) -> Figure:
    """Draw one plan at several noise levels, from noise to the plan.

    Points outside the maze are not shown.

    Args:
      maze: the maze.
      path: `[S+1, H, 2]`, the samples after 0, 1, ..., S denoising steps.
      frames: panels, evenly spread over the steps.
      start: `[2]`, drawn if given.
      goal: `[2]`, drawn if given.
    """
    path = np.asarray(path)
    steps = len(path) - 1
    shown = np.unique(np.linspace(0, steps, frames).round().astype(int))
    figure, axes, size = _panels(maze, len(shown), len(shown))
    for one, step in zip(axes, shown, strict=True):
        points = _draw_plan(one, path[step], size)
        if start is not None:
            _draw_start(one, start, size)
        if goal is not None:
            _draw_goal(one, goal, size)
        one.set_title(f"step {step} of {steps}", fontsize=TEXT, color=INK, pad=4)
    _add_time_key(figure, axes, points)
    return figure


def plot_horizons(
    maze: Maze, plans: Mapping[int, ArrayLike], goal: ArrayLike
) -> Figure:
    """Draw plans of one problem, one panel for each horizon.

    Args:
      maze: the maze.
      plans: horizon H -> path `[H, 2]`, all from one start.
      goal: `[2]`.
    """
    paths = [np.asarray(plans[horizon]) for horizon in sorted(plans)]
    return plot_plans(
        maze,
        paths,
        starts=np.stack([path[0] for path in paths]),
        goals=np.tile(np.asarray(goal), (len(paths), 1)),
        titles=[f"horizon {horizon}" for horizon in sorted(plans)],
    )


def animate_episode(
    maze: Maze,
    observations: ArrayLike,
    plan: ArrayLike,
    goal: ArrayLike,
    path: str | pathlib.Path,
    *,
    every: int = 5,
) -> None:
    """Write an episode as a GIF that runs in real time.

    Args:
      maze: the maze.
      observations: `[T+1, >=2]`, whose first two entries are the position.
      plan: `[H, 2]`, the first plan.
      goal: `[2]`.
      path: the file; parent folders are made.
      every: steps between frames; the last step is always shown.

    Raises:
      UserError: the file cannot be written.
    """
    position = np.asarray(observations)[:, :2]
    figure, (axes,), size = _panels(maze, 1, 1, margin=0.0)
    _draw_plan(axes, plan, 0.6 * size).set_alpha(0.55)
    _draw_goal(axes, goal, size)
    (trail,) = axes.plot([], [], color=INK, linewidth=1.4, zorder=4)
    ball = axes.scatter(*position[0], s=4 * size, color=INK, zorder=7)
    last = len(position) - 1
    shown = [*range(0, last, every), last]
    frames = []
    canvas = FigureCanvasAgg(figure)
    for step in shown:
        trail.set_data(*position[: step + 1].T)
        ball.set_offsets(position[step])
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    # One palette for all frames lets their still parts compress to nothing. It holds
    # averages of colours, so its lightest ones are set to plain white.
    palette = frames[0].quantize(256, Image.Quantize.MAXCOVERAGE)
    levels = palette.getpalette() or []
    palette.putpalette([255 if level >= 250 else level for level in levels])
    frames = [
        frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames
    ]
    milliseconds = round(1000 * every * TIME_STEP)
    with writing(path, "choose another path"):
        write_whole(
            pathlib.Path(path).resolve(),
            lambda file: frames[0].save(
                file, format="GIF", save_all=True, append_images=frames[1:], loop=0,
                duration=[milliseconds] * (len(frames) - 1) + [1000],
            ),
        )  # fmt: skip


def plot_episodes(run: Run, played: MazeRollouts, *, count: int = 8) -> Figure:
    """Draw the first episodes: their first plans, and the paths that were driven.

    Args:
      run: that played; not read.
      played: its episodes. Those of a policy that does not plan show the path alone.
      count: number of episodes.
    """
    del run
    driven = played.observations[:count, :, :2]
    plans = plan_paths(played)[:count] if played.plans is not None else driven[:, :1]
    return plot_plans(
        played.maze,
        plans,
        executed=driven,
        starts=driven[:, 0],
        goals=None if played.goals is None else played.goals[:count],
        titles=[f"return {value:.0f}" for value in played.returns[:count]],
    )
