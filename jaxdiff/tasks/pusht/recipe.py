"""Record PushT's scripted demonstrator, which pushes with either hand."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from jaxdiff.data.storage import datasets_root, replacing, write_minari
from jaxdiff.errors import UserError, require_at_least
from jaxdiff.options import Options, at_least
from jaxdiff.progress import progress
from jaxdiff.tasks.base import Recipe
from jaxdiff.tasks.pusht.environment import make_raw
from jaxdiff.tasks.pusht.world import DemonstratorState, demonstrate

PUSHT_ID = "jaxdiff/pusht/demonstrator-v0"


@dataclasses.dataclass(frozen=True)
class PushTOptions(Options):
    """Options of the recipe.

    Attributes:
      noise: standard deviation of the Gaussian noise on the demonstrator's actions, in
        pixels.
    """

    noise: float = 4.0

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 0, "noise")


def make_pusht(
    *,
    steps: int,
    seed: int = 0,
    noise: float = 4.0,
    root: str | os.PathLike | None = None,
) -> pathlib.Path:
    """Record successful episodes of the demonstrator and store them as Minari does.

    The same arguments give the same arrays.

    Args:
      steps: number of transitions; the episode that reaches it is the last one and is
        kept whole.
      seed: seed of starts, hands and noise.
      noise: see `PushTOptions`.
      root: folder of datasets; by default `MINARI_DATASETS_PATH`, or else Minari's own.

    Returns:
      The folder of the dataset.

    Raises:
      UserError: `steps` below 1, `noise` below 0 or so large that almost no episode
        succeeds, gym-pusht is not installed, or a folder that cannot be written.
    """
    require_at_least(1, steps=steps)
    PushTOptions(noise=noise)
    folder = datasets_root(root) / PUSHT_ID
    env = make_raw()
    rng = np.random.default_rng(seed)
    with replacing(folder) as partial, progress(steps, "making pusht") as update:
        episodes, done, failed = [], 0, 0
        while done < steps:
            hand = 1 if rng.random() < 0.5 else -1
            reset = int(rng.integers(2**31))
            episode = record_episode(env, hand, rng, seed=reset, noise=noise)
            if not episode["terminations"][-1]:
                failed += 1
                if failed > 20 + 10 * len(episodes):
                    raise UserError(
                        f"only {len(episodes)} of {failed + len(episodes)} episodes "
                        "succeeded; choose a smaller `noise`"
                    )
                continue
            episodes.append(episode)
            update(len(episode["actions"]))
            done += len(episode["actions"])
        write_minari(
            partial,
            episodes,
            observation_space=env.observation_space,
            action_space=env.action_space,
            env_spec=env.spec,
            metadata={
                "dataset_id": PUSHT_ID,
                "algorithm_name": "scripted demonstrator",
                "description": "Successful episodes of PushT, pushed by either hand.",
                "requirements": ["gym-pusht>=0.1.8"],
                "jaxdiff": {"seed": seed, "noise": noise, "failed": failed},
            },
        )
    env.close()
    return folder


def record_episode(
    env: Any,
    hand: Literal[-1, 1],
    rng: np.random.Generator,
    *,
    seed: int,
    noise: float = 0.0,
    start: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Play one episode of the demonstrator.

    Args:
      env: environment from `jaxdiff.tasks.pusht.environment.make_raw`.
      hand: the way round that it prefers.
      rng: source of the noise; advanced.
      seed: seed of the start.
      noise: standard deviation of the noise on the actions, px.
      start: `[5]`, a fixed start in place of a random one, see gym-pusht.

    Returns:
      `observations` `[T + 1, 5]`, `actions` `[T, 2]`, `rewards`, `terminations` and
      `truncations` `[T]`.
    """
    options = None if start is None else {"reset_to_state": np.asarray(start)}
    observation, _ = env.reset(seed=seed, options=options)
    state = DemonstratorState(hand)
    observations, steps, ended = [observation], [], False
    low, high = env.action_space.low, env.action_space.high
    while not ended:
        action, state = demonstrate(state, observation)
        action = action + noise * rng.standard_normal(2)
        action = np.clip(action, low, high).astype(np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        observations.append(observation)
        steps.append((action, reward, terminated, truncated))
        ended = terminated or truncated
    actions, rewards, terminations, truncations = zip(*steps, strict=True)
    return {
        "observations": np.stack(observations),
        "actions": np.stack(actions),
        "rewards": np.array(rewards, np.float32),
        "terminations": np.array(terminations, bool),
        "truncations": np.array(truncations, bool),
    }


RECIPES = {"pusht": Recipe(PUSHT_ID, make_pusht, steps=50_000, options=PushTOptions)}
