"""Presets for mazes: `demo` for a laptop, `released` as Diffuser's code, and `paper`.

The text of Diffuser's paper names a smaller learning rate and fewer updates than its
released code, and a horizon of 265 in the medium maze, which three levels of the U-Net
cannot halve; 264 takes its place. Both execute one plan an episode with a controller of
unit gain.

Decision Diffuser, for which no options in mazes were published, has the networks of
Diffuser and clamps goals as Diffuser does. Where one goal pays (the setting "single"),
its plans are told a return and no goal.

A maze that a user drew has the options of the smallest of D4RL's mazes with a longest
shortest path at least as long, or else of the largest maze. Its horizons and the
updates of `demo` scale with that path.
"""

import dataclasses
from typing import Any, NamedTuple

from jaxdiff.algorithms.base import Preset, TrainConfig
from jaxdiff.algorithms.planning.decision_diffuser import (
    DecisionDiffuserActing,
    DecisionDiffuserConfig,
)
from jaxdiff.algorithms.planning.diffuser import DiffuserActing, DiffuserConfig
from jaxdiff.data.episodes import Dataset
from jaxdiff.data.spec import Spec
from jaxdiff.tasks.imitation import imitation_presets
from jaxdiff.tasks.offline import Numbers, Presets, offline_presets
from jaxdiff.tasks.pointmaze.world import MAZES, Maze, longest_path, maze_of

# What a laptop needs to learn each maze; for the larger ones see benchmarks/study.py.
_DEMO: dict[str, dict[str, Any]] = {
    "umaze": {"train_horizons": (40, 72, 104)},
    "medium": {
        "train_horizons": (80, 144, 208),
        "dim_mults": (1, 2, 4, 4),
        "show_ends": True,
        "learning_rate_decay": 1.0,
    },
    "large": {
        "train_horizons": (128, 224, 320),
        "dim_mults": (2, 4, 4, 4),
        "patch": 4,
        "noise_shift": 3.0,
        "show_ends": True,
        "learning_rate_decay": 1.0,
    },
}
_DEMO_ACTING: dict[str, dict[str, Any]] = {
    "umaze": {"sampling_steps": 32, "candidates": 2},
    "medium": {"sampling_steps": 16, "candidates": 4},
    # A shorter plan that is hardly less consistent cuts through walls in the large one.
    "large": {"sampling_steps": 16, "candidates": 16, "slack": 1.15},
}
# What earns as much as those (benchmarks/sampling_steps.py, chosen on 50 episodes and
# scored on 100 others); for Diffuser alone, because only its plans were compared.
_FEWER_STEPS: dict[str, dict[str, Any]] = {
    "umaze": {"sampling_steps": 4, "spacing": "quadratic"},
}


class _Size(NamedTuple):
    """How large a maze is.

    Attributes:
      like: name of D4RL's maze whose options it has.
      horizon: released horizon of that maze.
      levels: its released number of noise levels.
      updates: its updates on a laptop.
      multiple: number that divides all horizons on a laptop, as its network needs.
      scale: length of the longest shortest path relative to that maze's.
    """

    like: str
    horizon: int
    levels: int
    updates: int
    multiple: int = 8
    scale: float = 1.0

    def steps(self, horizon: float, multiple: int = 8) -> int:
        """Scale a horizon, to a multiple that the network needs."""
        return multiple * max(1, round(self.scale * horizon / multiple))

    def horizons(self, multiple: int = 8) -> tuple[int, ...]:
        """Return eight horizons, from a fifth of the default to a quarter more."""
        shares = (0.19, 0.31, 0.44, 0.56, 0.72, 0.88, 1.06, 1.25)
        return tuple(self.steps(share * self.horizon, multiple) for share in shares)


_SIZES = (
    _Size("umaze", horizon=128, levels=64, updates=3_000),
    _Size("medium", horizon=256, levels=256, updates=14_000),
    _Size("large", horizon=384, levels=256, updates=22_000, multiple=32),
)


def _size_of(maze: Maze) -> _Size:
    length = longest_path(maze)[0]
    for size in _SIZES:
        known = longest_path(MAZES[size.like])[0]
        if length <= known:
            break
    return size._replace(scale=length / known)


def _maze(dataset: Dataset) -> Maze:
    assert dataset.evaluation is not None
    return maze_of(dataset.evaluation)


