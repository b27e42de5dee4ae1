"""PointMaze: the mazes, their cells, and shortest paths through them.

A ball of radius 0.1 is pushed by a bounded force through a maze of unit cells. An
observation is (x, y, vx, vy) in metres and metres per second, an action is a force in
[-1, 1]^2, and one step lasts 0.01 s. The centre of the maze is the origin. Cells are
counted (row, column) from the upper left, so the centre of a cell lies at

    x = column + 1/2 - columns / 2,        y = rows / 2 - row - 1/2.                (1)

Three mazes and the constants of their scores follow D4RL's maze2d (Fu et al., 2020,
arXiv:2004.07219). The constants of other mazes derive from the longest shortest path
between two cells.
"""

import collections
import dataclasses
import functools
import os
from typing import Any

import numpy as np

from jaxdiff.data.spec import Environment
from jaxdiff.errors import UserError
from jaxdiff.tasks.pointmaze.maps import parse_map, read_map

GOAL_RADIUS = 0.45  # m; the environment pays 1 per step within it
TIME_STEP = 0.01  # s

_STEPS_PER_CELL = 50  # of an episode, for each step of the longest shortest path


@dataclasses.dataclass(frozen=True)
class Maze:
    """Geometry of one maze and the constants of its task.

    Attributes:
      name: "umaze", "medium" or "large", or the size of a map that a user drew.
      map: one string per row of cells; "#" is a wall, "." is free.
      environment: Gymnasium id.
      max_episode_steps: length of an evaluation episode.
      goal_cell: (row, column) of the one goal of the setting "single".
      d4rl_random: return that D4RL's score maps to 0; None for mazes D4RL lacks.
      d4rl_expert: return that D4RL's score maps to 100; None for mazes D4RL lacks.
    """

    name: str
    map: tuple[str, ...]
    environment: str
    max_episode_steps: int
    goal_cell: tuple[int, int]
    d4rl_random: float | None = None
    d4rl_expert: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Count rows and columns."""
        return len(self.map), len(self.map[0])


MAZES: dict[str, Maze] = {
    maze.name: maze
    for maze in (
        Maze(
            name="umaze",
            map=(
                "#####",
                "#...#",
                "###.#",
                "#...#",
                "#####",
            ),
            environment="PointMaze_UMaze-v3",
            max_episode_steps=300,
            goal_cell=(1, 1),
            d4rl_random=23.85,
            d4rl_expert=161.86,
        ),
        Maze(
            name="medium",
            map=(
                "########",
                "#..##..#",
                "#..#...#",
                "##...###",
                "#..#...#",
                "#.#..#.#",
                "#...#..#",
                "########",
            ),
            environment="PointMaze_Medium-v3",
            max_episode_steps=600,
            goal_cell=(6, 6),
            d4rl_random=13.13,
            d4rl_expert=277.39,
        ),
        Maze(
            name="large",
            map=(
                "############",
                "#....#.....#",
                "#.##.#.#.#.#",
                "#......#...#",
                "#.####.###.#",
                "#..#.#.....#",
                "##.#.#.#.###",
                "#..#...#...#",
                "############",
            ),
            environment="PointMaze_Large-v3",
            max_episode_steps=800,
            goal_cell=(7, 9),
            d4rl_random=6.7,
            d4rl_expert=273.99,
        ),
    )
}


def maze_by_name(name: str) -> Maze:
    """Look up one of D4RL's mazes.

    Raises:
      UserError: there is no such maze; the message lists those there are.
    """
    if name not in MAZES:
        raise UserError(f"there is no maze {name!r}; choose one of {', '.join(MAZES)}")
    return MAZES[name]


def maze_of_file(path: str | os.PathLike) -> Maze:
    """Read a maze from a text file, see `jaxdiff.tasks.pointmaze.maps`.

    Raises:
      UserError: the file cannot be read, or its map is no maze.
    """
    return _maze(read_map(path), MAZES["umaze"].environment)


def maze_of(environment: Environment) -> Maze:
    """Return the maze of an environment: of its `maze_map`, else of its exact id.

    Raises:
      UserError: a map that is no maze, or another id and no map.
    """
    if "maze_map" in environment.kwargs:
        return _maze(parse_map(environment.kwargs["maze_map"]), environment.id)
    for maze in MAZES.values():
        if environment.id == maze.environment:
            return maze
    raise UserError(
        f"the environment {environment.id} has no `maze_map`, and its id is none of "
        f"{', '.join(maze.environment for maze in MAZES.values())}"
    )


def environment_of(maze: Maze) -> Environment:
    """Return the environment of a maze, which `maze_of` turns back into the maze."""
    kwargs = {}
    if maze not in MAZES.values():
        kwargs["maze_map"] = [[int(cell == "#") for cell in row] for row in maze.map]
    return Environment(maze.environment, kwargs, maze.max_episode_steps)


def _maze(rows: tuple[str, ...], environment: str) -> Maze:
    for known in MAZES.values():
        if known.map == rows:
            return known
    maze = Maze(f"own-{len(rows)}x{len(rows[0])}", rows, environment, 1, (1, 1))
    length, end = longest_path(maze)
    steps = _STEPS_PER_CELL * length
    return dataclasses.replace(maze, max_episode_steps=steps, goal_cell=end)


@functools.cache
def free_table(maze: Maze) -> np.ndarray:
    """Tell which cells are free: bool `[rows, columns]`."""
    return np.array([[cell != "#" for cell in row] for row in maze.map])


def free_cells(maze: Maze) -> np.ndarray:
    """List the free cells, row by row: int64 `[F, 2]` of (row, column)."""
    return np.argwhere(free_table(maze))


def cell_to_xy(maze: Maze, cell: Any) -> np.ndarray:
    """Return centres of cells (equation 1): `[..., 2]` ints -> `[..., 2]` metres."""
    cell = np.asarray(cell)
    rows, columns = maze.shape
    x = cell[..., 1] + 0.5 - columns / 2
    y = rows / 2 - cell[..., 0] - 0.5
    return np.stack([x, y], axis=-1)


def xy_to_cell(maze: Maze, xy: Any) -> np.ndarray:
    """Return the cells that hold points: `[..., 2]` metres -> `[..., 2]` int64.

    Points outside the maze give cells outside the map.
    """
    xy = np.asarray(xy)
    rows, columns = maze.shape
    row = np.floor(rows / 2 - xy[..., 1])
    column = np.floor(xy[..., 0] + columns / 2)
    return np.stack([row, column], axis=-1).astype(np.int64)


def is_free(maze: Maze, xy: Any) -> np.ndarray:
    """Tell which points lie in a free cell: `[..., 2]` -> bool `[...]`.

    Walls, points outside the maze and points that are not finite are not free.
    """
    xy = np.asarray(xy, dtype=np.float64)
    finite = np.isfinite(xy).all(-1)
    cell = xy_to_cell(maze, np.where(np.isfinite(xy), xy, 0.0))
    inside = np.logical_and(cell >= 0, cell < np.array(maze.shape)).all(-1)
    cell = np.where(np.expand_dims(inside, -1), cell, 0)
    return finite & inside & free_table(maze)[cell[..., 0], cell[..., 1]]


def require_free(maze: Maze, xy: Any, what: str) -> None:
    """Check that one point can be a start or a goal.

    Args:
      maze: the maze.
      xy: `[2]`, metres.
      what: name of the point in the message, such as "start".

    Raises:
      UserError: the point lies in a wall or outside the maze.
    """
    if is_free(maze, xy):
        return
    x, y = (float(value) for value in np.asarray(xy))
    rows, columns = maze.shape
    inside = abs(x) <= columns / 2 and abs(y) <= rows / 2
    where = "in a wall of" if inside else "outside"
    raise UserError(
        f"the {what} ({x:g}, {y:g}) lies {where} the maze {maze.name!r}; its free "
        f"cells (row,column) are {' '.join(f'{r},{c}' for r, c in free_cells(maze))}"
    )


@functools.cache
def next_cells(maze: Maze) -> np.ndarray:
    """Tabulate shortest paths: int64 `[rows * columns, rows * columns]`.

    Entry [g, c] is the flat index (row * columns + column) of the cell to enter next
    when standing in c and going to g, found by breadth-first search from each goal.
    Walls, and the goal itself, point to themselves.
    """
    rows, columns = maze.shape
    free = free_table(maze)
    table = np.tile(np.arange(rows * columns), (rows * columns, 1))
    for goal in free_cells(maze):
        goal_index = goal[0] * columns + goal[1]
        seen = {tuple(goal)}
        queue = collections.deque(seen)
        while queue:
            row, column = queue.popleft()
            for step in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                cell = (row + step[0], column + step[1])
                if free[cell] and cell not in seen:
                    seen.add(cell)
                    queue.append(cell)
                    table[goal_index, cell[0] * columns + cell[1]] = (
                        row * columns + column
                    )
    return table


@functools.cache
def longest_path(maze: Maze) -> tuple[int, tuple[int, int]]:
    """Return the steps of the longest shortest path between cells, and one end."""
    columns = maze.shape[1]
    cells = free_cells(maze) @ [columns, 1]
    goals = np.repeat(cells[:, None], len(cells), axis=1)
    at, length = np.repeat(cells[None], len(cells), axis=0), 0
    end = goals[0, 0]
    table: Any = next_cells(maze)
    while (moving := at != goals).any():
        end = goals[moving][0]
        at, length = table[goals, at], length + 1
    row, column = divmod(int(end), columns)
    return length, (row, column)
