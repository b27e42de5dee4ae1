"""Pictures of PushT: episodes from above."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from jaxdiff.figures.style import EDGE, INK, PALETTE, TEXT, blank
from jaxdiff.tasks.pusht.world import GOAL, TABLE, outline

_GOAL, _BLOCK = "#a8ddb5", "#b0b8c4"
_WAYS = {1: PALETTE[0], -1: PALETTE[1]}


def plot_pushes(
    episodes: Mapping[str, Sequence[np.ndarray]], ways: Mapping[str, Sequence[int]]
) -> Figure:
    """Draw the agent's paths, coloured by the way round the block.

    The goal is green, the block is grey where the first episode begins, and an outline
    shows where each episode ends.

    Args:
      episodes: panel -> the observations `[T + 1, 5]` of each episode.
      ways: panel -> -1 or 1 for each episode, see `world.way_round`.
    """
    columns = min(5, len(episodes))
    rows = -(-len(episodes) // columns)
    figure = blank((2.6 * columns, 2.8 * rows))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(episodes) :]:
        axes.set_axis_off()
    for axes, title in zip(panels, episodes, strict=False):
        _draw_pushes(axes, episodes[title], ways[title])
        axes.set_title(title, fontsize=TEXT, color=INK)
    return figure


def _draw_pushes(
    axes: Axes, episodes: Sequence[np.ndarray], ways: Sequence[int]
) -> None:
    axes.add_patch(Polygon(outline(np.asarray(GOAL)), color=_GOAL, gid="goal"))
    axes.add_patch(Polygon(outline(episodes[0][0, 2:]), color=_BLOCK, gid="start"))
    for observations, way in zip(episodes, ways, strict=True):
        end = outline(observations[-1, 2:])
        axes.add_patch(
            Polygon(end, fill=False, edgecolor=INK, linewidth=0.4, alpha=0.5)
        )
        axes.plot(
            *observations[:, :2].T, color=_WAYS[way], linewidth=0.8, alpha=0.6,
            gid="agent",
        )  # fmt: skip
        axes.plot(*observations[0, :2], "o", color=INK, markersize=3)
    axes.set(xlim=(0, TABLE), ylim=(TABLE, 0), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_color(EDGE)
