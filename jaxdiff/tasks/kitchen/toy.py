"""A toy kitchen: the Franka kitchen's tasks and layout, with dynamics of a few lines.

It shows, takes and counts what the Franka kitchen does (`jaxdiff.tasks.kitchen.world`), so
that whatever is built for that runs here in seconds and without the data of people. An
action commands the velocities of nine joints; the hand is where the joints are, a point
q of nine dimensions. The object of task i has a handle that slides along a line,

(1) q <- clip(q + v a, -pi, pi),       |a_k| <= 1,
(2) grip_i(p) = h_i + p L c,           p in [0, 1],

and is drawn along by a hand that holds it: where |q - grip_i(p_i)| < r before and
after a step, p_i becomes (q - h_i) c / L, if that is more. At p_i = 1 the object is at
the goal of its task, at 0 where it began. The h_i are 1.2 d_i, and d_i, c and the
direction b of equation (3) are the nine orthonormal vectors of the discrete cosine
transform: all handles are as far from each other.

The demonstrator does four tasks in one of 24 orders: it starts with one of three, and
then skips none or one of the circle of tasks. To the next handle, in direction u and at
distance d, it goes in a bow,

(3) a ~ cos(t) u + w sin(t) (b - (b u) u),         t = 0.9 min(1, d),

to the side w = -1 or 1, at a pace of its own. Order, sides and pace are drawn once an
episode; where ways part nothing that is seen tells them: these data have many modes.
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

# What objects that belong to no task are, and all others before they are moved.
_BEGIN = np.zeros(JOINTS + OBJECTS)
_BEGIN[TASKS["kettle"].entries] = (-0.27, 0.35, 1.62, 0.99, 0.0, 0.0, -0.06)

ORDERS: tuple[tuple[int, ...], ...] = tuple(
    tuple(task % len(TASKS) for task in np.cumsum((first, *skips)).tolist())
    for first in (0, 2, 4)
    for skips in np.array(np.meshgrid(*[[1, 2]] * 3, indexing="ij")).reshape(3, -1).T
)


class KitchenState(NamedTuple):
    """The toy kitchen: joints q `[9]`, and how far objects are drawn, p `[7]`."""

    joints: np.ndarray
    drawn: np.ndarray


class Intent(NamedTuple):
    """What a demonstrator means to do, and does not tell.

    Attributes:
      order: of its tasks, indices into `TASKS`.
      sides: -1 or 1 for each of them.
      pace: norm of its actions.
    """

    order: tuple[int, ...]
    sides: tuple[Literal[-1, 1], ...]
    pace: float


def begin(rng: np.random.Generator) -> KitchenState:
    """Begin an episode: nothing is drawn, and the joints are about 0."""
    return KitchenState(rng.uniform(-0.1, 0.1, JOINTS), np.zeros(len(TASKS)))


def grips(drawn: np.ndarray) -> np.ndarray:
    """Where the handles are, equation (2): `[7]` -> `[7, 9]`."""
    return HANDLES + _LENGTH * drawn[:, None] * _ALONG


def advance(state: KitchenState, action: np.ndarray) -> KitchenState:
    """Take one step, equations (1) and (2), of an action `[9]`."""
    moved = state.joints + STEP * np.clip(action, -1.0, 1.0)
    joints = np.clip(moved, -np.pi, np.pi)
    drawn = np.clip((joints - HANDLES) @ _ALONG / _LENGTH, 0.0, 1.0)
    held = _reached(state.joints, state.drawn) & _reached(joints, drawn)
    return KitchenState(
        joints, np.where(held, np.maximum(state.drawn, drawn), state.drawn)
    )


def _reached(joints: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Tell which handles the hand can hold: bool `[7]`."""
    return np.linalg.norm(joints - grips(drawn), axis=-1) < _GRIP


def show(state: KitchenState, before: KitchenState) -> np.ndarray:
    """What the kitchen shows, float64 `[59]`, in the Franka kitchen's order."""
    now, then = _positions(state), _positions(before)
    rates = (now - then) / _SECONDS
    # Objects have a rate less than positions: an orientation turns in three ways.
    return np.concatenate(
        [now[:JOINTS], rates[:JOINTS], now[JOINTS:], rates[JOINTS:-1]]
    )


def _positions(state: KitchenState) -> np.ndarray:
    """Give joints and objects, `[30]`."""
    positions = _BEGIN.copy()
    positions[:JOINTS] = state.joints
    for task, drawn in zip(TASKS.values(), state.drawn, strict=True):
        start = _BEGIN[task.entries]
        positions[task.entries] = start + drawn * (np.array(task.goal) - start)
    return positions


def intend(rng: np.random.Generator) -> Intent:
    """Draw what a demonstrator means to do."""
    return Intent(
        order=ORDERS[rng.integers(len(ORDERS))],
        sides=tuple(1 if up else -1 for up in rng.random(DEMONSTRATED) < 0.5),
        pace=float(rng.uniform(*_PACES)),
    )


def demonstrate(intent: Intent, state: KitchenState) -> np.ndarray | None:
    """Choose the demonstrator's action `[9]`, or None when all is done."""
    left = [i for i, task in enumerate(intent.order) if state.drawn[task] < 1]
    if not left:
        return None
    task, side = intent.order[left[0]], intent.sides[left[0]]
    drawn, reach = state.drawn[task], STEP * intent.pace
    grip = grips(state.drawn)[task]
    away = float(np.linalg.norm(grip - state.joints))
    if away < _GRIP / 2:
        # A little beyond the end, or it would never quite be reached.
        ahead = min(drawn + reach / _LENGTH, 1.05)
        move = HANDLES[task] + ahead * _LENGTH * _ALONG - state.joints
    else:
        turn = _BOW * min(1.0, away)
        unit = (grip - state.joints) / away
        aside = _ASIDE - (_ASIDE @ unit) * unit
        move = min(away, reach) * (np.cos(turn) * unit + side * np.sin(turn) * aside)
    length = float(np.linalg.norm(move))
    return move * min(1.0, reach / max(length, 1e-9)) / STEP
