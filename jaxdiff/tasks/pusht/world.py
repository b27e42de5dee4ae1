"""PushT: push a T onto its outline, and a scripted demonstrator that can.

The environment is gym-pusht's (Florence et al., 2022; Chi et al., 2023,
arXiv:2303.04137). An observation is (agent x, y, block x, y, angle) in pixels of a
table of 512 x 512, y downwards, and radians. An action is the point that the agent, a
disc, moves to; a step lasts a tenth of a second. An episode succeeds when the block
covers 95% of the outline.

Nothing glides on that table, and the disc pushes without friction. A push by d along
the inward normal n of a side, with lever c = r x n about the block's centre of mass,
therefore moves the block as an impulse there would:

(1) v = n d / (1 + c^2 / rho^2),     omega = (c / rho^2) d / (1 + c^2 / rho^2),

with rho the radius of gyration. Let e and phi be the displacement and the turn that the
block still needs, in its own frame. The push that reduces |e|^2 + rho^2 phi^2 most is

(2) d = n e + c phi,     if d > 0; it reduces it by d^2 / (1 + c^2 / rho^2).

The demonstrator pushes at the place where (2) reduces most, until d is used up, walks
round the block to the next place, and so on. Where both ways round have about the same
length it takes that of its hand, left or right, which is drawn once an episode. The
state does not show the hand, so the data have two modes.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple

import numpy as np

ENVIRONMENT = "gym_pusht/PushT-v0"
TABLE = 512.0  # px
GOAL = (256.0, 256.0, np.pi / 4)  # of the block: x, y, angle
ENOUGH = 0.95  # share of the goal that must be covered; it pays a reward of 1
AGENT = 15.0  # px, radius of the disc

# Corners of the T in its own frame, clockwise from the upper left of its bar; the
# frame's origin is the middle of the bar's outer side.
CORNERS = np.array(
    [(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)]
)
_CENTRE = np.array([0.0, 45.0])  # of mass, in that frame
_GYRATION = 3000.0  # px^2, square of the radius of gyration
_BOXES = np.array([[(-60, 0), (60, 30)], [(-15, 30), (15, 120)]], np.float64)

_CLEARANCE = 24.0  # px from the block's sides to the way round it
_BLOCKED = 18.0  # px; closer than this the way is not free
_FINISHED = 0.6  # px of (2) below which a push ends
_PUSH, _STRIDE = 28.0, 70.0  # px, how far ahead of the agent its target is at most
_EVEN = 1.6  # the hand decides between ways round whose ratio is smaller


class Contacts(NamedTuple):
    """Places to push, in the block's frame.

    Attributes:
      points: `[K, 2]`, on the sides.
      normals: `[K, 2]`, pointing inwards.
      levers: `[K]`, c of equation (1).
    """

    points: np.ndarray
    normals: np.ndarray
    levers: np.ndarray


@dataclasses.dataclass(frozen=True)
class DemonstratorState:
    """What the demonstrator remembers.

    Attributes:
      hand: -1 or 1, the way round that it prefers.
      contact: index of the place to push, -1 before the first choice.
      way: -1 or 1, the way round to that place.
      pushing: whether it has arrived there.
    """

    hand: Literal[-1, 1]
    contact: int = -1
    way: int = 0
    pushing: bool = False


@functools.cache
def contacts() -> Contacts:
    """Return places on all sides where the disc touches only that side."""
    # Ends of the part of each side that can be pushed, and its inward normal.
    sides = [
        ((-54, 0), (54, 0), (0, 1)),
        ((60, 5), (60, 25), (-1, 0)),
        ((-60, 5), (-60, 25), (1, 0)),
        ((33, 30), (55, 30), (0, -1)),
        ((-33, 30), (-55, 30), (0, -1)),
        ((15, 48), (15, 115), (-1, 0)),
        ((-15, 48), (-15, 115), (1, 0)),
        ((-11, 120), (11, 120), (0, -1)),
    ]
    points, normals = [], []
    for start, end, normal in sides:
        count = round(np.hypot(end[0] - start[0], end[1] - start[1]) / 6) + 1
        points.append(np.linspace(start, end, count))
        normals.append(np.tile(normal, (count, 1)))
    points, normals = np.concatenate(points), np.concatenate(normals).astype(float)
    return Contacts(points, normals, _cross(points - _CENTRE, normals))


def outline(block: np.ndarray) -> np.ndarray:
    """Return the corners of a block (x, y, angle) on the table: `[8, 2]`."""
    return _rotate(CORNERS, block[2]) + block[:2]


def needed(block: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the displacement and the turn that the block needs, in its own frame.

    Args:
      block: `[3]`, x, y and angle.

    Returns:
      The displacement of its centre of mass, `[2]`, and the turn, in [-pi, pi).
    """
    goal = _rotate(_CENTRE, GOAL[2]) + GOAL[:2]
    centre = _rotate(_CENTRE, block[2]) + block[:2]
    turn = (GOAL[2] - block[2] + np.pi) % (2 * np.pi) - np.pi
    return _rotate(goal - centre, -block[2]), turn


