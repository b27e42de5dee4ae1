"""Pictures of offline reinforcement learning in the plane.

As in `jaxdiff.figures`, every function takes arrays and returns a new matplotlib
Figure; `figures.save` writes it.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_PANEL = 1.5  # inches
_TEXT = 9.0  # points
_INK, _DATA, _WAY, _REACHED = "#24292f", "#9aa4b2", "#56b4e9", "#d55e00"
_LINES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")


def plot_extraction(
    points: Mapping[str, np.ndarray],
    targets: np.ndarray,
    actions: Mapping[str, np.ndarray],
    *,
    most: int = 1_500,
) -> Figure:
    """Draw where policies end that were drawn to targets: a column a behaviour.

    The data are grey, policies vermilion, and a line leads from each to its target.

    Args:
      points: of each of S behaviours, `[N, 2]`.
      targets: `[T, 2]`.
      actions: of each method, a row of panels, `[S, T, 2]`.
      most: only so many first points of a behaviour are drawn.
    """
    size = (len(points) * _PANEL + 0.3, len(actions) * _PANEL + 0.2)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)  # type: ignore[union-attr]
    grid = figure.subplots(len(actions), len(points), squeeze=False)
    for axes, name in zip(grid[0], points, strict=True):
        axes.set_title(name, fontsize=_TEXT, color=_INK)
    limit = 1.1 * np.abs(targets).max()
    for row, (method, found) in zip(grid, actions.items(), strict=True):
        row[0].set_ylabel(method, fontsize=_TEXT, color=_INK)
        for axes, data, ends in zip(row, points.values(), found, strict=True):
            axes.scatter(*data[:most].T, s=0.6, color=_DATA, linewidths=0, gid="data")
            ways = np.stack([targets, ends], axis=1)
            axes.plot(*ways.T, color=_WAY, linewidth=0.5, zorder=2)
            axes.scatter(
                *ends.T, s=5.0, color=_REACHED, linewidths=0, zorder=3, gid="policies"
            )
            axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color("#c3c8d0")
    return figure


def plot_gradient_noise(
    times: np.ndarray, variances: Mapping[str, np.ndarray]
) -> Figure:
    """Draw the variance of gradients against the time of the noise level.

    Args:
      times: `[L]`.
      variances: by name, `[L]`.
    """
    figure = Figure(figsize=(4.2, 2.6), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for colour, (name, values) in zip(_LINES, variances.items(), strict=False):
        axes.semilogy(times, values, color=colour, label=name)
    axes.set_xlabel("time of the noise level", fontsize=_TEXT)
    axes.set_ylabel("variance of the gradient", fontsize=_TEXT)
    axes.tick_params(labelsize=_TEXT)
    axes.legend(frameon=False, fontsize=_TEXT)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
