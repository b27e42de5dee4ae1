"""Scores at the claw machine: actions in each picture beside the exact density.

All scores are means over the scenes of a family. `validity` and `share_error` need no
second sample. The others compare with as many points of the demonstrator, so even the
demonstrator does not get perfect values: score `demonstrations` to see what a perfect
imitator would get.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdiff.scoring import bootstrap, on_scale
from jaxdiff.tasks import metrics
from jaxdiff.tasks.claw import world as claw
from jaxdiff.tasks.claw.play import ClawPlayed


def score(
    played: ClawPlayed, options: Any, references: Mapping[str, float]
) -> dict[str, Any]:
    """Score actions in all scenes.

    Args:
      played: N actions in each scene.
      options: options of the task; not read.
      references: references of the dataset; not read, since the scenes give both.

    Returns:
      The record. Its score is the validity, on a scale where uniform points have 0 and
      points on toys 100.
    """
    family, actions = played.family, played.actions
    chance = np.mean([(scene.labels >= 0).mean() for scene in claw.scenes(family)])
    # Scenes are fixed, so the interval is over actions.
    valid = bootstrap(np.mean(labels_of(family, actions) >= 0, axis=0))
    scores = score_actions(family, actions)
    value, low, high = (
        on_scale(x, float(chance), 1.0) for x in (scores["validity"], *valid)
    )
    return {
        "samples": actions.shape[1],
        "score": value,
        "score_low": low,
        "score_high": high,
        "scale": "0 is a uniform point and 100 a point on a toy",
        **scores,
        "validity_interval": valid,
    }


def demonstrations(family: claw.Family, *, samples: int, seed: int = 0) -> np.ndarray:
    """Draw actions of the demonstrator in every scene: float32 `[S, N, 2]`."""
    rng = np.random.default_rng(seed)
    return np.stack(
        [
            claw.draw_actions(claw.demonstrator(scene), samples, rng)
            for scene in claw.scenes(family)
        ]
    )


def score_actions(
    family: claw.Family, actions: np.ndarray, *, seed: int = 900_000
) -> dict[str, float]:
    """Compare actions with those of the demonstrator, as means over scenes.

    Args:
      family: name of a family of S scenes.
      actions: `[S, N, 2]`, in each scene.
      seed: seed of the demonstrator's points.

    Returns:
      `validity`, `share_error`, `energy`, `sliced_wasserstein`, `density` and
      `coverage`; see `jaxdiff.tasks.metrics`.
    """
    truth = demonstrations(family, samples=actions.shape[1], seed=seed)
    labels = labels_of(family, actions)
    scores = []
    for i, scene in enumerate(claw.scenes(family)):
        density, coverage = metrics.density_and_coverage(truth[i], actions[i])
        scores.append(
            {
                "validity": metrics.validity(labels[i]),
                "share_error": metrics.share_error(labels[i], scene.shares),
                "energy": metrics.energy_distance(truth[i], actions[i]),
                "sliced_wasserstein": metrics.sliced_wasserstein(truth[i], actions[i]),
                "density": density,
                "coverage": coverage,
            }
        )
    return {name: float(np.mean([one[name] for one in scores])) for name in scores[0]}


def labels_of(family: claw.Family, actions: np.ndarray) -> np.ndarray:
    """Return the index of the toy under each action: `[S, N, 2]` -> int `[S, N]`."""
    pairs = zip(claw.scenes(family), actions, strict=True)
    return np.stack([claw.toy_of(scene, mine) for scene, mine in pairs])
