"""The waypoint expert of PointMaze, which records data and sets the upper score.

It drives from cell to cell along a shortest path of the grid by the law of D4RL's
maze2d (Fu et al., 2020),

    action = clip(kp (waypoint - position) - kd velocity + noise, -1, 1).           (1)
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdiff.tasks.pointmaze.world import Maze, cell_to_xy, next_cells, xy_to_cell

_WAYPOINT_RADIUS = 0.1
_WAYPOINT_JITTER = 0.1
_KP, _KD = 10.0, 1.0


class Expert:
    """Drives in B mazes side by side, without noise; a policy for rollouts.

    Args:
      maze: the maze.
      num_envs: B.
      seeds: the first one seeds the jitter of all waypoints.
    """

    def __init__(self, maze: Maze, num_envs: int = 1, seeds: Any = (0,)) -> None:
        self._maze, self._num_envs = maze, num_envs
        self.reset(seeds=seeds)

    def __call__(self, observation: np.ndarray, goal: Any = None) -> np.ndarray:
        """Return actions `[B, 2]` for observations `[B, 4]` and goals `[B, 2]`."""
        action, self._state = expert_action(
            self._maze, self._state, observation, goal, self._rng
        )
        return action

    def reset(self, mask: Any = None, seeds: Sequence[int] | None = None) -> None:
        """Begin new episodes: forget the waypoints, and draw from new seeds if given.

        Waypoints are forgotten where `mask [B]` is true, by default everywhere.
        """
        if seeds is not None:
            self._rng = np.random.default_rng(seeds[0])
        fresh = expert_init(self._num_envs)
        if mask is not None:
            for name, value in vars(self._state).items():
                kept = ~np.asarray(mask, bool)
                getattr(fresh, name)[kept] = value[kept]
        self._state = fresh


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
    """Drive along a shortest path to the goal (equation 1).

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
    action = _KP * error - _KD * velocity
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
