"""The claw machine as a Gymnasium environment; importing this module registers it."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from jaxdiff.tasks.claw.world import ENVIRONMENTS, IMAGE_SHAPE, Family, scenes, toy_of


class ClawMachine(gymnasium.Env):
    """See a picture, choose a point in it, win 1 if the point lies on a toy.

    An observation is a picture, uint8 `[32, 32, 3]`. An action is a point (x, y) in
    [0, 1]^2, measured from the upper left corner. An episode has `plays` steps, and
    every step shows a new random picture, whatever was chosen before.
    `reset(options={"scene": i})` fixes the first picture. `info` holds the index of the
    scene that is shown, and after a step `success`.

    Args:
      family: which scenes are shown, see `jaxdiff.tasks.claw.world`.
      plays: steps of an episode.
      render_mode: "rgb_array" to render the picture, or None.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012

    def __init__(
        self,
        family: Family = "uniform",
        plays: int = 1,
        render_mode: str | None = None,
    ) -> None:
        self.scenes = scenes(family)
        self.plays = plays
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0, 255, IMAGE_SHAPE, np.uint8)
        self.action_space = spaces.Box(0.0, 1.0, (2,), np.float32)
        self._played, self._shown = 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Show the first picture."""
        super().reset(seed=seed)
        self._played = 0
        self._shown = self._draw()
        if options and "scene" in options:
            self._shown = int(options["scene"])
        return self._picture(), {"scene": self._shown}

    def step(
        self, action: np.ndarray
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Play once and show the next picture."""
        won = bool(toy_of(self.scenes[self._shown], np.asarray(action)) >= 0)
        self._played += 1
        self._shown = self._draw()
        info = {"scene": self._shown, "success": won}
        return self._picture(), float(won), self._played >= self.plays, False, info

    def render(self) -> np.ndarray:
        """Return the picture that is shown, uint8 `[32, 32, 3]`."""
        return self._picture()

    def _draw(self) -> int:
        return int(self.np_random.integers(len(self.scenes)))

    def _picture(self) -> np.ndarray:
        return self.scenes[self._shown].image.copy()


for _family, _id in ENVIRONMENTS.items():
    gymnasium.register(
        _id,
        entry_point="jaxdiff.tasks.claw.environment:ClawMachine",
        kwargs={"family": _family},
    )


def make_env(family: Family, *, plays: int = 1) -> gymnasium.Env:
    """Make the environment of a family.

    Args:
      family: which scenes it shows.
      plays: steps of an episode.

    Raises:
      UserError: there is no such family.
    """
    scenes(family)
    return gymnasium.make(ENVIRONMENTS[family], plays=plays)
