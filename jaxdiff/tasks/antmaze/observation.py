"""What policies see of an ant in a maze."""

from typing import Any

import numpy as np

from jaxdiff.tasks import control

# Observations without the position: 27 numbers, or 105 with the forces of contacts.
_WITHOUT_POSITION = (27, 105)


def split(raw: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Read observations; the position comes first, as in D4RL.

    gymnasium-robotics keeps the position out of `observation` and gives it as
    `achieved_goal` alone. Without it an ant cannot know where in the maze it is.

    Args:
      raw: a dictionary of arrays with a leading axis N, or D4RL's arrays `[N, 29]`.

    Returns:
      Observations `[N, O]` and goals `[N, 2]`, or None for an array.
    """
    seen, goal = control.split(raw)
    if seen.shape[-1] in _WITHOUT_POSITION and "achieved_goal" in raw:
        seen = np.concatenate([control.flat(raw["achieved_goal"]), seen], axis=1)
    return seen, goal
