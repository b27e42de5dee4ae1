"""Pictures of Doom: what the demonstrator aims at, and how players turn at first."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jaxdiff.figures.style import ACCENT, INK, PALETTE, SMALL, TEXT, blank
from jaxdiff.tasks.doom.world import HEIGHT, WIDTH, Monster


def plot_sights(
    sights: Sequence[tuple[np.ndarray, Sequence[Monster], int]], *, columns: int = 3
) -> Figure:
    """Draw what the demonstrator sees: boxes, and the one that it aims at.

    Args:
      sights: pictures `[150, 280, 3]`, the monsters in each, and the number of the
        target, -1 for none.
      columns: pictures side by side.
    """
    rows = -(-len(sights) // columns)
    figure = blank((2.9 * columns, 1.62 * rows))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (picture, monsters, target) in zip(grid, sights, strict=False):
        axes.imshow(picture, extent=(0, WIDTH, HEIGHT, 0))
        axes.plot(WIDTH / 2, HEIGHT / 2, "+", color="white", markersize=7)
        for one in monsters:
            aimed = one.number == target
            box = Rectangle((one.left, one.top), one.width, one.height, fill=False)
            box.set(
                edgecolor=ACCENT if aimed else "white",
                linewidth=1.6 if aimed else 0.8,
                gid="target" if aimed else "other",
            )
            axes.add_patch(box)
        axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    for axes in grid:
        axes.axis("off")
    return figure


def plot_first_turns(
    picture: np.ndarray, turns: Mapping[str, np.ndarray], *, seconds: float
) -> Figure:
    """Draw how far players turn at first, all from the same picture.

    Args:
      picture: `[150, 280, 3]`, what all of them see.
      turns: method -> degrees to the right `[N]`.
      seconds: time in which they turned.
    """
    figure = blank((3.2 + 1.7 * len(turns), 2.1))
    widths = [2.0, *[1.0] * len(turns)]
    first, *others = figure.subplots(1, 1 + len(turns), width_ratios=widths)
    first.imshow(picture)
    first.axis("off")
    end = max(10.0, *(float(np.abs(x).max()) for x in turns.values()))
    edges = np.linspace(-end, end, 26)
    for axes, (method, found) in zip(others, turns.items(), strict=True):
        axes.hist(found, edges, color=PALETTE[0], gid=method)
        axes.axvline(0, color=INK, linewidth=0.5)
        axes.set(yticks=[])
        axes.set_xlabel(f"degrees in {seconds:.2f} s", fontsize=SMALL)
        axes.set_title(method, fontsize=TEXT, color=INK)
        axes.tick_params(labelsize=SMALL)
        axes.spines[["top", "right", "left"]].set_visible(False)
    return figure
