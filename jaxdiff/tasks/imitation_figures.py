"""Pictures of imitation: what policies do, drawn over what they see.

As in `jaxdiff.figures`, every function takes arrays and returns a new matplotlib Figure
that belongs to nobody else; `figures.save` writes it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

from jaxdiff.tasks.claw import world as claw
from jaxdiff.tasks.doom import world as doom
from jaxdiff.tasks.pusht import world as pusht

_PANEL = 1.25  # inches
_TEXT = 9.0  # points
_INK, _MISS = "#24292f", "#d55e00"
_WAYS = {1: "#0072b2", -1: "#e69f00"}
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def draw_actions(
    family: claw.Family, actions: Mapping[str, np.ndarray], *, most: int = 300
) -> Figure:
    """Draw actions at the claw machine: a column a scene, a row a method.

    Points on a toy are dark, points beside one vermilion; lines enclose the toys.

    Args:
      family: of S scenes.
      actions: of each method, `[S, N, 2]`; those outside the picture are not shown.
      most: only so many first ones of a scene are drawn.
    """
    scenes = claw.scenes(family)
    size = (len(scenes) * _PANEL + 0.4, len(actions) * _PANEL)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)  # type: ignore[union-attr]
    grid = figure.subplots(len(actions), len(scenes), squeeze=False)
    middles = (np.arange(claw.MASK) + 0.5) / claw.MASK
    for row, (method, drawn) in zip(grid, actions.items(), strict=True):
        # Names such as "exact guidance, w = 4" are longer than a row is high.
        row[0].set_ylabel(method.replace(", ", "\n"), fontsize=_TEXT, color=_INK)
        for axes, scene, points in zip(row, scenes, drawn, strict=True):
            # Faded, for the points are what is to be seen.
            faded = 0.45 * scene.image / 255 + 0.55
            axes.imshow(faded, extent=(0, 1, 1, 0), interpolation="nearest")
            axes.contour(
                middles, middles, scene.labels >= 0, [0.5], colors=_INK, linewidths=0.5
            )
            points = np.asarray(points)[:most]
            hit = claw.toy_of(scene, points) >= 0
            for name, mine, colour in (("hit", hit, _INK), ("miss", ~hit, _MISS)):
                axes.scatter(
                    *points[mine].T, s=3.0, color=colour, alpha=0.45, linewidths=0,
                    gid=name,
                )  # fmt: skip
            axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
            axes.spines[:].set_color("#c3c8d0")
    return figure


def plot_pushes(
    episodes: Mapping[str, Sequence[np.ndarray]], ways: Mapping[str, Sequence[int]]
) -> Figure:
    """Draw episodes of PushT from above: the agent's paths, coloured by the way round.

    The goal is green, the block grey where the first episode begins, and an outline
    where each ends.

    Args:
      episodes: panel -> of each episode the observations `[T + 1, 5]`.
      ways: panel -> of each -1 or 1, such as `jaxdiff.tasks.pusht.world.way_round` tells.
    """
    columns = min(5, len(episodes))
    rows = -(-len(episodes) // columns)
    size = (2.6 * columns, 2.8 * rows)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(episodes) :]:
        axes.set_axis_off()
    for axes, title in zip(panels, episodes, strict=False):
        _draw_pushes(axes, episodes[title], ways[title])
        axes.set_title(title, fontsize=_TEXT, color=_INK)
    return figure


def _draw_pushes(
    axes: Axes, episodes: Sequence[np.ndarray], ways: Sequence[int]
) -> None:
    goal = np.asarray(pusht.GOAL)
    axes.add_patch(Polygon(pusht.outline(goal), color="#a8ddb5", gid="goal"))
    begin = pusht.outline(episodes[0][0, 2:])
    axes.add_patch(Polygon(begin, color="#b0b8c4", gid="start"))
    for observations, way in zip(episodes, ways, strict=True):
        end = pusht.outline(observations[-1, 2:])
        axes.add_patch(
            Polygon(end, fill=False, edgecolor=_INK, linewidth=0.4, alpha=0.5)
        )
        axes.plot(
            *observations[:, :2].T, color=_WAYS[way], linewidth=0.8, alpha=0.6,
            gid="agent",
        )  # fmt: skip
        axes.plot(*observations[0, :2], "o", color=_INK, markersize=3)
    axes.set(
        xlim=(0, pusht.TABLE), ylim=(pusht.TABLE, 0), aspect="equal", xticks=[],
        yticks=[],
    )  # fmt: skip
    axes.spines[:].set_color("#c3c8d0")


def plot_times(times: Mapping[str, np.ndarray], *, shaded: str, horizon: int) -> Figure:
    """Draw when tasks were done: a panel for the first, second, ... k-th of an episode.

    A line rises with the share of episodes in which so many tasks had been done after
    so many steps; what is missing to 1 at its end are episodes in which they never
    were.

    Args:
      times: of each method the steps `[N, K]`, NaN where they were not.
      shaded: the method, such as the demonstrator, that is shown as an area.
      horizon: steps of an episode.
    """
    columns = next(iter(times.values())).shape[1]
    figure = Figure(
        figsize=(2.1 * columns + 0.4, 2.3), facecolor="white", layout="constrained"
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, columns, squeeze=False, sharey=True)[0]
    steps = np.arange(horizon + 1)
    for k, axes in enumerate(grid):
        colours = iter(_LINES * len(times))
        for method, table in times.items():
            # NaN is never reached.
            share = (np.asarray(table)[:, k, None] <= steps).mean(0)
            if method == shaded:
                axes.fill_between(
                    steps, share, color="#d5dae2", linewidth=0, label=method, gid=method
                )
            else:
                axes.plot(
                    steps, share, color=next(colours), linewidth=1.3, label=method,
                    gid=method,
                )  # fmt: skip
        axes.set(xlim=(0, horizon), ylim=(0, 1.02), xlabel="steps")
        axes.set_title(f"tasks done: {k + 1}", fontsize=_TEXT, color=_INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=_TEXT - 1)
    grid[0].set_ylabel("share of episodes", fontsize=_TEXT, color=_INK)
    grid[0].legend(fontsize=_TEXT - 2, facecolor="white", edgecolor="none")
    return figure


def plot_sights(
    sights: Sequence[tuple[np.ndarray, Sequence[doom.Monster], int]],
    *,
    columns: int = 3,
) -> Figure:
    """Draw what the demonstrator of Doom sees: boxes, and the one that it aims at.

    Args:
      sights: pictures `[150, 280, 3]`, the monsters in each, and the number of the one
        aimed at, -1 for none.
      columns: pictures side by side.
    """
    rows = -(-len(sights) // columns)
    figure = Figure(
        figsize=(2.9 * columns, 1.62 * rows), facecolor="white", layout="constrained"
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (picture, monsters, target) in zip(grid, sights, strict=False):
        axes.imshow(picture, extent=(0, doom.WIDTH, doom.HEIGHT, 0))
        axes.plot(doom.WIDTH / 2, doom.HEIGHT / 2, "+", color="white", markersize=7)
        for one in monsters:
            aimed = one.number == target
            box = Rectangle((one.left, one.top), one.width, one.height, fill=False)
            box.set(
                edgecolor=_MISS if aimed else "white",
                linewidth=1.6 if aimed else 0.8,
                gid="target" if aimed else "other",
            )
            axes.add_patch(box)
        axes.set(xlim=(0, doom.WIDTH), ylim=(doom.HEIGHT, 0))
    for axes in grid:
        axes.axis("off")
    return figure


def plot_first_turns(
    picture: np.ndarray, turns: Mapping[str, np.ndarray], *, seconds: float
) -> Figure:
    """Draw how far players turn at first, all from the same picture of Doom.

    Args:
      picture: `[150, 280, 3]`, what all of them see.
      turns: of each method, degrees to the right `[N]`.
      seconds: after so long.
    """
    figure = Figure(
        figsize=(3.2 + 1.7 * len(turns), 2.1), facecolor="white", layout="constrained"
    )
    FigureCanvasAgg(figure)
    widths = [2.0, *[1.0] * len(turns)]
    first, *others = figure.subplots(1, 1 + len(turns), width_ratios=widths)
    first.imshow(picture)
    first.axis("off")
    end = max(10.0, *(float(np.abs(x).max()) for x in turns.values()))
    edges = np.linspace(-end, end, 26)
    for axes, (method, found) in zip(others, turns.items(), strict=True):
        axes.hist(found, edges, color=_LINES[0], gid=method)
        axes.axvline(0, color=_INK, linewidth=0.5)
        axes.set(yticks=[], xlabel=f"degrees in {seconds:.2f} s")
        axes.set_title(method, fontsize=_TEXT, color=_INK)
        axes.tick_params(labelsize=_TEXT - 2)
        axes.xaxis.label.set_size(_TEXT - 2)
        axes.spines[["top", "right", "left"]].set_visible(False)
    return figure
