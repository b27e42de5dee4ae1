"""What all pictures share: colours, sizes of text, empty axes, and how one is saved.

Colours are safe for colour-blind readers: time runs along viridis, and categories have
the palette of Okabe and Ito (2008).
"""

import pathlib
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure

from jaxdiff.errors import UserError, writing
from jaxdiff.files import write_whole

WIDTH = 9.0  # inches; at 150 dots per inch about twice the width of a README's column
SMALL, TEXT = 8.0, 9.0  # points
INK, EDGE, RULE = "#24292f", "#8c959f", "#e6e8eb"  # text, axes, lines of a grid
ACCENT = "#d55e00"
PALETTE = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7"),
    *("#56b4e9", "#d55e00", "#f0e442", "#7f7f7f"),
)
_FORMATS = FigureCanvasAgg.get_supported_filetypes()


def time_colours() -> Colormap:
    """Return viridis without its last yellows, which vanish on white paper."""
    viridis = matplotlib.colormaps["viridis"]
    return ListedColormap(viridis(np.linspace(0.0, 0.93, 256)))


def blank(size: tuple[float, float], *, layout: str = "constrained") -> Figure:
    """Return an empty white figure of a size in inches that needs no display."""
    figure = Figure(figsize=size, facecolor="white", layout=layout)  # type: ignore
    FigureCanvasAgg(figure)
    return figure


def plain_axes(size: tuple[float, float]) -> tuple[Figure, Axes]:
    """Return a figure of one pair of axes; see `plain_grid`."""
    figure, grid = plain_grid(1, 1, size)
    return figure, grid[0][0]


def plain_grid(lines: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """Return a figure and its axes `[lines, columns]`, without top and right edges."""
    figure = blank(size)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[:].set_color(EDGE)
        axes.tick_params(labelsize=SMALL, color=EDGE, labelcolor=INK)
    return figure, grid


def format_of(path: str | pathlib.Path) -> str:
    """Return the format that the ending of a picture's file names.

    Raises:
      UserError: it names none.
    """
    form = pathlib.Path(path).suffix[1:].lower()
    if form not in _FORMATS:
        raise UserError(
            f"the picture {path} has an ending that names no known format; use .png, "
            ".pdf or .svg"
        )
    return form


def save(figure: Figure, path: str | pathlib.Path, *, dpi: int = 150) -> None:
    """Write a figure in the format that the file's ending names, and make its folder.

    Raises:
      UserError: the file cannot be written, or its ending names no known format.
    """
    form = format_of(path)
    with writing(path, "choose another path"):
        write_whole(
            pathlib.Path(path).resolve(),
            lambda file: figure.savefig(
                file, format=form, dpi=dpi, facecolor="white", bbox_inches="tight"
            ),
        )
