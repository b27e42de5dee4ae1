"""Distributions in the plane: behaviours of a single state.

Each lies within [-0.9, 0.9]^2 but for its noise, and has gaps that a policy of one
peak, or a regression of actions, falls into.
"""

from collections.abc import Callable

import numpy as np

NOISE = 0.03  # standard deviation, of the shapes that are lines


def moons(count: int, rng: np.random.Generator) -> np.ndarray:
    """Two half circles, each reaching into the other: `[count, 2]`."""
    upper = rng.random(count) < 0.5
    angle = np.pi * rng.random(count)
    sign = np.where(upper, 1, -1)
    points = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * sign[:, None]
    middle = np.stack([-0.5 * sign, -0.25 * sign], axis=-1)
    return _noisy(0.6 * (points + middle), rng)


def rings(count: int, rng: np.random.Generator) -> np.ndarray:
    """Two circles around the origin: `[count, 2]`."""
    radius = np.where(rng.random(count) < 1 / 3, 0.4, 0.85)
    return _noisy(radius[:, None] * _directions(2 * np.pi * rng.random(count)), rng)


def spirals(count: int, rng: np.random.Generator) -> np.ndarray:
    """Two arms that wind around each other one and a half times: `[count, 2]`."""
    # The root spreads points evenly along the arms.
    along = np.sqrt(rng.random(count))
    angle = 3 * np.pi * along + np.pi * (rng.random(count) < 0.5)
    return _noisy(0.85 * along[:, None] * _directions(angle), rng)


def clusters(count: int, rng: np.random.Generator) -> np.ndarray:
    """Eight round clusters on a circle: `[count, 2]`."""
    angle = np.pi / 4 * rng.integers(8, size=count)
    return 0.75 * _directions(angle) + 0.06 * rng.normal(size=(count, 2))


def checkerboard(count: int, rng: np.random.Generator) -> np.ndarray:
    """The dark squares of a board of four by four: `[count, 2]`."""
    column = rng.integers(4, size=count)
    row = 2 * rng.integers(2, size=count) + column % 2
    corner = np.stack([column, row], axis=-1)
    return 0.45 * (corner + rng.random((count, 2))) - 0.9


def pinwheel(count: int, rng: np.random.Generator) -> np.ndarray:
    """Five blades, bent and wider outside: `[count, 2]`."""
    along = 0.15 + 0.75 * rng.random(count)
    across = 0.12 * rng.normal(size=count)
    angle = 2 * np.pi / 5 * rng.integers(5, size=count) + 1.5 * along + across
    return along[:, None] * _directions(angle)


SHAPES: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "moons": moons,
    "rings": rings,
    "spirals": spirals,
    "clusters": clusters,
    "checkerboard": checkerboard,
    "pinwheel": pinwheel,
}


def _directions(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _noisy(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return points + NOISE * rng.normal(size=points.shape)
