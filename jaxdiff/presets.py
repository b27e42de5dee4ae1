"""Named options: `demo` for a laptop, `released` as in the authors' code, `paper`.

Where the paper and the released code of Diffuser disagree on the mazes, the text of the
paper names a smaller learning rate and fewer updates, and a horizon of 265 in the
medium maze, which three levels cannot halve: 264 stands in for it. Both execute one
plan an episode with a unit-gain controller.
"""

from typing import Any

from jaxdiff.algorithms.diffuser import DiffuserConfig
from jaxdiff.errors import UserError
from jaxdiff.train import TrainConfig

PRESETS = ("demo", "released", "paper")

# Maze -> horizon and diffusion steps of the released configurations.
_RELEASED = {"umaze": (128, 64), "medium": (256, 256), "large": (384, 256)}


def preset(algorithm: str, name: str, dataset: str) -> tuple[Any, TrainConfig]:
    """Return the options of an algorithm and of its training.

    Args:
      algorithm: "diffuser".
      name: one of `PRESETS`.
      dataset: a name of a dataset: a recipe, Minari id or path that says which maze it
        is of. Others get the options of UMaze.

    Raises:
      UserError: no such preset.
    """
    if name not in PRESETS:
        raise UserError(
            f"there is no preset {name!r} for {algorithm}; choose one of "
            f"{', '.join(PRESETS)}"
        )
    maze = next((maze for maze in _RELEASED if maze in dataset), "umaze")
    horizon, diffusion_steps = _RELEASED[maze]
    if name == "demo":
        # Levels, that is how much of a plan a convolution sees, matter most in the
        # larger mazes (benchmarks/study.py).
        updates = 3_000 if maze == "umaze" else 8_000
        config = DiffuserConfig(
            horizon=horizon,
            horizons=_horizons(horizon),
            dim_mults=(1, 2, 4) if maze == "umaze" else (1, 2, 4, 4),
            learning_rate_decay=0 if maze == "umaze" else updates,
            sampling_steps=32,
        )
        return config, TrainConfig(num_steps=updates, save_every=500, keep=2)
    config = DiffuserConfig(
        horizon=horizon if horizon != 256 or name == "released" else 264,
        horizons=_horizons(horizon),
        diffusion_steps=diffusion_steps,
        dim_mults=(1, 4, 8),
        prediction="x0",
        action_weight=1.0,
        goal_dim=4,
        learning_rate=2e-4 if name == "released" else 4e-5,
        accumulate=2,
        ema_every=10,
        ema_start=2_000,
        candidates=1,
        choose="fixed",
        kp=1.0,
        kd=1.0,
    )
    updates = 2_000_000 if name == "released" else 500_000
    return config, TrainConfig(
        num_steps=updates, batch_size=64, log_every=100, save_every=10_000
    )


def _horizons(horizon: int) -> tuple[int, ...]:
    """Eight horizons from a fifth of the default to a quarter more, multiples of 8."""
    shares = (0.19, 0.31, 0.44, 0.56, 0.72, 0.88, 1.06, 1.25)
    return tuple(8 * round(share * horizon / 8) for share in shares)
