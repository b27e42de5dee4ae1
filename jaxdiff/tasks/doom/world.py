"""Doom's "defend the center": aim and shoot in first person, and a demonstrator.

The player stands in the middle of a round room and can turn, look up and down, and
shoot a pistol that never runs out. Monsters come from all sides, die of one hit and
come again. This is ViZDoom's scenario of that name (Kempka et al., 2016,
arXiv:1605.02097), played as the aim training of Pearce et al. (2023,
arXiv:2301.10677): an observation is a picture of 150 x 280 pixels, 35 times a second,
and an action is two movements of a mouse and a click,

(1) a = (right, down, click) in [-1, 1]^3,

where 1 is a turn by 15 degrees, and the player shoots if click > 0. With f = 120 pixels
the focal length, a monster whose box has its middle x pixels right of the picture's
middle stands

(2) b = arctan(x / f)

to the right of where the player aims. The demonstrator sees only the boxes of monsters
in the picture. It picks one of them at random and aims at it until it has fallen,
turning by a share of (2) each tic, and shoots when the box is close to the middle. With
no monster in sight it turns left or right to search. The direction is random and kept
for the whole search. The first picture does not tell it, so the data have several
modes. Later pictures do, since a wrist moves a mouse along an arc: a search to the
right comes to look down a little, and one to the left up. (The wall looks alike all
round, and at a lower resolution two pictures do not tell which way it has moved.)

The trigger is held for five tics, and pulled again when the pistol has come to rest:
the picture shows what the hands do. Importing this module loads no ViZDoom;
`jaxdiff.tasks.doom.environment` holds the Gymnasium environment.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxdiff.data.spec import Environment

# Pixels along each side of a square that is shown as one pixel, their mean.
Block = Literal[1, 2, 4]

# Gymnasium id of each block size.
ENVIRONMENTS: dict[Block, str] = {
    1: "jaxdiff/Doom-v0",
    2: "jaxdiff/DoomHalf-v0",
    4: "jaxdiff/DoomQuarter-v0",
}

TICS = 35  # a second
HORIZON = 60 * TICS  # tics of an episode
HEIGHT, WIDTH = 150, 280  # px
FOCAL = 120.0  # px
STEP = 15.0  # degrees of an action of 1
IDLE = np.array([0.0, 0.0, -1.0], np.float32)

_CHANGE = 0.01  # probability of another target, each tic
_GAIN = (0.25, 0.45)  # share of the missing angle that is turned in a tic
_SEARCH = (5.0, 7.0)  # degrees a tic
_ARC = 4.0  # degrees that a search to the right looks down
_SHAKE = 0.25  # degrees, standard deviation of the hand
_FASTEST = 14.0  # degrees a tic
_CLOSE = 0.3  # a monster is hit within this share of its height from the middle
_PULL, _REST = 5, 19  # tics that the trigger is held, and between two pulls


class Monster(NamedTuple):
    """A living monster in sight.

    Attributes:
      number: identifies it as long as it lives.
      left: left side of its box, px from the left of the picture.
      top: upper side of its box, px from the top.
      width: width of its box, px.
      height: height of its box, px.
    """

    number: int
    left: float
    top: float
    width: float
    height: float


@dataclasses.dataclass(frozen=True)
class DemonstratorState:
    """What the demonstrator remembers.

    Attributes:
      target: number of the monster that it aims at, -1 for none.
      search: direction of the search, -1 left or 1 right, 0 while there is none.
      pulled: tics since it pulled the trigger.
    """

    target: int = -1
    search: Literal[-1, 0, 1] = 0
    pulled: int = _REST


def block_of(environment: Environment) -> Block:
    """Return the block size of an environment of `ENVIRONMENTS`."""
    block: Block
    for block, known in ENVIRONMENTS.items():
        if known == environment.id:
            return block
    raise KeyError(environment.id)


def image_shape(block: Block) -> tuple[int, int, int]:
    """Return height, width and channels of a picture that is shown."""
    return -(-HEIGHT // block), -(-WIDTH // block), 3


def shrink(picture: np.ndarray, block: Block) -> np.ndarray:
    """Average squares of pixels. Squares that reach over the edge repeat it.

    Args:
      picture: uint8 `[150, 280, 3]`.
      block: pixels along each side of a square.

    Returns:
      uint8 `[ceil(150 / block), ceil(280 / block), 3]`.
    """
    if block == 1:
        return picture.copy()
    height, width, _ = image_shape(block)
    missing = (0, height * block - HEIGHT), (0, width * block - WIDTH), (0, 0)
    squares = np.pad(picture, missing, mode="edge")
    squares = squares.reshape(height, block, width, block, 3)
    sums = squares.sum((1, 3), dtype=np.uint16)
    return ((sums + block**2 // 2) // block**2).astype(np.uint8)


def bearing(monster: Monster) -> tuple[float, float]:
    """Return how far right and down a monster's middle is, equation (2), in degrees."""
    x = monster.left + monster.width / 2 - WIDTH / 2
    y = monster.top + monster.height / 2 - HEIGHT / 2
    right, down = np.rad2deg(np.arctan2([x, y], FOCAL))
    return float(right), float(down)


def is_close(monster: Monster) -> bool:
    """Return whether a shot would hit, as far as the demonstrator can see."""
    x = monster.left + monster.width / 2 - WIDTH / 2
    # A distant monster is larger than the few pixels of its box.
    return abs(x) < _CLOSE * max(monster.height, 6.0)


def demonstrate(
    state: DemonstratorState,
    monsters: Sequence[Monster],
    pitch: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, DemonstratorState]:
    """Return the demonstrator's action.

    Args:
      state: what it remembers; `DemonstratorState()` at first.
      monsters: the monsters in sight.
      pitch: how far down the player looks, degrees.
      rng: source of its choices and of the hand's noise; advanced.

    Returns:
      The action, float32 `[3]` of equation (1), and the new state.
    """
    seen = {monster.number: monster for monster in monsters}
    target, search = state.target, state.search
    if seen and (target not in seen or rng.random() < _CHANGE):
        target = int(rng.choice(sorted(seen)))
    gain = rng.uniform(*_GAIN)
    close = False
    if target in seen:
        search = 0
        right, down = (gain * angle for angle in bearing(seen[target]))
        close = is_close(seen[target])
    else:
        target = -1
        search = search or (1 if rng.random() < 0.5 else -1)
        right, down = search * rng.uniform(*_SEARCH), gain * (search * _ARC - pitch)
    pulled = state.pulled + 1
    if close and pulled >= _REST:
        pulled = 0
    turns = np.array([right, down]) + _SHAKE * rng.standard_normal(2)
    turns = np.clip(turns, -_FASTEST, _FASTEST) / STEP
    action = np.array([*turns, 1.0 if pulled < _PULL else -1.0], np.float32)
    return action, DemonstratorState(target, search, pulled)
