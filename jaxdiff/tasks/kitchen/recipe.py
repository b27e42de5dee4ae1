"""Make toy-kitchen data: the scripted demonstrator, four tasks an episode."""

import math
import os
import pathlib

import numpy as np

from jaxdiff.data.storage import datasets_root, replacing, write_minari
from jaxdiff.errors import UserError
from jaxdiff.progress import progress
from jaxdiff.tasks.kitchen.toy import advance, begin, demonstrate, intend, show
from jaxdiff.tasks.kitchen.world import HORIZON, TOY, completions, goals_of, seen

TOY_KITCHEN_ID = "jaxdiff/kitchen/toy-v0"


def make_toy_kitchen(
    *,
    steps: int,
    seed: int = 0,
    noise: float = 0.1,
    root: str | os.PathLike | None = None,
) -> pathlib.Path:
    """Record the demonstrator and store it as Minari stores the Franka kitchen.

    Args:
      steps: transitions, at least 1; the episode that reaches as many is the last, and
        is kept whole.
      seed: of starts, intents and noise.
      noise: standard deviation of the Gaussian noise on the actions.
      root: folder of datasets; `MINARI_DATASETS_PATH`, or else Minari's own.

    Returns:
      The dataset's folder.

    Raises:
      UserError: bad `steps` or `noise`, or a folder that cannot be written.
    """
    if steps < 1:
        raise UserError(f"--steps is {steps}; it must be at least 1")
    if not (math.isfinite(noise) and noise >= 0):
        raise UserError(f"--noise is {noise}; it must be a finite number, at least 0")
    folder = datasets_root(root) / TOY_KITCHEN_ID
    rng = np.random.default_rng(seed)
    with replacing(folder) as partial, progress(steps, "making toy-kitchen") as update:
        episodes, recorded = [], 0
        while recorded < steps:
            shown, actions = record_episode(rng, noise=noise)
            episodes.append(_as_stored(shown, actions))
            update(len(actions))
            recorded += len(actions)
        _write(partial, episodes, {"seed": seed, "noise": noise})
    return folder


def record_episode(
    rng: np.random.Generator, *, noise: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Play one episode of the demonstrator, until its tasks are done.

    Args:
      rng: of the start, the intent and the noise; advanced.
      noise: standard deviation on the actions.

    Returns:
      What the kitchen showed, `[T + 1, 59]`, and the actions, `[T, 9]`.
    """
    state = before = begin(rng)
    intent = intend(rng)
    shown, actions = [show(state, before)], []
    while len(actions) < HORIZON:
        action = demonstrate(intent, state)
        if action is None:
            break
        action = np.clip(action + noise * rng.standard_normal(len(action)), -1, 1)
        before, state = state, advance(state, action)
        shown.append(show(state, before))
        actions.append(action)
    return np.stack(shown), np.stack(actions)


def _as_stored(shown: np.ndarray, actions: np.ndarray) -> dict:
    """Give one episode as `write_minari` takes it, rewarded as tasks are done."""
    tasks = completions(seen(shown))
    steps = np.array([step for _, step in tasks], int)
    length = len(actions)
    rewards = np.bincount(steps - 1, minlength=length)[:length]
    return {
        "observations": {"observation": shown, **goals_of(shown)},
        "actions": actions,
        "rewards": rewards.astype(np.float64),
        "terminations": np.zeros(length, bool),
        "truncations": np.arange(length) == length - 1,
    }


def _write(folder: pathlib.Path, episodes: list[dict], options: dict) -> None:
    """Write the Minari dataset `folder`."""
    import gymnasium

    import jaxdiff.tasks.kitchen.toy_environment  # noqa: F401  (makes the id known)

    env = gymnasium.make(TOY)
    write_minari(
        folder,
        episodes,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=env.spec,
        metadata={
            "dataset_id": TOY_KITCHEN_ID,
            "algorithm_name": "scripted demonstrator",
            "description": "Four of seven tasks an episode, in one of 24 orders.",
            "jaxdiff": options,
        },
    )
