"""Make claw-machine data: pictures, and points that the demonstrator draws in them.

Every transition is one play. The next picture is independent of it, so plays are stored
as sessions of up to 1000 of them, an episode each, rather than as as many episodes of
one step: every picture is then stored once, and loading takes seconds, not minutes.
"""

import os
import pathlib

import numpy as np

from jaxdiff.data.storage import datasets_root, replacing, write_minari
from jaxdiff.errors import UserError
from jaxdiff.tasks.claw.world import (
    Family,
    demonstrator,
    draw_actions,
    make_env,
    scenes,
)

SESSION = 1000  # plays


def claw_id(family: Family) -> str:
    """Give the Minari id of the dataset of a family."""
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

    The same arguments give the same arrays. Its references are of one play: the chance
    that a point drawn from the whole picture wins, and 1.

    Args:
      family: "uniform" or "biased".
      steps: number of plays, at least 1; the last episode takes the remainder.
      seed: of pictures and points.
      root: folder of datasets; `MINARI_DATASETS_PATH`, or else Minari's own.
      plays: in an episode.

    Returns:
      The dataset's folder.

    Raises:
      UserError: unknown family, bad `steps` or `plays`, or a folder that cannot be
        written.
    """
    for flag, value in (("--steps", steps), ("--plays", plays)):
        if value < 1:
            raise UserError(f"{flag} is {value}; it must be at least 1")
    folder = datasets_root(root) / claw_id(family)
    scenes(family)  # whoever names a family there is none of hears of it first
    with replacing(folder) as partial:
        _write(partial, family, steps=steps, seed=seed, plays=plays)
    return folder


def draw_plays(
    family: Family, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw plays of the demonstrator, every scene as likely as any other.

    Returns:
      Numbers of scenes, int64 `[N]`, and points, float32 `[N, 2]`.
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
    """Write the Minari dataset `folder`."""
    rng = np.random.default_rng(seed)
    shown, actions = draw_plays(family, steps, rng)
    images = np.stack([scene.image for scene in scenes(family)])
    episodes = []
    for start in range(0, steps, plays):
        end = min(start + plays, steps)
        length = end - start
        # After its last play a session shows a picture that no one plays.
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
            "jaxdiff": {"seed": seed, "plays": plays},
        },
    )
