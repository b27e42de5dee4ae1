"""Maps of mazes that users draw: how they are written, and what must hold.

A map is one string for each row of cells. "#" or "1" is a wall; ".", "0" and a space
are free. The outermost cells are walls, and a path joins every two free cells.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxdiff.errors import UserError, reason

_WALLS, _FREE = "#1", ".0 "
_MARKED = "rgc"  # free cells of Gymnasium's maps where episodes may start or end


def read_map(path: str | os.PathLike) -> tuple[str, ...]:
    """Read a map from a text file, one line for each row of cells.

    Returns:
      One string per row; "#" is a wall, "." is free.

    Raises:
      UserError: the file cannot be read, or its map is no maze.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"the map {os.fspath(path)} cannot be read ({reason(error)}); name a text "
            "file with one line for each row of cells"
        ) from error
    return parse_map(text.rstrip().splitlines())


def parse_map(cells: Sequence[Sequence[Any]]) -> tuple[str, ...]:
    """Check a map and spell it in "#" and ".".

    Args:
      cells: rows of characters, or of the numbers and letters of Gymnasium's maps.

    Raises:
      UserError: it is no maze.
    """
    rows = tuple(
        "".join("#" if str(x) in _WALLS else "." for x in row) for row in cells
    )
    if len({len(row) for row in rows}) > 1:
        lengths = ", ".join(str(len(row)) for row in rows)
        raise UserError(
            f"the rows of the map have {lengths} cells; all rows must have as many"
        )
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            if str(cell) not in {*_WALLS, *_FREE, *_MARKED}:
                raise UserError(
                    f"row {i}, column {j} of the map is {cell!r}; write '#' or '1' for "
                    "a wall, and '.', '0' or a space for a free cell"
                )
    free = {(i, j) for i, row in enumerate(rows) for j, x in enumerate(row) if x == "."}
    if len(free) < 2:
        raise UserError("the map needs at least 2 free cells, a start and a goal")
    last = len(rows) - 1, len(rows[0]) - 1
    if any(i in (0, last[0]) or j in (0, last[1]) for i, j in free):
        raise UserError(
            "the border of the map is open; its first and last rows and columns must "
            "be walls"
        )
    _check_connected(free)
    return rows


def _check_connected(free: set[tuple[int, int]]) -> None:
    start = min(free)
    seen, waiting = {start}, [start]
    while waiting:
        i, j = waiting.pop()
        near = {(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)} & free - seen
        seen |= near
        waiting += near
    if seen != free:
        row, column = min(free - seen)
        raise UserError(
            f"the cell {row},{column} of the map cannot be reached from "
            f"{start[0]},{start[1]}; connect them, or make one of them a wall"
        )
