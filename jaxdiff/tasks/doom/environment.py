"""Doom as a Gymnasium environment; importing this module registers it."""

import pathlib
import tempfile
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from jaxdiff.errors import UserError
from jaxdiff.tasks.doom.world import (
    ENVIRONMENTS,
    HEIGHT,
    HORIZON,
    STEP,
    TICS,
    WIDTH,
    Block,
    Monster,
    image_shape,
    shrink,
)

_MONSTERS = ("Demon", "MarineChainsawVzd")
_TOP, _LEFT = 15, 20  # px that are cut off the screen of 180 x 320


class Doom(gymnasium.Env):
    """Defend the middle of a room for a minute, see `jaxdiff.tasks.doom.world`.

    An observation is a picture, uint8 `[150, 280, 3]`, or a smaller one in which each
    square of `block` x `block` pixels is one pixel. An action is (right, down, click)
    in [-1, 1]^3, equation (1) there. The reward counts kills. An episode ends when the
    player dies, or by its time limit of a minute, `HORIZON` tics. `info["tics"]` is the
    number of tics that passed in a step: 1, unless the game is asynchronous.

    Each game has its own process. An asynchronous game goes on by its own clock, 35
    tics a second, whether or not anybody acts: an action counts for the next tic that
    begins, and the player does nothing in the tics that were missed. Unless it is
    asynchronous, a reset with a seed gives the same episode for the same actions.

    Args:
      block: see `jaxdiff.tasks.doom.world.shrink`.
      asynchronous: the game does not wait for actions.
      labels: find the monsters in the picture, see `monsters`; this takes some time.
      render_mode: "rgb_array" to render the picture, or None.

    Raises:
      UserError: ViZDoom is not installed.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": TICS}  # noqa: RUF012

    def __init__(
        self,
        block: Block = 1,
        asynchronous: bool = False,
        labels: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.block: Block = block
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0, 255, image_shape(block), np.uint8)
        self.action_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
        # The game stores its settings, by default in the working folder.
        self._folder = tempfile.TemporaryDirectory()
        self._game = _make_game(asynchronous=asynchronous, labels=labels)
        settings = pathlib.Path(self._folder.name) / "vizdoom.ini"
        self._game.set_doom_config_path(str(settings))
        self._picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        self._labels: list[Any] = []
        self._pitch = 0.0
        self._tics = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode in a full room."""
        super().reset(seed=seed)
        self._game.set_seed(int(self.np_random.integers(2**31)))
        if self._game.is_running():
            self._game.new_episode()
        else:
            self._game.init()
        self._tics = 0
        self._look()
        return self._shown(), {"tics": 0}

    def step(
        self, action: np.ndarray
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Turn, perhaps shoot, and return the picture a tic later."""
        game, (right, down, click) = self._game, np.asarray(action, np.float64)
        before = game.get_episode_time()
        # The game's button looks up for positive numbers.
        kills = game.make_action([STEP * right, -STEP * down, float(click > 0)])
        passed = max(1, game.get_episode_time() - before)
        self._tics += passed
        dead = game.is_player_dead() or game.is_episode_finished()
        if not dead:
            self._look()
        over = not dead and self._tics >= HORIZON
        return self._shown(), float(kills), dead, over, {"tics": passed}

    def monsters(self) -> list[Monster]:
        """Return the living monsters whose middle is in the picture."""
        found = [
            Monster(
                label.object_id,
                label.x - _LEFT,
                label.y - _TOP,
                label.width,
                label.height,
            )
            for label in self._labels
            if label.object_name in _MONSTERS
        ]
        return [
            one
            for one in found
            if 0 <= one.left + one.width / 2 < WIDTH
            and 0 <= one.top + one.height / 2 < HEIGHT
        ]

    def pitch(self) -> float:
        """Return how far down the player looks, degrees."""
        return self._pitch

    def render(self) -> np.ndarray:
        """Return the picture at full size, uint8 `[150, 280, 3]`."""
        return self._picture

    def close(self) -> None:
        """End the game and its process."""
        self._game.close()
        self._folder.cleanup()

    def _look(self) -> None:
        state = self._game.get_state()
        if state is not None:
            screen = state.screen_buffer
            self._picture = screen[_TOP : _TOP + HEIGHT, _LEFT : _LEFT + WIDTH].copy()
            self._labels = state.labels or []
            self._pitch = float(state.game_variables[0])

    def _shown(self) -> np.ndarray:
        return shrink(self._picture, self.block)


def _make_game(*, asynchronous: bool, labels: bool) -> Any:
    """Set up the scenario, without starting it."""
    try:
        import vizdoom
    except ImportError as error:
        raise UserError(
            'Doom needs the package vizdoom; install it with `pip install "jaxdiff'
            '[doom]"`'
        ) from error
    game = vizdoom.DoomGame()
    scenario = pathlib.Path(vizdoom.scenarios_path) / "defend_the_center.wad"
    game.set_doom_scenario_path(str(scenario))
    game.set_doom_map("map01")
    game.set_doom_skill(3)
    game.set_episode_start_time(10)  # the pistol is up by then
    game.set_episode_timeout(0)
    game.add_game_args("+sv_infiniteammo 1")
    game.set_available_buttons(
        [
            vizdoom.Button.TURN_LEFT_RIGHT_DELTA,
            vizdoom.Button.LOOK_UP_DOWN_DELTA,
            vizdoom.Button.ATTACK,
        ]
    )
    game.set_available_game_variables([vizdoom.GameVariable.PITCH])
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X180)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_labels_buffer_enabled(labels)
    game.set_render_hud(False)
    game.set_render_weapon(True)
    game.set_render_crosshair(False)
    game.set_render_decals(False)
    game.set_render_particles(False)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_mode(vizdoom.Mode.ASYNC_PLAYER if asynchronous else vizdoom.Mode.PLAYER)
    return game


for _block, _environment in ENVIRONMENTS.items():
    gymnasium.register(
        _environment,
        entry_point="jaxdiff.tasks.doom.environment:Doom",
        kwargs={"block": _block},
    )


def make_env(
    block: Block = 1, *, asynchronous: bool = False, labels: bool = False
) -> gymnasium.Env:
    """Make the game; see `Doom`.

    Raises:
      UserError: ViZDoom is not installed.
    """
    return gymnasium.make(ENVIRONMENTS[block], asynchronous=asynchronous, labels=labels)
