"""The Franka kitchen: what policies see, its tasks, and when each was done.

The environment is Gymnasium-Robotics' (after Gupta et al., "Relay policy learning",
2019, arXiv:1910.11956): seven tasks in any order, an arm of nine joints that takes
velocities, 280 steps. It shows 59 numbers: the positions of nine joints, their
velocities, 21 positions of objects and their 20 velocities. Policies see the 30
positions,

(1) o = [joints (9), objects (21)],

as those of Pearce et al. (2023, arXiv:2301.10677) do. Two such rows, a history, tell
the velocities. Goals are left out, since an imitator chooses the next task as people
did. Task i has entries o_i and a goal g_i. It is done at the first step after the start
at which

(2) |o_i - g_i| < 0.3,

and is counted once, even if it is undone later. The same rule applies to demonstrations
and to policies, whatever rewards were stored.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.errors import UserError

FRANKA = "FrankaKitchen-v1"
TOY = "jaxdiff/ToyKitchen-v0"  # see `jaxdiff.tasks.kitchen.toy`
ENVIRONMENTS = (FRANKA, TOY)

HORIZON = 280  # steps of an episode
JOINTS, OBJECTS = 9, 21
SHOWN = 2 * (JOINTS + OBJECTS) - 1  # the kettle's quaternion has a rate of 3 numbers
_DONE = 0.3


class Task(NamedTuple):
    """A task: entries of equation (1), and where they must be."""

    entries: slice
    goal: tuple[float, ...]


TASKS: dict[str, Task] = {
    "bottom burner": Task(slice(11, 13), (-0.88, -0.01)),
    "top burner": Task(slice(15, 17), (-0.92, -0.01)),
    "light switch": Task(slice(17, 19), (-0.69, -0.05)),
    "slide cabinet": Task(slice(19, 20), (0.37,)),
    "hinge cabinet": Task(slice(20, 22), (0.0, 1.45)),
    "microwave": Task(slice(22, 23), (-0.75,)),
    "kettle": Task(slice(23, 30), (-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06)),
}


def seen(observation: np.ndarray) -> np.ndarray:
    """Select what policies see, equation (1): `[..., 59]` -> `[..., 30]`.

    Raises:
      UserError: another number of entries.
    """
    observation = np.asarray(observation)
    if observation.shape[-1] != SHOWN:
        raise UserError(
            f"observations of the kitchen have {SHOWN} numbers, not "
            f"{observation.shape[-1]}; record them without changes"
        )
    first_object = 2 * JOINTS
    return np.concatenate(
        [
            observation[..., :JOINTS],
            observation[..., first_object : first_object + OBJECTS],
        ],
        axis=-1,
    )


def split(raw: Mapping[str, Any]) -> tuple[np.ndarray, None]:
    """Select what policies see of raw observations; see `jaxdiff.tasks.base.Split`."""
    return seen(raw["observation"]), None


def goals_of(
    shown: np.ndarray, tasks: Iterable[str] = tuple(TASKS)
) -> dict[str, dict[str, np.ndarray]]:
    """Return `achieved_goal` and `desired_goal` by task.

    Args:
      shown: `[..., 59]`.
      tasks: names of the tasks.
    """
    positions = seen(shown)
    wanted = {task: np.array(TASKS[task].goal) for task in tasks}
    achieved = {task: positions[..., TASKS[task].entries] for task in tasks}
    return {
        "achieved_goal": achieved,
        "desired_goal": {
            task: np.broadcast_to(goal, achieved[task].shape).copy()
            for task, goal in wanted.items()
        },
    }


def done(observations: np.ndarray) -> np.ndarray:
    """Return which tasks are done, equation (2): `[..., 30]` -> bool `[..., 7]`."""
    distances = [
        np.linalg.norm(observations[..., task.entries] - task.goal, axis=-1)
        for task in TASKS.values()
    ]
    return np.stack(distances, axis=-1) < _DONE


def completions(observations: np.ndarray) -> list[tuple[str, int]]:
    """Return the tasks of an episode in the order in which they were done.

    Args:
      observations: `[T + 1, 30]`.

    Returns:
      Pairs of a task and the first step, from 1, at which it was done, equation (2).
      Tasks that were done in the same step come in the order of `TASKS`.
    """
    then = done(np.asarray(observations)[1:])
    pairs = zip(TASKS, (1 + then.argmax(0)).tolist(), then.max(0), strict=True)
    # Sorting is stable.
    return sorted(
        ((task, step) for task, step, ever in pairs if ever), key=lambda pair: pair[1]
    )
