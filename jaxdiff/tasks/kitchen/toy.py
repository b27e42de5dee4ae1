"""A toy kitchen: the Franka kitchen's tasks and layout, with dynamics of a few lines.

Its observations, actions and tasks are those of `jaxdiff.tasks.kitchen.world`. What is
built for the Franka kitchen can be tried here in seconds, without data of people. An
action commands the velocities of nine joints. The hand is the joint vector q itself, a
point in nine dimensions. The object of task i has a handle that slides along a line,

(1) q <- clip(q + v a, -pi, pi),       |a_k| <= 1,
(2) grip_i(p) = h_i + p L c,           p in [0, 1].

A hand that holds the handle draws it along: if |q - grip_i(p_i)| < r before and after a
step, p_i becomes (q - h_i) c / L, unless it is that large already. An object is at the
goal of its task when p_i = 1, and where it began when p_i = 0. With nine orthonormal
vectors of the discrete cosine transform as d_i, c and the direction b of equation (3),
h_i = 1.2 d_i, so that all handles have the same distance from each other.

The demonstrator does four tasks in one of 24 orders: it starts with one of three tasks
and then goes round the circle of tasks, skipping none or one each time. It moves to the
next handle, at distance d in direction u, in a bow,

(3) a ~ cos(t) u + w sin(t) (b - (b u) u),         t = 0.9 min(1, d),

to the side w = -1 or 1, at its own pace. Order, sides and pace are drawn once an
episode and cannot be observed, so the data have many modes.
"""

from typing import Literal, NamedTuple

import numpy as np

from jaxdiff.tasks.kitchen.world import JOINTS, OBJECTS, TASKS

STEP = 0.16  # v, rad: 2 rad/s for 0.08 s
DEMONSTRATED = 4  # tasks of a demonstration

_SECONDS = 0.08
_LENGTH = 0.8  # L, rad
_GRIP = 0.4  # r, rad
_BOW = 0.9  # rad
_PACES = (0.7, 1.0)

_rows, _columns = np.arange(JOINTS)[:, None], np.arange(JOINTS)
_BASIS = np.sqrt(2 / JOINTS) * np.cos(np.pi * _rows * (_columns + 0.5) / JOINTS)
_BASIS[0] /= np.sqrt(2)
_ASIDE, _ALONG = _BASIS[0], _BASIS[-1]  # b, c
HANDLES = 1.2 * _BASIS[1:-1]  # [7, 9]

# Where all objects begin; those of no task stay there.
_BEGIN = np.zeros(JOINTS + OBJECTS)
_BEGIN[TASKS["kettle"].entries] = (-0.27, 0.35, 1.62, 0.99, 0.0, 0.0, -0.06)

ORDERS: tuple[tuple[int, ...], ...] = tuple(
    tuple(task % len(TASKS) for task in np.cumsum((first, *skips)).tolist())
    for first in (0, 2, 4)
    for skips in np.array(np.meshgrid(*[[1, 2]] * 3, indexing="ij")).reshape(3, -1).T
)


class KitchenState(NamedTuple):
    """The toy kitchen: joints q `[9]`, and how far handles are drawn, p `[7]`."""

    joints: np.ndarray
    drawn: np.ndarray


class Intent(NamedTuple):
    """What a demonstrator will do; nothing that is observed tells it.

    Attributes:
      order: its tasks, indices into `TASKS`.
      sides: -1 or 1 for each task, w in equation (3).
      pace: norm of its actions.
    """

    order: tuple[int, ...]
    sides: tuple[Literal[-1, 1], ...]
    pace: float


def begin(rng: np.random.Generator) -> KitchenState:
    """Begin an episode: no handle is drawn, and the joints are near 0."""
    return KitchenState(rng.uniform(-0.1, 0.1, JOINTS), np.zeros(len(TASKS)))


def grips(drawn: np.ndarray) -> np.ndarray:
    """Return where the handles are, equation (2): `[7]` -> `[7, 9]`."""
    return HANDLES + _LENGTH * drawn[:, None] * _ALONG


def advance(state: KitchenState, action: np.ndarray) -> KitchenState:
    """Take one step with an action `[9]`, equations (1) and (2)."""
    moved = state.joints + STEP * np.clip(action, -1.0, 1.0)
    joints = np.clip(moved, -np.pi, np.pi)
    drawn = np.clip((joints - HANDLES) @ _ALONG / _LENGTH, 0.0, 1.0)
    held = _reached(state.joints, state.drawn) & _reached(joints, drawn)
    return KitchenState(
        joints, np.where(held, np.maximum(state.drawn, drawn), state.drawn)
    )


def _reached(joints: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return which handles the hand can hold: bool `[7]`."""
    return np.linalg.norm(joints - grips(drawn), axis=-1) < _GRIP


def show(state: KitchenState, before: KitchenState) -> np.ndarray:
    """Return an observation, float64 `[59]`, in the Franka kitchen's order."""
    now, then = _positions(state), _positions(before)
    rates = (now - then) / _SECONDS
    # The kettle's quaternion, the last four positions, has a rate of three numbers.
    return np.concatenate(
        [now[:JOINTS], rates[:JOINTS], now[JOINTS:], rates[JOINTS:-1]]
    )


def _positions(state: KitchenState) -> np.ndarray:
    """Return the positions of joints and objects, `[30]`."""
    positions = _BEGIN.copy()
    positions[:JOINTS] = state.joints
    for task, drawn in zip(TASKS.values(), state.drawn, strict=True):
        start = _BEGIN[task.entries]
        positions[task.entries] = start + drawn * (np.array(task.goal) - start)
    return positions


def intend(rng: np.random.Generator) -> Intent:
    """Draw the intent of an episode."""
    return Intent(
        order=ORDERS[rng.integers(len(ORDERS))],
        sides=tuple(1 if up else -1 for up in rng.random(DEMONSTRATED) < 0.5),
        pace=float(rng.uniform(*_PACES)),
    )


def demonstrate(intent: Intent, state: KitchenState) -> np.ndarray | None:
    """Return the demonstrator's action `[9]`, or None when all tasks are done."""
    left = [i for i, task in enumerate(intent.order) if state.drawn[task] < 1]
    if not left:
        return None
    task, side = intent.order[left[0]], intent.sides[left[0]]
    drawn, reach = state.drawn[task], STEP * intent.pace
    grip = grips(state.drawn)[task]
    away = float(np.linalg.norm(grip - state.joints))
    if away < _GRIP / 2:
        # It aims a little beyond the end, which it would otherwise never quite reach.
        ahead = min(drawn + reach / _LENGTH, 1.05)
        move = HANDLES[task] + ahead * _LENGTH * _ALONG - state.joints
    else:
        turn = _BOW * min(1.0, away)
        unit = (grip - state.joints) / away
        aside = _ASIDE - (_ASIDE @ unit) * unit
        move = min(away, reach) * (np.cos(turn) * unit + side * np.sin(turn) * aside)
    length = float(np.linalg.norm(move))
    return move * min(1.0, reach / max(length, 1e-9)) / STEP
