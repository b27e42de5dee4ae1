"""The toy kitchen as a Gymnasium environment; importing this module registers it."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from jaxdiff.tasks.kitchen import toy
from jaxdiff.tasks.kitchen.world import (
    HORIZON,
    JOINTS,
    SHOWN,
    TASKS,
    TOY,
    done,
    goals_of,
    seen,
)


class ToyKitchen(gymnasium.Env):
    """Do tasks in any order, see `jaxdiff.tasks.kitchen.toy`.

    Observations, rewards and `info` are those of the Franka kitchen. An observation is
    a dict of `observation` `[59]` and, by task, `achieved_goal` and `desired_goal`. The
    reward is the number of tasks that are done in a step. `info` lists the tasks that
    are left, those done in this step and those done in this episode.

    Args:
      tasks_to_complete: which of `jaxdiff.tasks.kitchen.world.TASKS` count.
      terminate_on_tasks_completed: end an episode when all of them were done.
      remove_task_when_completed: pay for a task once, instead of in every step in which
        it is done.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        tasks_to_complete: Sequence[str] = tuple(TASKS),
        terminate_on_tasks_completed: bool = True,
        remove_task_when_completed: bool = True,
    ) -> None:
        self.tasks = [task for task in TASKS if task in tasks_to_complete]
        self.terminate = terminate_on_tasks_completed
        self.remove = remove_task_when_completed
        goals = spaces.Dict(
            {task: _numbers(len(TASKS[task].goal)) for task in self.tasks}
        )
        self.observation_space = spaces.Dict(
            {
                "achieved_goal": goals,
                "desired_goal": goals,
                "observation": _numbers(SHOWN),
            }
        )
        self.action_space = spaces.Box(-1.0, 1.0, (JOINTS,), np.float64)
        self.state = self.before = toy.begin(np.random.default_rng(0))
        self._left: list[str] = []
        self._ever: list[str] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode, in which no task is done."""
        super().reset(seed=seed)
        self.state = self.before = toy.begin(self.np_random)
        self._left, self._ever = list(self.tasks), []
        return self._observation(), self._info([])

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Move the joints at these velocities for one step."""
        self.before = self.state
        self.state = toy.advance(self.state, np.asarray(action, np.float64))
        observation = self._observation()
        now = dict(zip(TASKS, done(seen(observation["observation"])), strict=True))
        found = [task for task in self._left if now[task]]
        self._ever += [task for task in found if task not in self._ever]
        if self.remove:
            self._left = [task for task in self._left if task not in found]
        ended = self.terminate and len(self._ever) == len(self.tasks)
        return observation, float(len(found)), ended, False, self._info(found)

    def _observation(self) -> dict[str, Any]:
        shown = toy.show(self.state, self.before)
        return {"observation": shown, **goals_of(shown, self.tasks)}

    def _info(self, found: list[str]) -> dict[str, Any]:
        return {
            "tasks_to_complete": list(self._left),
            "step_task_completions": found,
            "episode_task_completions": list(self._ever),
        }


def _numbers(size: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (size,), np.float64)


gymnasium.register(
    TOY,
    entry_point="jaxdiff.tasks.kitchen.toy_environment:ToyKitchen",
    max_episode_steps=HORIZON,
)
