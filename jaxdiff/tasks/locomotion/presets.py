"""Presets for the three robots: `demo` for a laptop, `released`, and `paper`.

Diffuser guides plans by a model of returns and renews them at every step. The released
code guides x_t before a denoising step, twice, and not in the last steps; the paper
guides the mean after it, once (algorithm 1).

Decision Diffuser has the released options of Hopper for all three robots, because those
of the others were never published. The paper names a history of 20 states, T = 100 and
a wider model of actions; the code has T = 200 and no history. `demo` has the networks
of Diffuser, so that the two can be compared.

Options depend on the robot, which the environment names, and on the quality of the
data, such as "medium-replay", which the dataset says.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

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

# Robot -> horizon, and strength and last level of Diffuser's released guidance.
ROBOTS = {
    "Hopper": (32, 0.1, 2),
    "Walker2d": (32, 0.1, 2),
    "HalfCheetah": (4, 1e-3, 4),
}

# Robot, and perhaps quality -> temperature of SRPO, and bound of the gradient of
# Diffusion-QL's policy.
_OFFLINE = {
    ("HalfCheetah", "medium-expert"): (0.01, 7.0),
    ("HalfCheetah", "medium-replay"): (0.2, 2.0),
    ("HalfCheetah", ""): (0.2, 9.0),
    ("Hopper", "medium-expert"): (0.01, 5.0),
    ("Hopper", "medium-replay"): (0.2, 4.0),
    ("Hopper", ""): (0.05, 9.0),
    ("Walker2d", "medium-expert"): (0.1, 5.0),
    ("Walker2d", "medium-replay"): (0.5, 4.0),
    ("Walker2d", ""): (0.05, 1.0),
}

_QUALITIES = ("random", "simple", "medium", "full", "replay", "expert")

_LONG = TrainConfig(
    num_steps=1_000_000, batch_size=64, log_every=100, save_every=10_000
)


def quality_of(metadata: Mapping[str, Any]) -> str:
    """Return how well a dataset was played, such as "medium-replay"; "" if unknown.

    Args:
      metadata: of a dataset. `quality` says it; else the words of `dataset_id` do, as
        in "mujoco/hopper/medium-v0" or "hopper-medium-replay-v2".
    """
    if "quality" in metadata:
        return str(metadata["quality"])
    words = str(metadata.get("dataset_id", "")).lower().replace("/", "-").split("-")
    return "-".join(word for word in words if word in _QUALITIES)


def robot_of(dataset: Dataset) -> str:
    """Return the robot of a dataset, a name of `ROBOTS`."""
    assert dataset.evaluation is not None
    return dataset.evaluation.id.rpartition("-v")[0]


def _numbers(dataset: Dataset) -> Numbers:
    robot, quality = robot_of(dataset), quality_of(dataset.metadata)
    row = _OFFLINE.get((robot, quality), _OFFLINE[robot, ""])
    temperature, max_gradient = row
    return Numbers(
        ranged=True,
        srpo_temperature=temperature,
        max_gradient=max_gradient,
        smooth=robot == "Walker2d",
    )


def _diffuser_released(dataset: Dataset, spec: Spec) -> Preset:
    robot = robot_of(dataset)
    horizon, guide_scale, guide_stop = ROBOTS[robot]
    if _is_hopper_expert(dataset):
        guide_scale, guide_stop = 1e-4, 4
    cheetah = robot == "HalfCheetah"
    config = DiffuserConfig(
        horizon=horizon,
        diffusion_steps=20,
        dim_mults=(1, 4, 8) if cheetah else (1, 2, 4, 8),
        attention=cheetah,
        prediction="x0",
        clip=None,
        normalizer="gaussian",
        padding=True,
        action_weight=1.0,
        first_action_weight=10.0,
        learning_rate=2e-4,
        accumulate=2,
        ema_every=10,
        ema_start=2_000,
        return_model=True,
    )
    acting = DiffuserActing(
        candidates=64,
        guide_scale=guide_scale,
        guide_steps=2,
        guide_stop=guide_stop,
        rank="return",
        controller="action",
        replan_every=1,
    )
    return Preset(config, acting, _with_returns(_LONG))


def _diffuser_paper(dataset: Dataset, spec: Spec) -> Preset:
    released = _diffuser_released(dataset, spec)
    training = dataclasses.replace(_LONG, num_steps=500_000)
    return Preset(
        dataclasses.replace(released.config, learning_rate=4e-5),
        dataclasses.replace(
            released.acting, guide_at="mean", guide_steps=1, guide_stop=0
        ),
        _with_returns(training),
    )


def _with_returns(training: TrainConfig) -> dict[str, TrainConfig]:
    # The model of returns is trained for a fifth of the released updates.
    returns = dataclasses.replace(training, num_steps=200_000)
    return {"denoiser": training, "returns": returns}


# The network and the training of both planners on a laptop.
_SMALL: dict[str, Any] = {
    "dim_mults": (1, 2, 4),
    "prediction": "v",
    "learning_rate": 1e-3,
    "learning_rate_decay": 1.0,
}


def _diffuser_demo(dataset: Dataset, spec: Spec) -> Preset:
    released = _diffuser_released(dataset, spec)
    config = dataclasses.replace(
        released.config,
        **_SMALL,
        attention=False,
        accumulate=1,
        ema_every=1,
        ema_start=0,
    )
    acting = dataclasses.replace(
        released.acting,
        sampling_steps=5,
        # Between two ways to hop a full draw of noise falls; see benchmarks/hopper.
        temperature=0.5,
        candidates=8,
        # A new plan at every step costs a CPU minutes an episode.
        replan_every=4,
    )
    if _is_hopper_expert(dataset):
        # A laptop's model bears more than the released guidance (benchmarks/hopper).
        acting = dataclasses.replace(acting, guide_scale=1e-2)
    training = TrainConfig(num_steps=20_000)
    return Preset(config, acting, {"denoiser": training, "returns": training})


def _is_hopper_expert(dataset: Dataset) -> bool:
    quality = quality_of(dataset.metadata)
    return robot_of(dataset) == "Hopper" and quality == "medium-expert"


def _decisions_demo(dataset: Dataset, spec: Spec) -> Preset:
    config = DecisionDiffuserConfig(
        **_SMALL,
        horizon=ROBOTS[robot_of(dataset)][0],
        diffusion_steps=20,
        first_action_weight=10.0,
    )
    acting = DecisionDiffuserActing(sampling_steps=5, replan_every=4)
    training = TrainConfig(num_steps=20_000)
    return Preset(config, acting, {"denoiser": training, "inverse": training})


def _decisions_released(dataset: Dataset, spec: Spec) -> Preset:
    config = DecisionDiffuserConfig(
        discount=0.99,
        # The one number that the released code divides returns by.
        return_range=(0.0, 400.0) if _is_hopper_expert(dataset) else (),
        horizon=100,
        diffusion_steps=200,
        dim=128,
        dim_mults=(1, 4, 8),
        prediction="noise",
        # The released code scales actions as it scales states.
        inverse_normalizer="cdf",
        learning_rate=2e-4,
        accumulate=2,
        ema_every=10,
        ema_start=2_000,
    )
    acting = DecisionDiffuserActing(target=0.9)
    return Preset(config, acting, {"denoiser": _LONG, "inverse": _LONG})


def _decisions_paper(dataset: Dataset, spec: Spec) -> Preset:
    released = _decisions_released(dataset, spec)
    config = dataclasses.replace(
        released.config,
        return_range=(),
        history=20,
        diffusion_steps=100,
        inverse_width=512,
        accumulate=1,
    )
    acting = dataclasses.replace(released.acting, target=1.0)
    training = dataclasses.replace(_LONG, num_steps=2_000_000, batch_size=32)
    return Preset(config, acting, {"denoiser": training, "inverse": training})


PRESETS: Presets = {
    ("diffuser", "demo"): _diffuser_demo,
    ("diffuser", "released"): _diffuser_released,
    ("diffuser", "paper"): _diffuser_paper,
    ("decision-diffuser", "demo"): _decisions_demo,
    ("decision-diffuser", "released"): _decisions_released,
    ("decision-diffuser", "paper"): _decisions_paper,
    **imitation_presets(
        "demo",
        lambda spec: {},
        TrainConfig(num_steps=20_000, batch_size=256, log_every=500),
    ),
    **offline_presets(_numbers),
}
