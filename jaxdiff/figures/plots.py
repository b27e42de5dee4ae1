"""General plots of results: bars, curves, sweeps, returns and heat maps.

Rows of results have `setting`, `method`, `metric`, `value`, `low` and `high`, the last
two being a 95% interval.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from jaxdiff.errors import UserError
from jaxdiff.figures.style import (
    ACCENT,
    EDGE,
    INK,
    PALETTE,
    RULE,
    SMALL,
    TEXT,
    draw_band,
    plain_axes,
    plain_grid,
    time_colours,
)

_SCORES = {"score", "d4rl_score"}  # 0 is a random policy, 100 the expert


def plot_scores(rows: Sequence[Mapping[str, Any]], *, metric: str = "score") -> Figure:
    """Draw results as horizontal bars with 95% intervals, grouped by setting.

    Args:
      rows: results. Those of other metrics are passed over, and a row without a metric
        counts as this one.
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
    figure, axes = plain_axes((6.4, 0.55 + 0.25 * count))

    place, ticks, names = 0.0, [], []
    for setting in settings:
        axes.text(
            -0.015, place, setting, transform=axes.get_yaxis_transform(), ha="right",
            va="center", fontsize=TEXT, fontweight="bold", color=INK,
        )  # fmt: skip
        for row in (row for row in rows if row["setting"] == setting):
            place += 1.0
            colour = PALETTE[methods.index(row["method"]) % len(PALETTE)]
            _draw_bar(axes, place, row, colour, decimals)
            ticks.append(place)
            names.append(row["method"])
        place += 1.35
    axes.set_yticks(ticks, labels=names)
    axes.set_ylim(place - 0.6, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.02)
    axes.set_xlabel(metric.replace("_", " "), fontsize=TEXT, color=INK)
    if metric in _SCORES:
        for value, name in ((0, "random"), (100, "expert")):
            axes.axvline(
                value, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=2.5
            )
            axes.text(
                value, 1.01, name, transform=axes.get_xaxis_transform(), ha="center",
                fontsize=SMALL, color=INK,
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
            [low, high], [place, place], color=INK, linewidth=1.3, marker="|",
            markersize=5, zorder=3, gid="interval",
        )  # fmt: skip
        end = max(value, high)
    axes.annotate(
        f"{value:.{decimals}f}", (max(end, 0.0), place), (6, 0),
        textcoords="offset points", va="center", fontsize=SMALL, color=INK,
        annotation_clip=False, bbox={"facecolor": "white", "linewidth": 0, "pad": 1.0},
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
    figure, axes = plain_axes((6.4, 3.4))
    learners = list(dict.fromkeys(record.get("learner", "") for record in records))
    for i, learner in enumerate(learners):
        mine = [record for record in records if record.get("learner", "") == learner]
        axes.plot(
            [record["step"] for record in mine],
            [record[key] for record in mine],
            color=PALETTE[i % len(PALETTE)], linewidth=1.4, label=learner,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("gradient step", fontsize=TEXT, color=INK)
    axes.set_ylabel(key.replace("_", " "), fontsize=TEXT, color=INK)
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    if len(learners) > 1:
        axes.legend(fontsize=SMALL, frameon=False)
    return figure


def plot_sweep(
    rows: Sequence[Mapping[str, Any]], *, label: str, logarithmic: bool = True
) -> Figure:
    """Draw results against a number, a panel a metric, with bands of 95%.

    Args:
      rows: results. A setting ends in the number, such as "k=4".
      label: what the number is.
      logarithmic: make the axis of the number logarithmic.
    """
    if not rows:
        raise ValueError("there are no results to draw")
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    figure, (panels,) = plain_grid(1, len(metrics), (3.4 * len(metrics), 2.9))
    for axes, metric in zip(panels, metrics, strict=True):
        mine = sorted((row for row in rows if row["metric"] == metric), key=_number)
        number = np.array([_number(row) for row in mine])
        draw_band(
            axes, number, mine, colour=PALETTE[0], linewidth=1.4, marker="o",
            markersize=4,
        )  # fmt: skip
        if logarithmic:
            axes.set_xscale("log")
        place = np.log(number) if logarithmic else number
        axes.set_xticks(number, labels=_spaced(number, place), minor=False)
        axes.set_xticks([], minor=True)
        axes.set_ylim(bottom=min(0.0, *(row["low"] for row in mine)))
        axes.set_xlabel(label, fontsize=SMALL, color=INK)
        axes.set_title(metric.replace("_", " "), fontsize=TEXT, color=INK)
        axes.grid(axis="y", color=RULE, linewidth=0.7)
        axes.set_axisbelow(True)
    return figure


def _number(row: Mapping[str, Any]) -> float:
    return float(row["setting"].rpartition("=")[2])


def _spaced(number: np.ndarray, place: np.ndarray) -> list[str]:
    """Label numbers along an axis; one too close to the last label gets none."""
    labels, last = [], -np.inf
    for each, at in zip(number, place, strict=True):
        apart = at - last >= 0.06 * np.ptp(place)
        labels.append(f"{each:g}" if apart else "")
        last = at if apart else last
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
