"""Make PushT data: the scripted demonstrator, pushing with either hand."""

import math
import os
import pathlib
from typing import Any, Literal

import numpy as np

from jaxdiff.data.storage import datasets_root, replacing, write_minari
from jaxdiff.errors import UserError
from jaxdiff.progress import progress
from jaxdiff.tasks.pusht.world import DemonstratorState, demonstrate, make_env

PUSHT_ID = "jaxdiff/pusht/demonstrator-v0"


def make_pusht(
    *,
    steps: int,
    seed: int = 0,
    noise: float = 4.0,
    root: str | os.PathLike | None = None,
) -> pathlib.Path:
    """Record successful episodes of the demonstrator and store them as Minari does.

    Args:
      steps: transitions, at least 1; the episode that reaches as many is the last, and
        is kept whole.
      seed: of starts, hands and noise.
      noise: standard deviation of the Gaussian noise on the actions, px.
      root: folder of datasets; `MINARI_DATASETS_PATH`, or else Minari's own.

    Returns:
      The dataset's folder.

    Raises:
      UserError: bad `steps` or `noise`, gym-pusht is not installed, noise that lets
        almost no episode succeed, or a folder that cannot be written.
    """
    if steps < 1:
        raise UserError(f"--steps is {steps}; it must be at least 1")
    if not (math.isfinite(noise) and noise >= 0):
        raise UserError(f"--noise is {noise}; it must be a finite number, at least 0")
    folder = datasets_root(root) / PUSHT_ID
    env = make_env()
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
                        f"of {failed + len(episodes)} episodes {len(episodes)} "
                        "succeeded, too few to go on; choose a smaller --noise"
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
      env: of `jaxdiff.tasks.pusht.world.make_env`.
      hand: the way round that it prefers.
      rng: of the noise; advanced.
      seed: of the start.
      noise: standard deviation on the actions, px.
      start: `[5]`, what to reset to (see gym-pusht) instead of a random start.

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
