"""Pictures of a kitchen: when tasks were done."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from jaxdiff.figures.style import INK, PALETTE, SMALL, TEXT, plain_grid


def plot_times(
    times: Mapping[str, np.ndarray], *, horizon: int, shaded: str | None = None
) -> Figure:
    """Draw when the first, second, ..., K-th task was done, a panel each.

    A line shows the share of episodes in which that many tasks had been done by a step.
    It stays below 1 by the share of episodes in which they never were.

    Args:
      times: method -> steps `[N, K]`, NaN for tasks that were not done.
      horizon: steps of an episode.
      shaded: method that is shown as an area, such as the demonstrator.
    """
    columns = next(iter(times.values())).shape[1]
    figure, grid = plain_grid(1, columns, (2.1 * columns + 0.4, 2.3))
    steps = np.arange(horizon + 1)
    for k, axes in enumerate(grid[0]):
        colours = iter(PALETTE * len(times))
        for method, table in times.items():
            # A comparison with NaN is false.
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
        axes.set_title(f"tasks done: {k + 1}", fontsize=TEXT, color=INK)
        axes.tick_params(labelleft=k == 0)
    grid[0][0].set_ylabel("share of episodes", fontsize=TEXT, color=INK)
    grid[0][0].legend(fontsize=SMALL, facecolor="white", edgecolor="none")
    return figure
