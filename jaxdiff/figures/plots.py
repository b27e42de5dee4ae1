"""General plots of results: returns of a dataset, and heat maps of guidance."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from jaxdiff.figures.style import (
    ACCENT,
    EDGE,
    INK,
    PALETTE,
    SMALL,
    TEXT,
    plain_axes,
    plain_grid,
    time_colours,
)


def plot_returns(
    counts: ArrayLike,
    edges: ArrayLike,
    *,
    low: float,
    high: float,
    target: float,
    label: str = "return to the end of the episode",
) -> Figure:
    """Draw the returns of a dataset, the scale they are put on, and the target.

    Args:
      counts: `[N]`, rows of the dataset in each bin.
      edges: `[N + 1]`, of the bins.
      low: return that counts as 0.
      high: return that counts as 1.
      target: return that plans are asked for, on that scale.
      label: what the returns are.
    """
    counts, edges = np.asarray(counts), np.asarray(edges)
    figure, axes = plain_axes((6.4, 2.6))
    axes.stairs(
        counts / max(counts.sum(), 1), edges, fill=True, color=PALETTE[0], alpha=0.5
    )
    asked = low + target * (high - low)
    for value, name, colour in (
        (low, "0", INK),
        (high, "1", INK),
        (asked, f"asked for, {target:.2f}", ACCENT),
    ):
        axes.axvline(value, color=colour, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.annotate(
            name, (value, 1.0), (0, 3 if colour == INK else 14),
            xycoords=axes.get_xaxis_transform(), textcoords="offset points",
            ha="center", fontsize=SMALL, color=colour,
        )  # fmt: skip
    axes.set_xlabel(label, fontsize=TEXT, color=INK)
    axes.set_ylabel("share of the data", fontsize=TEXT, color=INK)
    return figure


def plot_guidance(
    returns: ArrayLike,
    *,
    scales: Sequence[float],
    stops: Sequence[int],
    steps: Sequence[int],
) -> Figure:
    """Draw heat maps of the returns of settings of guidance.

    There is one panel for each number of steps. The best cell is framed, and cells
    without a return are hatched.

    Args:
      returns: `[steps, stops, scales]` mean returns, NaN for a setting that failed.
      scales: strengths of guidance, one a column.
      stops: levels at which guidance stops, one a row.
      steps: numbers of steps, one a panel.
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
    figure, (panels,) = plain_grid(1, len(steps), size)
    for i, axes in enumerate(panels):
        image = axes.imshow(
            np.ma.masked_invalid(returns[i]), origin="lower", aspect="auto",
            cmap=time_colours(), vmin=low, vmax=high,
        )  # fmt: skip
        for (row, column), value in np.ndenumerate(returns[i]):
            if not np.isfinite(value):
                _draw_cell(axes, row, column, "failed", fill=False, hatch="////",
                           edgecolor=EDGE, linewidth=0)  # fmt: skip
                continue
            # White on the dark half of the colours.
            ink = "white" if value - low < 0.6 * (high - low) else INK
            axes.text(
                column, row, f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}",
                ha="center", va="center", fontsize=SMALL, color=ink,
            )  # fmt: skip
        axes.set_xticks(range(len(scales)), labels=[f"{scale:g}" for scale in scales])
        axes.set_yticks(range(len(stops)), labels=list(map(str, stops)))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(
            f"{steps[i]} {'step' if steps[i] == 1 else 'steps'} of guidance",
            fontsize=TEXT, color=INK,
        )  # fmt: skip
        axes.set_xlabel("scale", fontsize=SMALL, color=INK)
    panels[0].set_ylabel("stop level", fontsize=SMALL, color=INK)
    if known.size:
        best = np.unravel_index(np.nanargmax(returns), returns.shape)
        _draw_cell(panels[best[0]], int(best[1]), int(best[2]), "best", fill=False,
                   edgecolor=ACCENT, linewidth=2.4)  # fmt: skip
        bar = figure.colorbar(image, ax=panels, pad=0.02, aspect=16)
        bar.ax.tick_params(labelsize=SMALL, length=0, labelcolor=INK)
        bar.set_label("mean return", fontsize=SMALL, color=INK)
        bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def _draw_cell(axes: Axes, row: int, column: int, gid: str, **style: Any) -> None:
    """Draw a rectangle over a cell of a heat map."""
    corner = (column - 0.5, row - 0.5)
    axes.add_patch(Rectangle(corner, 1, 1, zorder=3, clip_on=False, gid=gid, **style))
