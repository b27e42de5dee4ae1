"""Scores at the claw machine: many actions in each picture, beside the exact density.

All are means over the scenes of a family. `validity` and `share_error` need no second
sample; the others compare with as many points of the demonstrator, so that a further
sample of the demonstrator, `demonstrations`, scores what a perfect imitator would.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdiff.devices import Device
from jaxdiff.errors import UserError
from jaxdiff.rollouts import Policy, agent
from jaxdiff.run import Run
from jaxdiff.scoring import bootstrap, on_scale
from jaxdiff.tasks import metrics as imitation
from jaxdiff.tasks.claw import world as claw


def claw_of(run: Run) -> claw.Family | None:
    """Return the family of scenes of a run's dataset, or None for another task."""
    return claw.family_of_environment(run.document["dataset"]["environment"])


def evaluate_claw(
    run: Run,
    *,
    samples: int = 300,
    seed: int = 0,
    num_envs: int = 100,
    devices: Sequence[Device] | None = None,
) -> tuple[dict[str, Any], np.ndarray]:
    """Draw actions of a run in every scene and score them.

    Args:
      run: a trained policy.
      samples: N, of each scene.
      seed: of the policy's randomness.
      num_envs: of each scene side by side; fewer need less memory.
      devices: the batch is split over them.

    Returns:
      A record of the scores, and the actions, float32 `[S, N, 2]`.

    Raises:
      UserError: the run's dataset is not of a claw machine, or too few samples.
    """
    family = claw_of(run)
    if family is None:
        raise UserError(
            f"{run.path} was trained on {run.document['dataset']['name']}, which is no "
            "claw machine; give this command a run of one"
        )
    if samples < 10:
        raise UserError(f"{samples} samples of a scene tell nothing; draw at least 10")
    if num_envs < 1:
        raise UserError(f"--num-envs is {num_envs}; it must be at least 1")
    started = time.monotonic()
    num_envs = min(num_envs, samples)
    policy = agent(
        run.algorithm,
        run.states,
        num_envs=num_envs * len(claw.scenes(family)),
        seed=seed,
        devices=devices,
    )
    actions = sample_actions(policy, family, samples=samples, num_envs=num_envs)
    seconds = time.monotonic() - started
    hits = np.mean(labels_of(family, actions) >= 0, axis=0)
    chance = np.mean([(scene.labels >= 0).mean() for scene in claw.scenes(family)])
    scores = score_actions(family, actions)
    record = {
        "setting": f"claw-{family}",
        "samples": samples,
        "score": on_scale(scores["validity"], float(chance), 1.0),
        **scores,
        "validity_interval": bootstrap(hits),
        "seconds": seconds,
    }
    return record, actions


def sample_actions(
    policy: Policy, family: claw.Family, *, samples: int, num_envs: int
) -> np.ndarray:
    """Draw actions of a policy in every scene.

    Args:
      policy: acts in S times `num_envs` environments.
      family: of S scenes.
      samples: N, of each scene.
      num_envs: of each scene in one call of the policy.

    Returns:
      float32 `[S, N, 2]`.
    """
    images = np.stack([scene.image.ravel() for scene in claw.scenes(family)])
    shown = np.repeat(images, num_envs, axis=0)
    reset = np.ones(len(shown), bool)
    drawn = [
        policy(shown, None, reset)[0].reshape(len(images), num_envs, 2)
        for _ in range(-(-samples // num_envs))
    ]
    return np.concatenate(drawn, axis=1)[:, :samples].astype(np.float32)


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
    """Score actions by the demonstrator's, as means over scenes.

    Args:
      family: of S scenes.
      actions: `[S, N, 2]`, of each scene.
      seed: of the demonstrator's points that they are compared with.

    Returns:
      `validity`, `share_error`, `energy`, `sliced_wasserstein`, `density` and
      `coverage`; see `jaxdiff.tasks.metrics`.
    """
    truth = demonstrations(family, samples=actions.shape[1], seed=seed)
    labels = labels_of(family, actions)
    scores = []
    for i, scene in enumerate(claw.scenes(family)):
        density, coverage = imitation.density_and_coverage(truth[i], actions[i])
        scores.append(
            {
                "validity": imitation.validity(labels[i]),
                "share_error": imitation.share_error(labels[i], scene.shares),
                "energy": imitation.energy_distance(truth[i], actions[i]),
                "sliced_wasserstein": imitation.sliced_wasserstein(
                    truth[i], actions[i]
                ),
                "density": density,
                "coverage": coverage,
            }
        )
    return {name: float(np.mean([one[name] for one in scores])) for name in scores[0]}


def labels_of(family: claw.Family, actions: np.ndarray) -> np.ndarray:
    """The toy that each action is on: `[S, N, 2]` -> int `[S, N]`."""
    pairs = zip(claw.scenes(family), actions, strict=True)
    return np.stack([claw.toy_of(scene, mine) for scene, mine in pairs])
