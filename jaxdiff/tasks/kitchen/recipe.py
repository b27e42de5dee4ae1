"""Record the scripted demonstrator of the toy kitchen, four tasks an episode."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from jaxdiff.data.storage import datasets_root, replacing, write_minari
from jaxdiff.errors import require_at_least
from jaxdiff.options import Options, at_least
from jaxdiff.progress import progress
from jaxdiff.tasks.base import Recipe
from jaxdiff.tasks.kitchen.toy import advance, begin, demonstrate, intend, show
from jaxdiff.tasks.kitchen.world import HORIZON, TOY, completions, goals_of, seen

TOY_KITCHEN_ID = "jaxdiff/kitchen/toy-v0"


@dataclasses.dataclass(frozen=True)
class ToyKitchenOptions(Options):
    """Options of the recipe.

    Attributes:
      noise: standard deviation of the Gaussian noise on the demonstrator's actions.
    """

    noise: float = 0.1

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 0, "noise")


def make_toy_kitchen(
    *,
    steps: int,
    seed: int = 0,
    noise: float = 0.1,
    root: str | os.PathLike | None = None,
) -> pathlib.Path:
    """Record the demonstrator and store it as Minari stores the Franka kitchen.

    The same arguments give the same arrays.

    Args:
      steps: number of transitions; the episode that reaches it is the last one and is
        kept whole.
      seed: seed of starts, intents and noise.
      noise: see `ToyKitchenOptions`.
      root: folder of datasets; by default `MINARI_DATASETS_PATH`, or else Minari's own.

    Returns:
      The folder of the dataset.

    Raises:
      UserError: `steps` below 1, `noise` below 0, or a folder that cannot be written.
    """
    require_at_least(1, steps=steps)
    ToyKitchenOptions(noise=noise)
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
      rng: source of the start, the intent and the noise; advanced.
      noise: standard deviation of the noise on the actions.

    Returns:
      Observations `[T + 1, 59]` and actions `[T, 9]`.
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
    """Return an episode as `write_minari` takes it; a task pays 1 when it is done."""
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
    import gymnasium

    import jaxdiff.tasks.kitchen.toy_environment  # noqa: F401  (registers the id)

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


RECIPES = {
    "toy-kitchen": Recipe(
        TOY_KITCHEN_ID, make_toy_kitchen, steps=90_000, options=ToyKitchenOptions
    )
}
