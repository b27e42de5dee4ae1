"""Pictures: plans in mazes, denoising, scores, training curves, animated episodes.

Every function takes arrays or rows of results and returns a new matplotlib Figure that
belongs to nobody else: no pyplot, no global settings, no display. Positions are metres
in the maze's frame, where its centre is the origin. Colours are safe for colour-blind
readers: time runs along viridis, categories along the palette of Okabe and Ito (2008).
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from numpy.typing import ArrayLike
from PIL import Image

from jaxdiff.errors import UserError, writing
from jaxdiff.tasks.pointmaze.world import GOAL_RADIUS, TIME_STEP, Maze, cell_to_xy

_WIDTH = 9.0  # inches; at 150 dots per inch about twice the width of a README's column
_SMALL, _TEXT = 8.0, 9.0  # points
_WALL, _INK, _GOAL = "#c3c8d0", "#24292f", "#d55e00"
_AVOID, _VIA = "#cc79a7", "#0072b2"
_OKABE_ITO = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7"),
    *("#56b4e9", "#d55e00", "#f0e442", "#7f7f7f"),
)
_FORMATS = FigureCanvasAgg.get_supported_filetypes()
_BORDER = 0.35  # of an outer wall's thickness is shown
_SCORES = {"score", "d4rl_score"}  # 0 is a random policy, 100 the expert


def _time_colours() -> Colormap:
    """Viridis without its last yellows, which vanish on white paper."""
    viridis = matplotlib.colormaps["viridis"]
    return ListedColormap(viridis(np.linspace(0.0, 0.93, 256)))


def save(figure: Figure, path: str | pathlib.Path, *, dpi: int = 150) -> None:
    """Write a figure, in the format of the file's ending, making parent folders.

    Raises:
      UserError: the file cannot be written, or its ending names no known format.
    """
    if pathlib.Path(path).suffix[1:].lower() not in _FORMATS:
        raise UserError(
            f"the picture {path} has an ending that names no known format; use .png, "
            ".pdf or .svg"
        )
    with writing(path, "choose another path"):
        figure.savefig(path, dpi=dpi, facecolor="white", bbox_inches="tight")


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
        *plan.T, c=time, s=size, cmap=_time_colours(), vmin=0.0, vmax=1.0,
        linewidths=0, zorder=3, gid="plan",
    )  # fmt: skip


def _draw_start(axes: Axes, start: ArrayLike, size: float) -> None:
    axes.scatter(
        *np.asarray(start), s=4 * size, facecolor="white", edgecolor=_INK,
        linewidth=1.3, zorder=5, gid="start",
    )  # fmt: skip


def _draw_goal(axes: Axes, goal: ArrayLike, size: float) -> None:
    x, y = np.asarray(goal)
    disc = Circle(
        (x, y), GOAL_RADIUS, color=_GOAL, alpha=0.16, linewidth=0, zorder=2,
        gid="reached",
    )  # fmt: skip
    axes.add_patch(disc)
    axes.scatter(
        x, y, s=9 * size, marker="*", color=_GOAL, edgecolor="white", linewidth=0.6,
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
    """Lay out mazes in a grid; also give the points' area, in square points.

    The margin, in inches, is room for the key of colours beside the panels.
    """
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    height, width = (length - 2 + 2 * _BORDER for length in maze.shape)
    # A panel of a lone row of few columns would be larger than it deserves.
    panel = min(_WIDTH / columns, 3.2 * max(1.0, width / height))
    size = (columns * panel + margin, rows * (panel * height / width + 0.28))
    figure = Figure(figsize=size, facecolor="white", layout="compressed")
    FigureCanvasAgg(figure)
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
    bar.ax.tick_params(labelsize=_SMALL, length=0, labelcolor=_INK)
    bar.outline.set_visible(False)  # type: ignore[operator]


def plot_plans(
    maze: Maze,
    plans: Sequence[ArrayLike] | np.ndarray,
    *,
    executed: Sequence[ArrayLike] | np.ndarray | None = None,
    starts: ArrayLike | None = None,
    goals: ArrayLike | None = None,
    avoid: Sequence[ArrayLike] | np.ndarray | None = None,
    via: ArrayLike | None = None,
    titles: Sequence[str] | None = None,
    columns: int = 4,
) -> Figure:
    """Draw one panel a problem: the plan's points, and what came of it as a line.

    Args:
      maze: the maze.
      plans: P paths `[H, 2]`; their horizons may differ.
      executed: P paths `[T, 2]` that were driven.
      starts: `[P, 2]`, drawn as open circles.
      goals: `[P, 2]`, drawn as stars in the disc in which the goal counts as reached.
      avoid: P times `[3]` or `[R, 3]`, centres and radii of regions to stay out of,
        drawn hatched.
      via: `[P, 2]`, points to pass, drawn as diamonds.
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
                *np.asarray(executed[i]).T, color=_INK, linewidth=0.9, zorder=4,
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
            _draw_waypoint(one, np.asarray(via)[i], size)
        if titles is not None:
            one.set_title(titles[i], fontsize=_TEXT, color=_INK, pad=4)
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
    """Draw a strip from noise to plan; points beyond the maze are not shown.

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
        one.set_title(f"step {step} of {steps}", fontsize=_TEXT, color=_INK, pad=4)
    _add_time_key(figure, axes, points)
    return figure


def plot_horizons(
    maze: Maze, plans: Mapping[int, ArrayLike], goal: ArrayLike
) -> Figure:
    """Draw plans of one problem, a panel a horizon.

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


