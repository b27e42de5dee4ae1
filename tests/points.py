"""A task whose answer is known: move a point to its goal on a straight line.

An episode goes from a random start to a random goal in equal steps. The observation is
the position `[2]`, the action the step made, so that the next observation is the sum
of the two (and a little noise, without which every misfit would count as infinite).
"""

import numpy as np

from jaxdiff.data.episodes import Episodes

STEPS = 8  # moves of an episode
NOISE = 0.01


def straight_lines(count=200, *, seed=0, steps=STEPS, noise=NOISE):
    rng = np.random.default_rng(seed)
    ends = rng.uniform(-1, 1, (2, count, 1, 2))
    share = np.linspace(0, 1, steps + 1)[:, None]
    positions = (1 - share) * ends[0] + share * ends[1]
    positions = positions + noise * rng.standard_normal(positions.shape)
    actions = np.repeat((ends[1] - ends[0]) / steps, steps + 1, axis=1)
    actions[:, -1] = 0
    rows = count * (steps + 1)
    return Episodes(
        observations=positions.reshape(rows, 2).astype(np.float32),
        actions=actions.reshape(rows, 2).astype(np.float32),
        rewards=np.zeros(rows, np.float32),
        starts=np.arange(count) * (steps + 1),
        lengths=np.full(count, steps),
        terminated=np.zeros(count, bool),
        goals=np.repeat(positions[:, -1], steps + 1, axis=0).astype(np.float32),
    )


def line(start, goal, rows):
    """Positions `[..., rows, 2]` of the answer, and its one action `[..., 2]`."""
    share = np.linspace(0, 1, rows)[:, None]
    start, goal = np.expand_dims(start, -2), np.expand_dims(goal, -2)
    return (1 - share) * start + share * goal, (goal - start)[..., 0, :] / (rows - 1)
