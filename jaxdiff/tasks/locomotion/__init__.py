"""Locomotion: Hopper, Walker2d and HalfCheetah, the robots of D4RL's MuJoCo tasks."""

import dataclasses

from jaxdiff.tasks.control import CONTROL
from jaxdiff.tasks.locomotion.presets import PRESETS, ROBOTS

TASK = dataclasses.replace(
    CONTROL,
    name="locomotion",
    environments=tuple(
        f"{robot}-v{version}" for robot in ROBOTS for version in range(2, 6)
    ),
    presets=PRESETS,
)
