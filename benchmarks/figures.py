"""Pictures that only benchmarks draw: scores, sweeps and arrivals.

Rows of results have `setting`, `method`, `metric`, `value`, `low` and `high`, the last
two being a 95% interval.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxdiff.errors import UserError
from jaxdiff.figures.style import (
    INK,
    PALETTE,
    RULE,
    SMALL,
    TEXT,
    plain_axes,
    plain_grid,
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


def plot_rates(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw steps a second against the batch, a panel a kind of work.

    Args:
      rows: results. A setting is the work, a comma and "batch = N". Those of metrics
        other than `steps_per_second` are passed over.
    """
    rows = [row for row in rows if row["metric"] == "steps_per_second"]
    kinds = list(dict.fromkeys(row["setting"].rpartition(",")[0] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure, (panels,) = plain_grid(1, len(kinds), (1 + 2.4 * len(kinds), 2.8))
    for axes, kind in zip(panels, kinds, strict=True):
        for method, colour in zip(methods, PALETTE, strict=False):
            mine = [
                row
                for row in rows
                if row["method"] == method and row["setting"].rpartition(",")[0] == kind
            ]
            mine.sort(key=_number)
            draw_band(
                axes, [_number(row) for row in mine], mine, colour=colour,
                linewidth=1.4, marker="o", markersize=4, label=method,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(kind, fontsize=TEXT, color=INK)
        axes.set_xlabel("episodes side by side", fontsize=SMALL, color=INK)
        axes.grid(axis="y", color=RULE, linewidth=0.7)
        axes.set_axisbelow(True)
    for axes in panels[1:]:  # one scale for all
        axes.sharex(panels[0])
        axes.sharey(panels[0])
    panels[0].autoscale()
    panels[0].set_ylabel("steps a second", fontsize=TEXT, color=INK)
    panels[0].legend(fontsize=SMALL, frameon=False)
    return figure


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
    figure, grid = plain_grid(
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
            draw_band(
                axes, horizons, [row for _, row in fixed], colour=PALETTE[0],
                linewidth=1.6, label="one horizon", marker="o", markersize=3,
            )  # fmt: skip
            for row in (row for row in mine if row["method"] == "earliest"):
                draw_band(
                    axes, [horizons[0], horizons[-1]], [row, row], colour=PALETTE[1],
                    linewidth=1.6, label="earliest arrival",
                )  # fmt: skip
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
            if column == 0:
                axes.set_ylabel(metric, fontsize=TEXT, color=INK)
            if line == 0:
                axes.set_title(setting, fontsize=TEXT, color=INK)
        grid[-1][column].set_xlabel("horizon, steps", fontsize=TEXT, color=INK)
    grid[-1][0].legend(fontsize=SMALL, frameon=False, loc="lower right")
    return figure


def draw_band(axes: Axes, x: Any, rows: Any, *, colour: str, **line: Any) -> None:
    """Draw values as a line in a band of their intervals.

    Args:
      axes: to draw in.
      x: `[N]`.
      rows: N results with value, low and high.
      colour: of both.
      **line: further properties of the line.
    """
    value, low, high = ([row[key] for row in rows] for key in ("value", "low", "high"))
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0, gid="band")
    axes.plot(x, value, color=colour, **line)