def demonstrate(
    state: DemonstratorState, observation: np.ndarray
) -> tuple[np.ndarray, DemonstratorState]:
    """Return the demonstrator's action.

    Args:
      state: what it remembers; `DemonstratorState(hand)` at first.
      observation: `[5]`.

    Returns:
      The action, float64 `[2]` within the table, and the new state.
    """
    agent, block = observation[:2], observation[2:]
    here = _rotate(agent - block[:2], -block[2])  # in the block's frame
    displacement, turn = needed(block)
    places = contacts()
    gaps = places.normals @ displacement + places.levers * turn
    if state.contact < 0 or (state.pushing and gaps[state.contact] < _FINISHED):
        state = _choose(state, here, gaps, block)
    point, normal = places.points[state.contact], places.normals[state.contact]
    before = point - _CLEARANCE * normal
    if not state.pushing and np.hypot(*(here - before)) < 6:
        state = dataclasses.replace(state, pushing=True)
    if state.pushing:
        free = max((point - here) @ normal - AGENT, 0.0)
        ahead = free + np.clip(gaps[state.contact], 4.0, _PUSH)
        aside = (point - here) - ((point - here) @ normal) * normal
        target = here + ahead * normal + np.clip(aside, -10, 10)
    else:
        stop = _next_stop(here, before, state.way)
        far = np.hypot(*(stop - here))
        target = here + (stop - here) * min(1.0, _STRIDE / max(far, 1e-6))
    action = _rotate(target, block[2]) + block[:2]
    return np.clip(action, 0.0, TABLE), state


def way_round(observations: np.ndarray) -> int:
    """Return on which side an episode passed the block before it first moved it.

    Args:
      observations: `[T + 1, 5]`.

    Returns:
      1 if the agent turned about the block's centre of mass from x to y, which is
      clockwise on the table, else -1.
    """
    blocks = observations[:, 2:]
    moved = np.abs(blocks - blocks[0]).max(1) > 1e-2
    until = int(moved.argmax()) if moved.any() else len(moved)
    centre = _rotate(_CENTRE, blocks[0, 2]) + blocks[0, :2]
    arms = observations[: max(until, 2), :2] - centre
    turned = np.unwrap(np.arctan2(arms[:, 1], arms[:, 0]))
    return 1 if turned[-1] > turned[0] else -1


def _choose(
    state: DemonstratorState, here: np.ndarray, gaps: np.ndarray, block: np.ndarray
) -> DemonstratorState:
    """Choose the next place to push and the way there."""
    places = contacts()
    taken = np.maximum(gaps, 0.0) / np.sqrt(1 + places.levers**2 / _GYRATION)
    before = places.points - _CLEARANCE * places.normals
    taken = taken * _on_table(before, block)
    there, now = _along(before), _along(here[None])[0]
    around = _lengths().sum()
    onwards = (there - now) % around
    walk = np.minimum(onwards, around - onwards)
    # A shorter walk makes up for a slightly worse push.
    contact = int(np.argmax(taken / max(taken.max(), 1e-9) - walk / 1500))
    ways = onwards[contact], around - onwards[contact]
    way = 1 if ways[0] < ways[1] else -1
    if max(ways) < _EVEN * min(ways):
        way = state.hand
    if not _on_table(_corners_between(here, before[contact], way), block).all():
        way = -way
    return dataclasses.replace(state, contact=contact, way=way, pushing=False)


