"""Pictures of the claw machine: actions over what a policy sees."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from jaxdiff.figures.style import ACCENT, EDGE, INK, TEXT, blank
from jaxdiff.tasks.claw import world as claw

_PANEL = 1.25  # inches


def plot_actions(
    family: claw.Family, actions: Mapping[str, np.ndarray], *, most: int = 300
) -> Figure:
    """Draw actions in every scene: a column a scene, a row a method.

    Points on a toy are dark, others vermilion; lines enclose the toys.

    Args:
      family: name of a family of S scenes.
      actions: method -> `[S, N, 2]`; points outside the picture are not shown.
      most: number of points that are drawn in a panel, the first ones.
    """
    scenes = claw.scenes(family)
    figure = blank((len(scenes) * _PANEL + 0.4, len(actions) * _PANEL))
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)  # type: ignore[union-attr]
    grid = figure.subplots(len(actions), len(scenes), squeeze=False)
    middles = (np.arange(claw.MASK) + 0.5) / claw.MASK
    for row, (method, drawn) in zip(grid, actions.items(), strict=True):
        # Names such as "exact guidance, w = 4" are longer than a row is high.
        row[0].set_ylabel(method.replace(", ", "\n"), fontsize=TEXT, color=INK)
        for axes, scene, points in zip(row, scenes, drawn, strict=True):
            # The picture is faded, so that points stand out.
            faded = 0.45 * scene.image / 255 + 0.55
            axes.imshow(faded, extent=(0, 1, 1, 0), interpolation="nearest")
            axes.contour(
                middles, middles, scene.labels >= 0, [0.5], colors=INK, linewidths=0.5
            )
            points = np.asarray(points)[:most]
            hit = claw.toy_of(scene, points) >= 0
            for name, mine, colour in (("hit", hit, INK), ("miss", ~hit, ACCENT)):
                axes.scatter(
                    *points[mine].T, s=3.0, color=colour, alpha=0.45, linewidths=0,
                    gid=name,
                )  # fmt: skip
            axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
            axes.spines[:].set_color(EDGE)
    return figure
