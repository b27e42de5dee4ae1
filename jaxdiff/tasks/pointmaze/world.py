"""PointMaze: the mazes, the environment and a waypoint expert.

A ball of radius 0.1 is pushed by a bounded force through a maze of unit cells. An
observation is (x, y, vx, vy) in metres and metres per second, an action is a force in
[-1, 1]^2, and one step lasts 0.01 s. The centre of the maze is the origin; cells are
counted (row, column) from the upper left, so a cell's centre lies at

    x = column + 1/2 - columns / 2,        y = rows / 2 - row - 1/2.                (1)

The expert drives from cell to cell along a shortest path of the grid by the law

    action = clip(kp (waypoint - position) - kd velocity + noise, -1, 1).           (2)

The mazes, the law (2) and the scores follow D4RL's maze2d (Fu et al., 2020,
arXiv:2004.07219). `jaxdiff.algorithms.planning.receding_horizon` has the controller of planners.
"""

import collections
import contextlib
import dataclasses
import functools
import io
import pathlib
import re
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxdiff.errors import UserError

if TYPE_CHECKING:
    import gymnasium

# Which goal an episode has: one of its own, or the one of D4RL's task.
Setting = Literal["multi", "single"]

GOAL_RADIUS = 0.45  # m; the environment pays 1 per step within it
TIME_STEP = 0.01  # s

_WAYPOINT_RADIUS = 0.1
_WAYPOINT_JITTER = 0.1
_EXPERT_KP, _EXPERT_KD = 10.0, 1.0


@dataclasses.dataclass(frozen=True)
class Maze:
    """Geometry of one maze and the constants of its task.

    Attributes:
      name: "umaze", "medium" or "large".
      map: one string per row of cells; "#" is a wall, "." is free.
      environment: Gymnasium id.
      max_episode_steps: length of an evaluation episode.
      goal_cell: (row, column) of the one goal of D4RL's single-task evaluation.
      d4rl_random: return that D4RL's score maps to 0.
      d4rl_expert: return that D4RL's score maps to 100.
    """

    name: str
    map: tuple[str, ...]
    environment: str
    max_episode_steps: int
    goal_cell: tuple[int, int]
    d4rl_random: float
    d4rl_expert: float

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
    """Look up a maze.

    Raises:
      UserError: there is no such maze; the message lists those there are.
    """
    if name not in MAZES:
        raise UserError(f"there is no maze {name!r}; choose one of {', '.join(MAZES)}")
    return MAZES[name]


def maze_of_environment(environment: str | None) -> Maze | None:
    """Look up a maze by its Gymnasium id; None for another environment."""
    for maze in MAZES.values():
        if environment == maze.environment:
            return maze
    return None


@functools.cache
def _free(maze: Maze) -> np.ndarray:
    """Free cells, bool `[rows, columns]`."""
    return np.array([[cell != "#" for cell in row] for row in maze.map])


def free_cells(maze: Maze) -> np.ndarray:
    """List the free cells, row by row: int64 `[F, 2]` of (row, column)."""
    return np.argwhere(_free(maze))


def task_name(maze: str, setting: Setting) -> str:
    """Name a maze with its goals, as recipes and datasets are named after it."""
    return f"{maze}-single" if setting == "single" else maze


def setting_of_dataset(name: str) -> Setting:
    """Tell which goals a dataset pays for, by the end of its name; see `task_name`."""
    return "single" if re.search(r"-single(-v\d+)?$", name) else "multi"


def reset_options(maze: Maze, setting: Setting) -> dict[str, Any] | None:
    """Give the options of a reset to a goal of the setting.

    The environment draws every goal within 0.25 m of its cell's centre, in x and in y.
    """
    return {"goal_cell": np.asarray(maze.goal_cell)} if setting == "single" else None


def cell_to_xy(maze: Maze, cell: Any) -> np.ndarray:
    """Give the centres of cells (equation 1): `[..., 2]` ints -> `[..., 2]` metres."""
    cell = np.asarray(cell)
    rows, columns = maze.shape
    x = cell[..., 1] + 0.5 - columns / 2
    y = rows / 2 - cell[..., 0] - 0.5
    return np.stack([x, y], axis=-1)


