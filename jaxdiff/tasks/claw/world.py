"""The claw machine: pictures of toys, and a demonstrator whose density is known.

A machine shows one of a few fixed pictures; whoever plays it chooses a point (x, y) in
[0, 1]^2, from the upper left corner to the right and down, and wins where the point
lies on a toy. The demonstrator chooses toy k of scene o with probability s_k(o) and
then a point of its mask, of area A_k(o), at random:

    p(a | o) = s_k(o) / A_k(o)   where a lies on toy k,   0 elsewhere.             (1)

In the family "uniform" the shares are s_k = A_k / sum_j A_j, so that (1) is uniform on
the union of the masks. In "biased" one toy that stands in every picture is chosen nine
times of ten, and the toy that a picture has for itself once: what classifier-free
guidance with weight w makes of the demonstrator (all scenes being equally likely),

    p_w(a | o)  ~  p(a | o)^(1 + w) / p(a)^w,      p(a) = mean over o of p(a | o), (2)

turns to the latter as w grows, because p(o | a) is larger there. Masks are of 64 x 64
pixels, (1) is constant in each, and so (2) is known exactly too.

The task is that of Pearce et al. (2023, arXiv:2301.10677, figure 1 and section 3); all
shapes and places are this module's own. `claw_machine` has the Gymnasium environment.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from jaxdiff.errors import UserError

if TYPE_CHECKING:
    import gymnasium

Family = Literal["uniform", "biased"]

IMAGE_SHAPE = (32, 32, 3)
MASK = 64  # pixels along each side
COMMON_SHARE = 0.9  # of the toy that all scenes of the biased family have

# Gymnasium id of each family.
ENVIRONMENTS: dict[str, str] = {
    "uniform": "jaxdiff/ClawMachine-v0",
    "biased": "jaxdiff/ClawMachineBiased-v0",
}

_RASTER = 256  # points along each side that pictures and masks are averaged from
_PAPER = np.array([0.93, 0.94, 0.96])


class Toy(NamedTuple):
    """Where a toy lies.

    Attributes:
      kind: a name of the shapes below.
      x: of its centre.
      y: of its centre, downwards.
      size: about half its width.
      turn: degrees clockwise.
    """

    kind: str
    x: float
    y: float
    size: float
    turn: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """A picture with K toys and what the demonstrator does in it.

    Attributes:
      image: uint8 `[32, 32, 3]`.
      labels: int8 `[64, 64]`, number of the toy in each pixel, -1 where there is none.
      kinds: of the K toys.
      shares: float64 `[K]`, how often each is chosen.
    """

    image: np.ndarray
    labels: np.ndarray
    kinds: tuple[str, ...]
    shares: np.ndarray


# Toys of each scene. In the biased family the first is common to all of them.
_COMMON = Toy("red ball", 0.5, 0.5, 0.13)
_TOYS: dict[str, tuple[tuple[Toy, ...], ...]] = {
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


def family_of_environment(environment: str | None) -> Family | None:
    """Look up a family by its Gymnasium id; None for another environment."""
    for family in ("uniform", "biased"):
        if environment == ENVIRONMENTS[family]:
            return family
    return None


@functools.cache
def scenes(family: Family) -> tuple[Scene, ...]:
    """Draw the seven scenes of a family.

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
    """Give the probability of each pixel, equation (1): float64 `[64, 64]`, sum 1."""
    sizes = np.bincount(scene.labels[scene.labels >= 0], minlength=len(scene.kinds))
    return np.append(scene.shares / sizes, 0.0)[scene.labels]  # -1 is the last entry


def density(scene: Scene, actions: np.ndarray) -> np.ndarray:
    """Evaluate p(a | o), equation (1), on the unit square: `[..., 2]` -> `[...]`."""
    inside, column, row = _pixels(actions)
    return np.where(inside, demonstrator(scene)[row, column] * MASK**2, 0.0)


def draw_actions(
    probability: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw points: a pixel by its probability, and a point in it at random.

    Args:
      probability: `[64, 64]` of pixels, from `demonstrator` or `guided`.
      count: N.
      rng: advanced.

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
    """Number the toy on which each point lies, -1 for none: `[..., 2]` -> int `[...]`.

    Points outside the unit square, or not finite, lie on none.
    """
    inside, column, row = _pixels(actions)
    return np.where(inside, scene.labels[row, column], -1)


def guided(family: Family, weight: float) -> np.ndarray:
    """Give what guidance makes of the demonstrator, equation (2).

    Args:
      family: of S scenes, all equally likely.
      weight: w; 0 is the demonstrator itself.

    Returns:
      Probabilities of pixels, float64 `[S, 64, 64]`; the sum of each scene is 1.
    """
    given = np.stack([demonstrator(scene) for scene in scenes(family)])
    # Of pixels that a scene has no toy in the ratio is 0 / 0 or 0.
    ratio = given / np.maximum(given.mean(0), np.finfo(float).tiny)
    tilted = given * ratio**weight
    return tilted / tilted.sum((1, 2), keepdims=True)


def make_env(family: Family, *, plays: int = 1) -> "gymnasium.Env":
    """Make the Gymnasium environment of a family; see `claw_machine.ClawMachine`."""
    import gymnasium

    import jaxdiff.tasks.claw.environment  # noqa: F401  (makes the ids known)

    scenes(family)
    return gymnasium.make(ENVIRONMENTS[family], plays=plays)


def _pixels(actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tell which points lie in the unit square, and the column and row of each."""
    actions = np.asarray(actions)
    inside = np.asarray(np.logical_and(actions >= 0, actions < 1).all(-1))
    index = (np.where(np.expand_dims(inside, -1), actions, 0) * MASK).astype(int)
    return inside, index[..., 0], index[..., 1]


# --------------------------------------------------------------------------- drawing


def _draw(toys: tuple[Toy, ...], *, biased: bool) -> Scene:
    """Draw a scene; a mask is where a toy covers more than half of a pixel."""
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


# A shape maps coordinates, the toy's half width being 1, to what it covers and to its
# colours there.
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
