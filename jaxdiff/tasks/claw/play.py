"""Play the claw machine: N actions of a policy in every scene."""

import dataclasses
from typing import Any

import numpy as np

from jaxdiff.data.spec import Environment
from jaxdiff.errors import require_at_least
from jaxdiff.policy import MakePolicy
from jaxdiff.progress import progress
from jaxdiff.tasks.base import Task
from jaxdiff.tasks.claw.world import Family, family_of, scenes

_FEWEST = 10  # actions in a scene that its scores can be computed from


@dataclasses.dataclass(frozen=True)
class ClawPlayed:
    """Actions in all S scenes of a family.

    Attributes:
      family: name of the family.
      actions: float32 `[S, N, 2]`.
    """

    family: Family
    actions: np.ndarray


def play(
    task: Task,
    make_policy: MakePolicy,
    environment: Environment,
    options: Any,
    *,
    episodes: int,
    seed: int,
    num_envs: int,
    label: str,
) -> ClawPlayed:
    """Draw `episodes` actions of a policy in every scene, `num_envs` at a time.

    Every action is the first of an episode. Action i of scene s has the seed
    `seed + i S + s`, so that it does not depend on `num_envs`.

    Raises:
      UserError: too few episodes or environments.
    """
    require_at_least(_FEWEST, episodes=episodes)
    require_at_least(1, num_envs=num_envs)
    family = family_of(environment)
    images = np.stack([scene.image.ravel() for scene in scenes(family)])
    num_envs = min(num_envs, episodes)
    # Each scene is shown `num_envs` times, those of one play next to each other.
    shown = np.tile(images, (num_envs, 1))
    seeds = seed + np.arange(len(shown))
    policy = make_policy(len(shown), seeds.tolist())
    drawn = []
    with progress(episodes, label, unit="play") as update:
        for first in range(0, episodes, num_envs):
            policy.reset(seeds=(seeds + first * len(images)).tolist())
            drawn.append(policy(shown).reshape(num_envs, len(images), 2))
            update(min(num_envs, episodes - first))
    actions = np.concatenate(drawn)[:episodes].swapaxes(0, 1)
    return ClawPlayed(family, actions.astype(np.float32))