def xy_to_cell(maze: Maze, xy: Any) -> np.ndarray:
    """Give the cells that hold points: `[..., 2]` metres -> `[..., 2]` int64.

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
    return finite & inside & _free(maze)[cell[..., 0], cell[..., 1]]


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


def make_env(
    maze_name: str,
    *,
    reset_target: bool = False,
    max_episode_steps: int | None = None,
    render_mode: str | None = None,
) -> "gymnasium.Env":
    """Make the Gymnasium environment: sparse reward, never terminating.

    Args:
      maze_name: a name of `MAZES`.
      reset_target: draw a new goal whenever one is reached (how data are collected);
        otherwise the goal stays and every step near it pays (how agents are scored).
      max_episode_steps: time limit; the maze's own by default.
      render_mode: passed on.

    Raises:
      UserError: unknown maze, or the simulator is not installed.
    """
    maze = maze_by_name(maze_name)
    import gymnasium

    try:
        # Its import prints an advertisement of newer versions of other tasks.
        with contextlib.redirect_stderr(io.StringIO()):
            import gymnasium_robotics
    except ImportError as error:
        raise UserError(
            f"the maze {maze_name!r} needs the MuJoCo simulator; install it with "
            '`pip install "jaxdiff[mujoco]"`'
        ) from error
    gymnasium.register_envs(gymnasium_robotics)
    env = gymnasium.make(
        maze.environment,
        reset_target=reset_target,
        max_episode_steps=max_episode_steps or maze.max_episode_steps,
        render_mode=render_mode,
    )
    # The model is loaded by now; left alone, every instance litters the temporary
    # folder with its XML file.
    model_file = getattr(env.unwrapped, "tmp_xml_file_path", None)
    if model_file is not None:
        pathlib.Path(model_file).unlink(missing_ok=True)
    return env


@functools.cache
def next_cells(maze: Maze) -> np.ndarray:
    """Tabulate shortest paths: int64 `[rows * columns, rows * columns]`.

    Entry [g, c] is the flat index (row * columns + column) of the cell to enter next
    when standing in c and going to g, found by breadth-first search from each goal.
    Walls, and the goal itself, point to themselves.
    """
    rows, columns = maze.shape
    free = _free(maze)
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


@dataclasses.dataclass(frozen=True)
class ExpertState:
    """What the waypoint expert remembers, for B environments.

    Attributes:
      goal: float64 `[B, 2]`, the goal it is heading for.
      waypoint: float64 `[B, 2]`, the point it is driving to.
      cells: int64 `[B, 2]`, flat indices of the cell it set out from and of the
        waypoint's cell; in any other cell it has lost its path.
    """

    goal: np.ndarray
    waypoint: np.ndarray
    cells: np.ndarray


def expert_init(num_envs: int = 1) -> ExpertState:
    """Make the state of an expert that has no waypoint yet and will choose one."""
    return ExpertState(
        goal=np.full((num_envs, 2), np.nan),
        waypoint=np.full((num_envs, 2), np.nan),
        cells=np.full((num_envs, 2), -1),
    )


def expert_action(
    maze: Maze,
    state: ExpertState,
    observation: np.ndarray,
    goal: np.ndarray,
    rng: np.random.Generator,
    *,
    noise: float = 0.0,
) -> tuple[np.ndarray, ExpertState]:
    """Drive along a shortest path to the goal (equation 2).

    A waypoint is the centre of the next cell with a jitter of up to 0.1 m, or the
    exact goal once its cell is next. A new one is chosen when it is reached, when the
    goal has changed and when the ball is in a cell off its path, so the same state
    serves through resets and goal changes.

    Args:
      maze: the maze.
      state: memory of B experts.
      observation: `[B, 4]`, x, y, vx, vy.
      goal: `[B, 2]`, metres.
      rng: source of jitter and noise; advanced.
      noise: standard deviation of the Gaussian noise on the action.

    Returns:
      Actions, float32 `[B, 2]`, and the new state.
    """
    position, velocity = observation[:, :2], observation[:, 2:]
    columns = maze.shape[1]
    cell = xy_to_cell(maze, position)
    cell = cell[:, 0] * columns + cell[:, 1]
    error = state.waypoint - position
    keep = (
        ((error * error).sum(-1) > _WAYPOINT_RADIUS**2)
        & (state.goal == goal).all(-1)
        & (state.cells == cell[:, None]).any(-1)
    )
    if not keep.all():
        state = _choose_waypoints(maze, state, keep, cell, goal, rng)
        error = state.waypoint - position
    action = _EXPERT_KP * error - _EXPERT_KD * velocity
    if noise:
        action = action + noise * rng.standard_normal(action.shape)
    return np.clip(action, -1.0, 1.0).astype(np.float32), state


def _choose_waypoints(
    maze: Maze,
    state: ExpertState,
    keep: np.ndarray,
    cell: np.ndarray,
    goal: np.ndarray,
    rng: np.random.Generator,
) -> ExpertState:
    """Replace the waypoints that are not to be kept."""
    columns = maze.shape[1]
    goal_cell = xy_to_cell(maze, goal)
    goal_cell = goal_cell[:, 0] * columns + goal_cell[:, 1]
    target = next_cells(maze)[goal_cell, cell]
    centre = cell_to_xy(maze, np.stack(np.divmod(target, columns), axis=-1))
    jitter = rng.uniform(-_WAYPOINT_JITTER, _WAYPOINT_JITTER, centre.shape)
    waypoint = np.where((target == goal_cell)[:, None], goal, centre + jitter)
    kept = keep[:, None]
    return ExpertState(
        goal=np.where(kept, state.goal, goal),
        waypoint=np.where(kept, state.waypoint, waypoint),
        cells=np.where(kept, state.cells, np.stack([cell, target], axis=-1)),
    )