def _diffuser_demo(dataset: Dataset, spec: Spec) -> Preset:
    preset = _planner_demo(dataset, spec)
    fewer = _FEWER_STEPS.get(_size_of(_maze(dataset)).like, {})
    return preset._replace(acting=dataclasses.replace(preset.acting, **fewer))


def _planner_demo(dataset: Dataset, spec: Spec) -> Preset:
    size = _size_of(_maze(dataset))
    options, multiple = _DEMO[size.like], size.multiple
    trained = [size.steps(each, multiple) for each in options["train_horizons"]]
    config = DiffuserConfig(
        **options
        | {
            "horizon": size.steps(size.horizon, multiple),
            "horizons": size.horizons(multiple),
            "train_horizons": tuple(trained),
            "goal_dim": 2,
        }
    )
    acting = DiffuserActing(
        choose="earliest", controller="track", lost=0.5, **_DEMO_ACTING[size.like]
    )
    updates = 500 * max(1, round(size.scale * size.updates / 500))
    return Preset(config, acting, _each(_short(updates)))


def _each(training: TrainConfig) -> dict[str, TrainConfig]:
    """Train both learners alike; "returns" is left out without `return_model`."""
    return {"denoiser": training, "returns": training}


def _short(updates: int) -> TrainConfig:
    return TrainConfig(num_steps=updates, save_every=500)


def _diffuser_released(dataset: Dataset, spec: Spec) -> Preset:
    size = _size_of(_maze(dataset))
    config = DiffuserConfig(
        horizon=size.steps(size.horizon),
        horizons=size.horizons(),
        diffusion_steps=size.levels,
        dim_mults=(1, 4, 8),
        prediction="x0",
        action_weight=1.0,
        goal_dim=4,
        learning_rate=2e-4,
        accumulate=2,
        ema_every=10,
        ema_start=2_000,
    )
    acting = DiffuserActing(controller="track", kp=1.0, kd=1.0)
    return Preset(config, acting, _each(_long(2_000_000)))


def _long(updates: int) -> TrainConfig:
    return TrainConfig(
        num_steps=updates, batch_size=64, log_every=100, save_every=10_000
    )


def _diffuser_paper(dataset: Dataset, spec: Spec) -> Preset:
    size, released = _size_of(_maze(dataset)), _diffuser_released(dataset, spec)
    horizon = size.steps(264 if size.like == "medium" else size.horizon)
    config = dataclasses.replace(released.config, horizon=horizon, learning_rate=4e-5)
    return Preset(config, released.acting, _each(_long(500_000)))


def _decisions(dataset: Dataset, diffuser: Preset) -> Preset:
    """Give Decision Diffuser the options of a preset of Diffuser.

    It keeps its own weights of the loss and its own temperature of sampling.
    """
    loss, noise = ("action_weight", "loss_discount", "norm"), ("temperature",)
    config = _shared(diffuser.config, DecisionDiffuserConfig, without=loss)
    acting = _shared(diffuser.acting, DecisionDiffuserActing, without=noise)
    if dataset.metadata.get("setting") == "single":
        # Nobody tells the goal, so a plan is told a return. Without a goal it is
        # followed to its end unless it is renewed before.
        config |= {"goal_dim": 0, "horizons": (), "train_horizons": ()}
        acting |= {"choose": "fixed", "replan_every": 32}
    training = diffuser.training["denoiser"]
    return Preset(
        DecisionDiffuserConfig(**config | {"discount": 0.99, "termination_penalty": 0}),
        DecisionDiffuserActing(**acting),
        {"denoiser": training, "inverse": training},
    )


def _shared(options: Any, kind: type, *, without: tuple[str, ...]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(kind)} - set(without)
    return {name: value for name, value in vars(options).items() if name in names}


def _decisions_of(diffuser: Any) -> Any:
    return lambda dataset, spec: _decisions(dataset, diffuser(dataset, spec))


PRESETS: Presets = {
    ("diffuser", "demo"): _diffuser_demo,
    ("diffuser", "released"): _diffuser_released,
    ("diffuser", "paper"): _diffuser_paper,
    ("decision-diffuser", "demo"): _decisions_of(_planner_demo),
    ("decision-diffuser", "released"): _decisions_of(_diffuser_released),
    **imitation_presets(
        "demo",
        lambda spec: {},
        TrainConfig(num_steps=20_000, batch_size=256, log_every=500),
    ),
    **offline_presets(lambda dataset: Numbers()),
}
