"""The claw machine: pictures of toys, and a demonstrator whose density is known.

A machine shows one of seven fixed pictures. A player chooses a point (x, y) in
[0, 1]^2, measured from the upper left corner to the right and downwards, and wins if it
lies on a toy. In scene o the demonstrator chooses toy k with probability s_k(o), then a
point of its mask, of area A_k(o), uniformly:

(1) p(a | o) = s_k(o) / A_k(o)   where a lies on toy k,   0 elsewhere.

In the family "uniform" the shares are s_k = A_k / sum_j A_j, so (1) is uniform on the
union of the masks. In "biased" a toy that appears in every picture has a share of 0.9,
and the toy that only this picture has the remaining 0.1. All scenes are equally likely.
Classifier-free guidance with weight w turns the demonstrator into

(2) p_w(a | o)  ~  p(a | o)^(1 + w) / p(a)^w,      p(a) = mean over o of p(a | o).

As w grows, (2) moves to the toy that only this picture has, since p(o | a) is larger
there. Masks have 64 x 64 pixels and (1) is constant in each of them, so (2) is known
exactly too.

The task follows Pearce et al. (2023, arXiv:2301.10677, figure 1 and section 3); shapes
and places of the toys are our own. `jaxdiff.tasks.claw.environment` holds the Gymnasium
environment.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from jaxdiff.data.spec import Environment
from jaxdiff.errors import UserError

Family = Literal["uniform", "biased"]

IMAGE_SHAPE = (32, 32, 3)
MASK = 64  # pixels along each side
COMMON_SHARE = 0.9  # share of the toy that all biased scenes have

# Gymnasium id of each family.
ENVIRONMENTS: dict[Family, str] = {
    "uniform": "jaxdiff/ClawMachine-v0",
    "biased": "jaxdiff/ClawMachineBiased-v0",
}

_RASTER = 256  # points along each side; pictures and masks are averages of them
_PAPER = np.array([0.93, 0.94, 0.96])


class Toy(NamedTuple):
    """Where a toy lies.

    Attributes:
      kind: name of its shape, a key of `_SHAPES`.
      x: centre, from the left.
      y: centre, from the top.
      size: about half its width.
      turn: rotation in degrees, clockwise.
    """

    kind: str
    x: float
    y: float
    size: float
    turn: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """A picture with K toys, and what the demonstrator does in it.

    Attributes:
      image: uint8 `[32, 32, 3]`.
      labels: int8 `[64, 64]`, index of the toy in each pixel, -1 where there is none.
      kinds: shapes of the K toys.
      shares: float64 `[K]`, probability of each toy.
    """

    image: np.ndarray
    labels: np.ndarray
    kinds: tuple[str, ...]
    shares: np.ndarray


# Toys of each scene. All biased scenes have the same first toy.
_COMMON = Toy("red ball", 0.5, 0.5, 0.13)
_TOYS: dict[Family, tuple[tuple[Toy, ...], ...]] = {
    "uniform": (
        (Toy("red ball", 0.34, 0.36, 0.13),),
        (Toy("creature", 0.4, 0.56, 0.3),),
        (Toy("red ball", 0.22, 0.34, 0.13), Toy("blue ball", 0.76, 0.68, 0.13)),
        (Toy("green ball", 0.22, 0.28, 0.13), Toy("snake", 0.6, 0.66, 0.32, -20.0)),
        (Toy("creature", 0.34, 0.6, 0.28, -8.0), Toy("blue ball", 0.8, 0.24, 0.12)),
        (
            Toy("red ball", 0.2, 0.26, 0.13),
            Toy("blue ball", 0.8, 0.4, 0.13),
            Toy("green ball", 0.34, 0.78, 0.13),
        ),
        (Toy("snake", 0.5, 0.5, 0.37, 25.0),),
    ),
    "biased": (
        (_COMMON,),
        (_COMMON, Toy("creature", 0.19, 0.2, 0.15)),
        (_COMMON, Toy("snake", 0.77, 0.2, 0.17, 20.0)),
        (_COMMON, Toy("blue ball", 0.2, 0.8, 0.12)),
        (_COMMON, Toy("green ball", 0.8, 0.8, 0.12)),
        (_COMMON, Toy("snake", 0.5, 0.16, 0.12, -10.0)),
        (_COMMON, Toy("creature", 0.5, 0.84, 0.13, 15.0)),
    ),
}


def family_of(environment: Environment) -> Family:
    """Return the family of scenes that an environment of `ENVIRONMENTS` shows."""
    family: Family
    for family, known in ENVIRONMENTS.items():
        if known == environment.id:
            return family
    raise KeyError(environment.id)


@functools.cache
def scenes(family: Family) -> tuple[Scene, ...]:
    """Return the seven scenes of a family.

    Raises:
      UserError: there is no such family.
    """
    if family not in _TOYS:
        raise UserError(
            f"the claw machine has no scenes {family!r}; choose one of "
            f"{', '.join(_TOYS)}"
        )
    return tuple(_draw(toys, biased=family == "biased") for toys in _TOYS[family])


def demonstrator(scene: Scene) -> np.ndarray:
    """Return the probability of each pixel, equation (1): float64 `[64, 64]`, sum 1."""
    sizes = np.bincount(scene.labels[scene.labels >= 0], minlength=len(scene.kinds))
    return np.append(scene.shares / sizes, 0.0)[scene.labels]  # -1 is the last entry


def density(scene: Scene, actions: np.ndarray) -> np.ndarray:
    """Evaluate p(a | o), equation (1): actions `[..., 2]` -> `[...]`.

    It is a density on the unit square.
    """
    inside, column, row = _pixels(actions)
    return np.where(inside, demonstrator(scene)[row, column] * MASK**2, 0.0)


def draw_actions(
    probability: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw points: a pixel by its probability, then a point in it uniformly.

    Args:
      probability: `[64, 64]` of each pixel, from `demonstrator` or `guided`.
      count: N.
      rng: source of randomness; advanced.

    Returns:
      float32 `[N, 2]` in [0, 1).
    """
    pixel = rng.choice(probability.size, size=count, p=probability.ravel())
    corner = np.stack([pixel % MASK, pixel // MASK], axis=-1)
    points = (corner + rng.uniform(size=(count, 2))) / MASK
    # Rounding to float32 must not carry a point into the next pixel.
    return np.minimum(
        points.astype(np.float32), np.nextafter(np.float32((corner + 1) / MASK), 0)
    )


def toy_of(scene: Scene, actions: np.ndarray) -> np.ndarray:
    """Return the index of the toy under each point: `[..., 2]` -> int `[...]`.

    The index is -1 where there is no toy, and for points that are not finite or lie
    outside the unit square.
    """
    inside, column, row = _pixels(actions)
    return np.where(inside, scene.labels[row, column], -1)


def guided(family: Family, weight: float) -> np.ndarray:
    """Return the guided demonstrator, equation (2).

    Args:
      family: name of a family of S scenes.
      weight: w; 0 is the demonstrator itself.

    Returns:
      Probabilities of pixels, float64 `[S, 64, 64]`; those of each scene sum to 1.
    """
    given = np.stack([demonstrator(scene) for scene in scenes(family)])
    # Where no scene has a toy, the ratio would be 0 / 0.
    ratio = given / np.maximum(given.mean(0), np.finfo(float).tiny)
    tilted = given * ratio**weight
    return tilted / tilted.sum((1, 2), keepdims=True)


def _pixels(actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return whether each point lies in the unit square, its column and its row."""
    actions = np.asarray(actions)
    inside = np.asarray(np.logical_and(actions >= 0, actions < 1).all(-1))
    index = (np.where(np.expand_dims(inside, -1), actions, 0) * MASK).astype(int)
    return inside, index[..., 0], index[..., 1]


# --------------------------------------------------------------------------- drawing


def _draw(toys: tuple[Toy, ...], *, biased: bool) -> Scene:
    """Paint a scene. A pixel belongs to a toy that covers more than half of it."""
    centres = (np.arange(_RASTER) + 0.5) / _RASTER
    x, y = np.meshgrid(centres, centres)
    image = np.broadcast_to(_PAPER, (_RASTER, _RASTER, 3))
    labels = np.full((MASK, MASK), -1, np.int8)
    for number, toy in enumerate(toys):
        angle = np.deg2rad(toy.turn)
        right, down = (x - toy.x) / toy.size, (y - toy.y) / toy.size
        u = np.cos(angle) * right + np.sin(angle) * down
        v = np.cos(angle) * down - np.sin(angle) * right
        covered, colour = _SHAPES[toy.kind](u, v)
        image = np.where(covered[..., None], colour, image)
        labels[_average(covered, MASK) > 0.5] = number
    sizes = np.bincount(labels[labels >= 0], minlength=len(toys))
    shares = sizes / sizes.sum()
    if biased:
        shares = np.array([COMMON_SHARE, 1 - COMMON_SHARE][: len(toys)])
    return Scene(
        image=np.round(255 * _average(image, IMAGE_SHAPE[0])).astype(np.uint8),
        labels=labels,
        kinds=tuple(toy.kind for toy in toys),
        shares=shares / shares.sum(),
    )


def _average(x: np.ndarray, size: int) -> np.ndarray:
    """Average squares of the raster: `[256, 256, ...]` -> `[size, size, ...]`."""
    block = _RASTER // size
    return x.reshape(size, block, size, block, *x.shape[2:]).mean((1, 3))


# (u, v) -> (where the shape covers, its colours there). Coordinates are in units of the
# toy's size, with the origin at its centre.
_Shape = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
_WHITE, _BLACK = np.array([1.0, 1.0, 1.0]), np.array([0.1, 0.1, 0.12])


def _ball(*colour: float) -> _Shape:
    def shape(u, v):
        radius = np.hypot(u, v)
        shade = np.clip(1.1 - 0.35 * radius**2, 0, 1)[..., None]
        ring = (np.abs(v - 0.3 * u**2 - 0.15) < 0.13)[..., None]
        paint = np.where(ring, _WHITE, np.array(colour)) * shade
        shine = np.hypot(u + 0.38, v + 0.42) < 0.2
        return radius <= 1, np.where(shine[..., None], _WHITE, paint)

    return shape


def _snake(u, v):
    along = np.linspace(-1, 1, 48)
    wave = 0.42 * np.sin(1.5 * np.pi * along)
    far = np.hypot(u[..., None] - along, v[..., None] - wave)
    nearest = far.argmin(-1)
    thickness = np.where(along > 0.8, 0.22, 0.1 + 0.05 * (along + 1))
    covered = far.min(-1) <= thickness[nearest]
    banded = (nearest // 5 % 2 == 0)[..., None]
    paint = np.where(banded, np.array([0.16, 0.5, 0.3]), np.array([0.75, 0.82, 0.3]))
    eye = np.hypot(u - 0.98, v - wave[-1] + 0.05) < 0.07
    return covered, np.where(eye[..., None], _BLACK, paint)


def _creature(u, v):
    def blob(x, y, width, height):
        return ((u - x) / width) ** 2 + ((v - y) / height) ** 2 <= 1

    side = np.abs(u)
    horns = ((side - 0.5) / 0.14) ** 2 + ((v + 0.85) / 0.32) ** 2 <= 1
    feet = ((side - 0.38) / 0.26) ** 2 + ((v - 0.9) / 0.14) ** 2 <= 1
    body = blob(0, 0.25, 0.72, 0.7) | blob(0, -0.4, 0.62, 0.42)
    paint = np.where(
        blob(0, 0.4, 0.42, 0.42)[..., None],
        np.array([0.92, 0.8, 0.95]),
        np.array([0.55, 0.3, 0.7]),
    )
    whites = (side - 0.25) ** 2 + (v + 0.45) ** 2 < 0.17**2
    pupils = (side - 0.22) ** 2 + (v + 0.43) ** 2 < 0.08**2
    paint = np.where(whites[..., None], _WHITE, paint)
    return horns | feet | body, np.where(pupils[..., None], _BLACK, paint)


_SHAPES: dict[str, _Shape] = {
    "red ball": _ball(0.85, 0.2, 0.18),
    "blue ball": _ball(0.15, 0.4, 0.8),
    "green ball": _ball(0.2, 0.6, 0.3),
    "snake": _snake,
    "creature": _creature,
}
