"""Record plays of the claw machine's demonstrator.

Every transition is one play, and the next picture does not depend on it. Plays are
stored as sessions, episodes of up to 1000 plays, and not as episodes of one step. Every
picture is then stored once, and loading takes seconds instead of minutes.
"""

import functools
import os
import pathlib

import numpy as np

from jaxdiff.data.storage import datasets_root, replacing, write_minari
from jaxdiff.errors import require_at_least
from jaxdiff.tasks.base import Recipe
from jaxdiff.tasks.claw.environment import make_env
from jaxdiff.tasks.claw.world import (
    Family,
    demonstrator,
    draw_actions,
    scenes,
)

SESSION = 1000  # plays


def claw_id(family: Family) -> str:
    """Return the Minari id of a family's dataset."""
    return f"jaxdiff/claw/{family}-v0"


def make_claw(
    family: Family,
    *,
    steps: int,
    seed: int = 0,
    root: str | os.PathLike | None = None,
    plays: int = SESSION,
) -> pathlib.Path:
    """Record the demonstrator and store it as a Minari dataset.

    The same arguments give the same arrays. The references are of one play: the
    probability that a uniform point wins, and 1.

    Args:
      family: "uniform" or "biased".
      steps: number of plays; the last episode takes the remainder.
      seed: seed of pictures and points.
      root: folder of datasets; by default `MINARI_DATASETS_PATH`, or else Minari's own.
      plays: plays in an episode.

    Returns:
      The folder of the dataset.

    Raises:
      UserError: unknown family, `steps` or `plays` below 1, or a folder that cannot be
        written.
    """
    require_at_least(1, steps=steps, plays=plays)
    scenes(family)  # an unknown family is refused before anything is written
    folder = datasets_root(root) / claw_id(family)
    with replacing(folder) as partial:
        _write(partial, family, steps=steps, seed=seed, plays=plays)
    return folder


def draw_plays(
    family: Family, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw plays of the demonstrator in scenes that are all equally likely.

    Returns:
      Indices of scenes, int64 `[N]`, and points, float32 `[N, 2]`.
    """
    drawn = scenes(family)
    shown = rng.integers(len(drawn), size=count)
    actions = np.empty((count, 2), np.float32)
    for i, scene in enumerate(drawn):
        mine = shown == i
        actions[mine] = draw_actions(demonstrator(scene), int(mine.sum()), rng)
    return shown, actions


def _write(
    folder: pathlib.Path, family: Family, *, steps: int, seed: int, plays: int
) -> None:
    rng = np.random.default_rng(seed)
    shown, actions = draw_plays(family, steps, rng)
    images = np.stack([scene.image for scene in scenes(family)])
    episodes = []
    for start in range(0, steps, plays):
        end = min(start + plays, steps)
        length = end - start
        # A session ends with a picture in which nobody plays.
        seen = np.append(shown[start:end], rng.integers(len(images)))
        episodes.append(
            {
                "observations": images[seen],
                "actions": actions[start:end],
                "rewards": np.ones(length, np.float32),
                "terminations": np.arange(length) == length - 1,
                "truncations": np.zeros(length, bool),
            }
        )
    env = make_env(family, plays=plays)
    covered = [(scene.labels >= 0).mean() for scene in scenes(family)]
    write_minari(
        folder,
        episodes,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=env.spec,
        metadata={
            "dataset_id": claw_id(family),
            "algorithm_name": "demonstrator of known density",
            "description": (
                f"Plays of the claw machine's {family} scenes, each on a toy; the "
                "pictures of an episode are independent of one another."
            ),
            "ref_min_score": float(np.mean(covered)),
            "ref_max_score": 1.0,
            "jaxdiff": {"family": family, "seed": seed, "plays": plays},
        },
    )


def _recipe(family: Family) -> Recipe:
    return Recipe(claw_id(family), functools.partial(make_claw, family), steps=20_000)


RECIPES = {"claw": _recipe("uniform"), "claw-biased": _recipe("biased")}