def _next_stop(here: np.ndarray, goal: np.ndarray, way: int) -> np.ndarray:
    """Return the farthest point of the way round that can be reached directly."""
    if _distance(here) < _BLOCKED:
        return _nearest(here)
    stops = [*_corners_between(here, goal, way), goal]
    # A short cut to the far side would be the other way round.
    for stop in reversed(stops[:3]):
        if _free(here, stop):
            return stop
    return stops[0]


def _corners_between(start: np.ndarray, end: np.ndarray, way: int) -> np.ndarray:
    """Return the corners of the way round from one point to another, `[K, 2]`."""
    first, last = _along(np.stack([start, end]))
    marks = np.append(0, np.cumsum(_lengths()))
    ahead = (way * (marks[:-1] - first)) % marks[-1]
    order = np.argsort(ahead)
    return _round()[order[ahead[order] < (way * (last - first)) % marks[-1]]]


def _on_table(points: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Return which points `[N, 2]`, in the block's frame, are on the table: `[N]`."""
    places = _rotate(points, block[2]) + block[:2]
    return np.asarray(np.logical_and(places >= 0, places <= TABLE).all(-1))


@functools.cache
def _round() -> np.ndarray:
    """Return the corners of the way round, `_CLEARANCE` off the block: `[8, 2]`."""
    outwards = np.array(
        [(-1, -1), (1, -1), (1, 1), (1, 1), (1, 1), (-1, 1), (-1, 1), (-1, 1)]
    )
    return CORNERS + _CLEARANCE * outwards


@functools.cache
def _lengths() -> np.ndarray:
    corners = _round()
    return np.hypot(*(np.roll(corners, -1, axis=0) - corners).T)


def _project(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Project points on all sides of the way round.

    Returns:
      For each point and side the place along the way, the foot and the distance.
    """
    corners = _round()
    sides = np.roll(corners, -1, axis=0) - corners
    lengths = _lengths()
    offsets = points[:, None] - corners
    share = np.clip((offsets * sides).sum(-1) / lengths**2, 0.0, 1.0)
    feet = corners + share[..., None] * sides
    along = np.append(0, np.cumsum(lengths))[:-1] + share * lengths
    return along, feet, np.linalg.norm(points[:, None] - feet, axis=-1)


def _along(points: np.ndarray) -> np.ndarray:
    """Return how far along the way round the point nearest to each is: `[N]`, px."""
    along, _, distance = _project(points)
    return np.take_along_axis(along, distance.argmin(1)[:, None], axis=1)[:, 0]


def _nearest(point: np.ndarray) -> np.ndarray:
    _, feet, distance = _project(point[None])
    return feet[0, distance[0].argmin()]


def _distance(points: np.ndarray) -> np.ndarray:
    """Return the distance of points `[..., 2]` in the block's frame to the block."""
    points = points[..., None, :]
    outside = np.maximum(np.maximum(_BOXES[:, 0] - points, points - _BOXES[:, 1]), 0)
    return np.linalg.norm(outside, axis=-1).min(-1)


def _free(start: np.ndarray, end: np.ndarray) -> bool:
    """Return whether the disc can go straight there without touching the block."""
    line = np.linspace(start, end, 2 + int(np.hypot(*(end - start)) / 6))
    return bool((_distance(line) >= _BLOCKED).all())


def _rotate(vector: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack(
        [
            cos * vector[..., 0] - sin * vector[..., 1],
            sin * vector[..., 0] + cos * vector[..., 1],
        ],
        axis=-1,
    )


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
