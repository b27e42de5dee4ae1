"""Pictures that only benchmarks draw."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from jaxdiff.errors import UserError
from jaxdiff.figures.style import INK, PALETTE, SMALL, TEXT, draw_band, plain_grid


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