def plot_scores(rows: Sequence[Mapping[str, Any]], *, metric: str = "score") -> Figure:
    """Draw results as horizontal bars with 95% intervals, grouped by setting.

    Args:
      rows: results with setting, method, metric, value, low and high; those of other
        metrics are passed over, and a row without a metric counts as this one.
      metric: what to draw. Scores get reference lines at 0 (random) and 100 (expert).

    Raises:
      UserError: no row has this metric.
    """
    rows = [row for row in rows if row.get("metric", metric) == metric]
    if not rows:
        raise UserError(
            f"no result has the metric {metric!r}; there is nothing to draw"
        )
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    decimals = 1 if max(abs(row["value"]) for row in rows) >= 10 else 2
    count = len(rows) + len(settings)
    figure, axes = _plain_axes((6.4, 0.55 + 0.25 * count))

    place, ticks, names = 0.0, [], []
    for setting in settings:
        axes.text(
            -0.015, place, setting, transform=axes.get_yaxis_transform(), ha="right",
            va="center", fontsize=_TEXT, fontweight="bold", color=_INK,
        )  # fmt: skip
        for row in (row for row in rows if row["setting"] == setting):
            place += 1.0
            colour = _OKABE_ITO[methods.index(row["method"]) % len(_OKABE_ITO)]
            _draw_bar(axes, place, row, colour, decimals)
            ticks.append(place)
            names.append(row["method"])
        place += 1.35
    axes.set_yticks(ticks, labels=names)
    axes.set_ylim(place - 0.6, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.02)
    axes.set_xlabel(metric.replace("_", " "), fontsize=_TEXT, color=_INK)
    if metric in _SCORES:
        for value, name in ((0, "random"), (100, "expert")):
            axes.axvline(
                value, color=_INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=2.5
            )
            axes.text(
                value, 1.01, name, transform=axes.get_xaxis_transform(), ha="center",
                fontsize=_SMALL, color=_INK,
            )  # fmt: skip
    return figure


def _draw_bar(
    axes: Axes, place: float, row: Mapping[str, Any], colour: str, decimals: int
) -> None:
    value, low, high = row["value"], row.get("low"), row.get("high")
    axes.barh(place, value, height=0.72, color=colour, zorder=2)
    end = value
    if low is not None and high is not None:
        axes.plot(
            [low, high], [place, place], color=_INK, linewidth=1.3, marker="|",
            markersize=5, zorder=3, gid="interval",
        )  # fmt: skip
        end = max(value, high)
    axes.annotate(
        f"{value:.{decimals}f}", (max(end, 0.0), place), (6, 0),
        textcoords="offset points", va="center", fontsize=_SMALL, color=_INK,
        annotation_clip=False, bbox={"facecolor": "white", "linewidth": 0, "pad": 1.0},
    )  # fmt: skip


