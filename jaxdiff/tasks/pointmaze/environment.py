"""PointMaze's environments, and what policies see of them."""

import pathlib
from typing import Any, Literal

import gymnasium
import numpy as np

from jaxdiff.data.spec import Environment
from jaxdiff.tasks.control import as_seen, make_raw, split
from jaxdiff.tasks.pointmaze.world import Maze, environment_of, maze_of

# Which goal an episode has: one of its own, or the one of D4RL's task.
Setting = Literal["multi", "single"]


def make_env(environment: Environment, options: Any = None) -> gymnasium.Env:
    """Make the environment of a maze as policies see and are scored in it.

    Rewards are sparse, the goal stays, and episodes last the maze's own number of
    steps, whatever the environment that data were recorded in did.

    Args:
      environment: the maze.
      options: `setting` says which goal a reset gives, unless it names one itself;
        None for one of its own.

    Raises:
      UserError: the environment is no maze, or the simulator is not installed.
    """
    maze, setting = maze_of(environment), options and options.setting
    return as_seen(_Resetting(make_maze(maze), reset_options(maze, setting)), split)


class _Resetting(gymnasium.Wrapper):
    """Resets with options of its own where none are given."""

    def __init__(self, env: gymnasium.Env, options: dict[str, Any] | None) -> None:
        super().__init__(env)
        self._options = options

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> Any:
        """Begin an episode."""
        options = self._options if options is None else options
        return self.env.reset(seed=seed, options=options)


def make_maze(
    maze: Maze, *, reset_target: bool = False, max_episode_steps: int | None = None
) -> gymnasium.Env:
    """Make the Gymnasium environment of a maze: sparse reward, never terminating.

    Args:
      maze: the maze.
      reset_target: draw a new goal whenever one is reached (how data are collected);
        otherwise the goal stays and every step near it pays (how policies are scored).
      max_episode_steps: time limit; the maze's own by default.

    Raises:
      UserError: the simulator is not installed.
    """
    environment = environment_of(maze)
    if max_episode_steps is not None:
        environment = environment._replace(max_episode_steps=max_episode_steps)
    env = make_raw(environment, reset_target=reset_target)
    # The model is loaded by now. Every instance would leave its XML file in the
    # temporary folder.
    model_file = getattr(env.unwrapped, "tmp_xml_file_path", None)
    if model_file is not None:
        pathlib.Path(model_file).unlink(missing_ok=True)
    return env


def reset_options(maze: Maze, setting: Setting | None) -> dict[str, Any] | None:
    """Return the options of a reset to a goal of the setting; of None, to any goal.

    The environment draws every goal within 0.25 m of its cell's centre, in x and in y.
    """
    return {"goal_cell": np.asarray(maze.goal_cell)} if setting == "single" else None
