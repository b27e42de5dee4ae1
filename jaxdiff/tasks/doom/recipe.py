"""Record Doom's scripted demonstrator, with pictures."""

import functools
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxdiff.data.storage import datasets_root, replacing, write_minari
from jaxdiff.errors import require_at_least
from jaxdiff.progress import progress
from jaxdiff.tasks.base import Recipe
from jaxdiff.tasks.doom.environment import make_env
from jaxdiff.tasks.doom.world import (
    HORIZON,
    Block,
    DemonstratorState,
    demonstrate,
)

_SIZES: dict[Block, str] = {1: "full", 2: "half", 4: "quarter"}


def doom_id(block: Block) -> str:
    """Return the Minari id of the dataset with pictures of a block size."""
    return f"jaxdiff/doom/{_SIZES[block]}-v0"


def make_doom(
    block: Block,
    *,
    steps: int,
    seed: int = 0,
    root: str | os.PathLike | None = None,
) -> pathlib.Path:
    """Record the demonstrator and store it as Minari does.

    Episodes are written while they are played, so that only one is held in memory:
    45,000 pictures of full size take 5.7 GB. The same arguments give the same arrays.
    The references are kills in a minute, of a random player and of the demonstrator.

    Args:
      block: block size of the pictures, see `jaxdiff.tasks.doom.world.shrink`.
      steps: number of transitions; the last episode takes the remainder.
      seed: seed of the game and of the demonstrator's choices.
      root: folder of datasets; by default `MINARI_DATASETS_PATH`, or else Minari's own.

    Returns:
      The folder of the dataset.

    Raises:
      UserError: `steps` below 1, ViZDoom is not installed, or a folder that cannot be
        written.
    """
    require_at_least(1, steps=steps)
    folder = datasets_root(root) / doom_id(block)
    env = make_env(block, labels=True)
    rng = np.random.default_rng(seed)
    metadata: dict[str, Any] = {
        "dataset_id": doom_id(block),
        "algorithm_name": "scripted demonstrator",
        "description": "Defend the center, from pictures, with a mouse.",
        "requirements": ["vizdoom>=1.3"],
        "ref_min_score": _random_kills(env, seed=seed),
        "jaxdiff": {"block": block, "seed": seed},
    }

    def episodes() -> Iterator[dict[str, np.ndarray]]:
        done, kills = 0, 0.0
        with progress(steps, "making doom") as update:
            while done < steps:
                start = int(rng.integers(2**31))
                episode = record_episode(env, rng, seed=start, steps=steps - done)
                done += len(episode["actions"])
                kills += float(episode["rewards"].sum())
                update(len(episode["actions"]))
                yield episode
        # `write_minari` reads the metadata when all episodes have been written.
        metadata["ref_max_score"] = HORIZON * kills / done

    with replacing(folder) as partial:
        write_minari(
            partial,
            episodes(),
            observation_space=env.observation_space,
            action_space=env.action_space,
            env_spec=env.spec,
            metadata=metadata,
        )
    env.close()
    return folder


def record_episode(
    env: Any, rng: np.random.Generator, *, seed: int, steps: int = HORIZON
) -> dict[str, np.ndarray]:
    """Play one episode of the demonstrator.

    Args:
      env: game from `jaxdiff.tasks.doom.environment.make_env`, with labels.
      rng: source of the demonstrator's choices; advanced.
      seed: seed of the game.
      steps: most steps, at least 1; an episode that reaches it is truncated.

    Returns:
      `observations` uint8 `[T + 1, H, W, 3]`, `actions` float32 `[T, 3]`, `rewards`,
      `terminations` and `truncations` `[T]`.
    """
    observation, _ = env.reset(seed=seed)
    state, game = DemonstratorState(), env.unwrapped
    observations, taken, ended = [observation], [], False
    while not ended:
        action, state = demonstrate(state, game.monsters(), game.pitch(), rng)
        observation, reward, terminated, truncated, _ = env.step(action)
        truncated = truncated or (len(taken) + 1 == steps and not terminated)
        observations.append(observation)
        taken.append((action, reward, terminated, truncated))
        ended = terminated or truncated
    actions, rewards, terminations, truncations = zip(*taken, strict=True)
    return {
        "observations": np.stack(observations),
        "actions": np.stack(actions),
        "rewards": np.array(rewards, np.float32),
        "terminations": np.array(terminations, bool),
        "truncations": np.array(truncations, bool),
    }


def _random_kills(env: Any, *, seed: int) -> float:
    """Return the kills of a random player in a minute."""
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    kills = 0.0
    for _ in range(HORIZON):
        _, reward, dead, _, _ = env.step(rng.uniform(-1, 1, 3))
        kills += reward
        if dead:
            env.reset()
    return kills


def _recipe(block: Block) -> Recipe:
    return Recipe(doom_id(block), functools.partial(make_doom, block), steps=45_000)


RECIPES = {"doom": _recipe(1), "doom-half": _recipe(2), "doom-quarter": _recipe(4)}