def plot_arrivals(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw score and success against the horizon of a plan, one column a maze.

    Args:
      rows: results with setting (a maze), method (`fixed-H`, H being the horizon, or
        `earliest`, a line across), metric (`score` or `success`), value, low and high.

    Raises:
      UserError: no row is of a fixed horizon.
    """
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    if not any(row["method"].startswith("fixed-") for row in rows):
        raise UserError("no result is of a fixed horizon; there is nothing to draw")
    metrics = ("score", "success")
    figure, grid = _plain_grid(
        len(metrics), len(settings), (1 + 2.6 * len(settings), 4.6)
    )
    for column, setting in enumerate(settings):
        for line, metric in enumerate(metrics):
            axes = grid[line][column]
            mine = [
                row
                for row in rows
                if (row["setting"], row["metric"]) == (setting, metric)
            ]
            fixed = sorted(
                (int(row["method"].partition("-")[2]), row)
                for row in mine
                if row["method"].startswith("fixed-")
            )
            horizons = [horizon for horizon, _ in fixed]
            _draw_band(axes, horizons, [row for _, row in fixed], 0, "one horizon")
            for row in (row for row in mine if row["method"] == "earliest"):
                ends = [horizons[0], horizons[-1]]
                _draw_band(axes, ends, [row, row], 1, "earliest arrival")
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
            if column == 0:
                axes.set_ylabel(metric, fontsize=_TEXT, color=_INK)
            if line == 0:
                axes.set_title(setting, fontsize=_TEXT, color=_INK)
        grid[-1][column].set_xlabel("horizon, steps", fontsize=_TEXT, color=_INK)
    grid[-1][0].legend(fontsize=_SMALL, frameon=False, loc="lower right")
    return figure


def _draw_band(
    axes: Axes,
    x: Sequence[float],
    rows: Sequence[Mapping[str, Any]],
    colour: int,
    label: str,
) -> None:
    """Draw values and their intervals as a line in a band."""
    shown = _OKABE_ITO[colour]
    axes.plot(
        x, [row["value"] for row in rows], color=shown, linewidth=1.6, label=label,
        marker="o" if len(x) > 2 else None, markersize=3,
    )  # fmt: skip
    axes.fill_between(
        x, [row["low"] for row in rows], [row["high"] for row in rows],
        color=shown, alpha=0.18, linewidth=0,
    )  # fmt: skip


def plot_curve(records: Sequence[Mapping[str, Any]], *, key: str = "loss") -> Figure:
    """Draw a training curve, one line a learner, on a logarithmic axis.

    Args:
      records: lines of metrics.jsonl, each with `learner`, `step` and some metrics.
      key: the metric; records without it are passed over.

    Raises:
      UserError: no record has this metric.
    """
    records = [record for record in records if key in record]
    if not records:
        raise UserError(f"no record has the metric {key!r}; there is nothing to draw")
    figure, axes = _plain_axes((6.4, 3.4))
    learners = list(dict.fromkeys(record.get("learner", "") for record in records))
    for i, learner in enumerate(learners):
        mine = [record for record in records if record.get("learner", "") == learner]
        axes.plot(
            [record["step"] for record in mine],
            [record[key] for record in mine],
            color=_OKABE_ITO[i % len(_OKABE_ITO)], linewidth=1.4, label=learner,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("gradient step", fontsize=_TEXT, color=_INK)
    axes.set_ylabel(key.replace("_", " "), fontsize=_TEXT, color=_INK)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    if len(learners) > 1:
        axes.legend(fontsize=_SMALL, frameon=False)
    return figure


def plot_sweep(
    rows: Sequence[Mapping[str, Any]], *, label: str, logarithmic: bool = True
) -> Figure:
    """Draw results against a number, a panel a metric, with bands of 95%.

    Args:
      rows: results with setting, metric, value, low and high. A setting ends in the
        number, such as "k=4".
      label: what the number is.
      logarithmic: the axis of the number.
    """
    if not rows:
        raise ValueError("there are no results to draw")
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    figure, (panels,) = _plain_grid(1, len(metrics), (3.4 * len(metrics), 2.9))
    for axes, metric in zip(panels, metrics, strict=True):
        mine = sorted(
            (float(row["setting"].rpartition("=")[2]), row["value"], row["low"],
             row["high"])
            for row in rows
            if row["metric"] == metric
        )  # fmt: skip
        number, value, low, high = np.array(mine).T
        axes.fill_between(
            number, low, high, color=_OKABE_ITO[0], alpha=0.18, linewidth=0, gid="band"
        )
        axes.plot(
            number, value, color=_OKABE_ITO[0], linewidth=1.4, marker="o", markersize=4
        )
        if logarithmic:
            axes.set_xscale("log")
        place = np.log(number) if logarithmic else number
        axes.set_xticks(number, labels=_spaced(number, place), minor=False)
        axes.set_xticks([], minor=True)
        axes.set_ylim(bottom=min(0.0, low.min()))
        axes.set_xlabel(label, fontsize=_SMALL, color=_INK)
        axes.set_title(metric.replace("_", " "), fontsize=_TEXT, color=_INK)
        axes.grid(axis="y", color="#e6e8eb", linewidth=0.7)
        axes.set_axisbelow(True)
    return figure


def _spaced(number: np.ndarray, place: np.ndarray) -> list[str]:
    """Write numbers at their places along an axis, but for those that have no room."""
    labels, last = [], -np.inf
    for each, at in zip(number, place, strict=True):
        room = at - last >= 0.06 * np.ptp(place)
        labels.append(f"{each:g}" if room else "")
        last = at if room else last
    return labels


def plot_returns(
    counts: ArrayLike,
    edges: ArrayLike,
    *,
    low: float,
    high: float,
    target: float,
    label: str = "return to the end of the episode",
) -> Figure:
    """Draw the returns of a dataset, their scale, and what is asked for.

    Args:
      counts: `[N]`, rows of the dataset in each bin.
      edges: `[N + 1]`, of the bins.
      low: return that counts as 0.
      high: return that counts as 1.
      target: what is asked for, on that scale.
      label: what the returns are.
    """
    counts, edges = np.asarray(counts), np.asarray(edges)
    figure, axes = _plain_axes((6.4, 2.6))
    axes.stairs(
        counts / max(counts.sum(), 1), edges, fill=True, color=_OKABE_ITO[0], alpha=0.5
    )
    asked = low + target * (high - low)
    for value, name, colour in (
        (low, "0", _INK),
        (high, "1", _INK),
        (asked, f"asked for, {target:.2f}", _GOAL),
    ):
        axes.axvline(value, color=colour, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.annotate(
            name, (value, 1.0), (0, 3 if colour == _INK else 14),
            xycoords=axes.get_xaxis_transform(), textcoords="offset points",
            ha="center", fontsize=_SMALL, color=colour,
        )  # fmt: skip
    axes.set_xlabel(label, fontsize=_TEXT, color=_INK)
    axes.set_ylabel("share of the data", fontsize=_TEXT, color=_INK)
    return figure


def plot_guidance(
    returns: ArrayLike,
    *,
    scales: Sequence[float],
    stops: Sequence[int],
    steps: Sequence[int],
) -> Figure:
    """Draw heat maps of what settings of guidance earn, a panel a number of steps.

    The best cell is framed, and cells without a return are hatched.

    Args:
      returns: `[steps, stops, scales]` mean returns, NaN for a setting that failed.
      scales: across.
      stops: up.
      steps: a panel each.
    """
    returns = np.asarray(returns, float)
    if returns.shape != (len(steps), len(stops), len(scales)) or not returns.size:
        raise ValueError(
            f"returns have shape {list(returns.shape)}, and there are {len(steps)} "
            f"panels of {len(stops)} rows and {len(scales)} columns"
        )
    known = returns[np.isfinite(returns)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    width = max(1.7, 0.62 * len(scales) + 0.7)
    size = (len(steps) * width + 1.0, 0.42 * len(stops) + 1.1)
    figure, (panels,) = _plain_grid(1, len(steps), size)
    for i, axes in enumerate(panels):
        image = axes.imshow(
            np.ma.masked_invalid(returns[i]), origin="lower", aspect="auto",
            cmap=_time_colours(), vmin=low, vmax=high,
        )  # fmt: skip
        for (row, column), value in np.ndenumerate(returns[i]):
            if not np.isfinite(value):
                _draw_cell(axes, row, column, "failed", fill=False, hatch="////",
                           edgecolor="#8c959f", linewidth=0)  # fmt: skip
                continue
            # White on the dark half of the colours.
            ink = "white" if value - low < 0.6 * (high - low) else _INK
            axes.text(
                column, row, f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}",
                ha="center", va="center", fontsize=_SMALL, color=ink,
            )  # fmt: skip
        axes.set_xticks(range(len(scales)), labels=[f"{scale:g}" for scale in scales])
        axes.set_yticks(range(len(stops)), labels=list(map(str, stops)))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(
            f"{steps[i]} {'step' if steps[i] == 1 else 'steps'} of guidance",
            fontsize=_TEXT, color=_INK,
        )  # fmt: skip
        axes.set_xlabel("scale", fontsize=_SMALL, color=_INK)
    panels[0].set_ylabel("stop level", fontsize=_SMALL, color=_INK)
    if known.size:
        best = np.unravel_index(np.nanargmax(returns), returns.shape)
        _draw_cell(panels[best[0]], int(best[1]), int(best[2]), "best", fill=False,
                   edgecolor=_GOAL, linewidth=2.4)  # fmt: skip
        bar = figure.colorbar(image, ax=panels, pad=0.02, aspect=16)
        bar.ax.tick_params(labelsize=_SMALL, length=0, labelcolor=_INK)
        bar.set_label("mean return", fontsize=_SMALL, color=_INK)
        bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def _draw_cell(axes: Axes, row: int, column: int, gid: str, **style: Any) -> None:
    """Draw a rectangle over a cell of a heat map."""
    corner = (column - 0.5, row - 0.5)
    axes.add_patch(Rectangle(corner, 1, 1, zorder=3, clip_on=False, gid=gid, **style))


def _plain_axes(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure, grid = _plain_grid(1, 1, size)
    return figure, grid[0][0]


def _plain_grid(
    lines: int, columns: int, size: tuple[float, float]
) -> tuple[Figure, Any]:
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[:].set_color("#8c959f")
        axes.tick_params(labelsize=_SMALL, color="#8c959f", labelcolor=_INK)
    return figure, grid


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
      observations: `[T+1, >=2]`, of which the first two entries are the position.
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
    (trail,) = axes.plot([], [], color=_INK, linewidth=1.4, zorder=4)
    ball = axes.scatter(*position[0], s=4 * size, color=_INK, zorder=7)
    last = len(position) - 1
    shown = [*range(0, last, every), last]
    frames = []
    canvas = FigureCanvasAgg(figure)
    for step in shown:
        trail.set_data(*position[: step + 1].T)
        ball.set_offsets(position[step])
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    # One palette for all frames, so that their still parts compress to nothing; it
    # holds averages of colours, of which the lightest is to be plain white.
    palette = frames[0].quantize(256, Image.Quantize.MAXCOVERAGE)
    levels = palette.getpalette() or []
    palette.putpalette([255 if level >= 250 else level for level in levels])
    frames = [
        frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames
    ]
    milliseconds = round(1000 * every * TIME_STEP)
    with writing(path, "choose another path"):
        frames[0].save(
            path, format="GIF", save_all=True, append_images=frames[1:], loop=0,
            duration=[milliseconds] * (len(frames) - 1) + [1000],
        )  # fmt: skip
