"""Doom's "defend the center": aim and shoot in first person, and who shows how.

The player stands in the middle of a round room and can turn, look up and down, and
shoot a pistol that never runs out; monsters come from all sides, die of one hit and
come again. This is ViZDoom's scenario of that name (Kempka et al., 2016,
arXiv:1605.02097), played as the aim training of Pearce et al. (2023,
arXiv:2301.10677): what is seen is a picture of 150 x 280 pixels, 35 times a second, and
an action is two movements of a mouse and a click,

(1) a = (right, down, click) in [-1, 1]^3, of 15 degrees each; it shoots if click > 0.

With f = 120 pixels the focal length, a monster whose box has its middle x pixels to the
right of the picture's middle stands

(2) b = arctan(x / f)

to the right of where the player aims. The demonstrator knows no more than the boxes of
the monsters in the picture. It aims at one of them, any as soon as another, until that
one has fallen, turning by a share of (2) a tic, and shoots when the box is close to the
middle. Where there is none in sight it turns round to search, to the left or to the
right; which of the two is drawn anew each time and then kept to. Someone who sees only
the picture cannot know the choice: these data have several modes. Once it is made the
picture tells it, for a wrist moves a mouse along an arc: whoever turns to the right
comes to look down a little, to the left a little up. (The wall is alike all round, and
at a lower resolution no two pictures tell which way it has moved.)

A pull of the trigger is held for five tics, and there is another one when the pistol
has come to rest: what hands do is seen in the picture too. Importing this loads no
ViZDoom; `doom_env` has the Gymnasium environment.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import gymnasium

# Squares of so many pixels along each side are shown as one, their mean.
Block = Literal[1, 2, 4]

# Gymnasium id of each.
ENVIRONMENTS: dict[int, str] = {
    1: "jaxdiff/Doom-v0",
    2: "jaxdiff/DoomHalf-v0",
    4: "jaxdiff/DoomQuarter-v0",
}

TICS = 35  # a second
HORIZON = 60 * TICS  # tics of an episode
HEIGHT, WIDTH = 150, 280  # px
FOCAL = 120.0  # px
STEP = 15.0  # degrees that 1 of an action is worth
IDLE = np.array([0.0, 0.0, -1.0], np.float32)

_CHANGE = 0.01  # probability of another target, each tic
_GAIN = (0.25, 0.45)  # share of what is missing that a tic turns by
_SEARCH = (5.0, 7.0)  # degrees a tic
_ARC = 4.0  # degrees that a search to the right looks down
_SHAKE = 0.25  # degrees, standard deviation of the hand
_FASTEST = 14.0  # degrees a tic
_CLOSE = 0.3  # of its height from the middle, a monster is hit
_PULL, _REST = 5, 19  # tics that the trigger is held, and from one pull to the next


class Monster(NamedTuple):
    """A living monster in sight.

    Attributes:
      number: its own, as long as it lives.
      left: of its box, pixels from the left of the picture.
      top: pixels from above.
      width: px.
      height: px.
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
      search: -1 or 1, the way that it turns to search, 0 while it does not.
      pulled: tics since it pulled the trigger.
    """

    target: int = -1
    search: Literal[-1, 0, 1] = 0
    pulled: int = _REST


def make_env(
    block: Block = 1, *, asynchronous: bool = False, labels: bool = False
) -> "gymnasium.Env":
    """Make the Gymnasium environment; see `doom_env.Doom`.

    Raises:
      UserError: ViZDoom is not installed.
    """
    import gymnasium

    import jaxdiff.tasks.doom.environment  # noqa: F401  (makes the ids known)

    return gymnasium.make(ENVIRONMENTS[block], asynchronous=asynchronous, labels=labels)


def block_of_environment(environment: str | None) -> Block | None:
    """Look up which pixels are shown by a Gymnasium id; None for another task."""
    for block in (1, 2, 4):
        if environment == ENVIRONMENTS[block]:
            return block
    return None


def image_shape(block: Block) -> tuple[int, int, int]:
    """Give height, width and channels of what is shown."""
    return -(-HEIGHT // block), -(-WIDTH // block), 3


def shrink(picture: np.ndarray, block: Block) -> np.ndarray:
    """Average squares of pixels; the last ones repeat the edge where they are short.

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
    """Tell how far right and down a monster's middle is, equation (2), in degrees."""
    x = monster.left + monster.width / 2 - WIDTH / 2
    y = monster.top + monster.height / 2 - HEIGHT / 2
    right, down = np.rad2deg(np.arctan2([x, y], FOCAL))
    return float(right), float(down)


def is_close(monster: Monster) -> bool:
    """Tell whether a shot would hit, as far as the demonstrator can see."""
    x = monster.left + monster.width / 2 - WIDTH / 2
    # Whoever is far away is larger than the few pixels that are left of it.
    return abs(x) < _CLOSE * max(monster.height, 6.0)


def demonstrate(
    state: DemonstratorState,
    monsters: Sequence[Monster],
    pitch: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, DemonstratorState]:
    """Choose what the player does now.

    Args:
      state: what it remembers; `DemonstratorState()` at first.
      monsters: in sight.
      pitch: how far down the player looks, degrees.
      rng: of its choices and its hand; advanced.

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
