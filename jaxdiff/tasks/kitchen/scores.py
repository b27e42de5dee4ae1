"""Scores in a kitchen: which tasks are done, in what order, when, and along what ways.

A person who demonstrates does four tasks; a policy may go on. What is compared with
demonstrations is therefore the part of an episode until its fourth task is done, or all
of it if it never is. The scores are those of `jaxdiff.tasks.metrics`, with

(1) tasks_at_least_n: share of episodes in which n tasks were done;
(2) task_w: W1 of the orders of the first four, by the places in which they differ;
(3) time_w: W1 of the steps at which the first to fourth were done, where a task that
    was not counts as done at the time limit;
(4) state_w: mean over the 30 positions, of unit variance in the demonstrations, of W1
    of the states that are visited;
(5) density and coverage of episodes as points: each is read at ten times from its
    start to its end, in the same units.

Where a position never changes in the demonstrations it is left out. The paper's own
recipes of (2) to (5) are not published in detail, so that its numbers are not on these
scales.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdiff.data.episodes import Episodes
from jaxdiff.devices import Device
from jaxdiff.errors import UserError
from jaxdiff.rollouts import Rollouts, play
from jaxdiff.run import Run
from jaxdiff.scoring import bootstrap
from jaxdiff.tasks import metrics as imitation
from jaxdiff.tasks.control import make_env
from jaxdiff.tasks.kitchen.world import ENVIRONMENTS, HORIZON, TASKS, completions

DEMONSTRATED = 4  # tasks
_MOST_ENVS = 25
_TIMES = 10  # at which an episode is read


def is_kitchen(run: Run) -> bool:
    """Tell whether a run's dataset is of a kitchen."""
    return run.document["dataset"]["environment"] in ENVIRONMENTS


def evaluate_kitchen(
    run: Run,
    *,
    episodes: int = 100,
    seed: int = 0,
    num_envs: int = 100,
    devices: Sequence[Device] | None = None,
) -> tuple[dict[str, Any], Rollouts]:
    """Play episodes of a kitchen with a run and count the tasks that it does.

    Args:
      run: a trained policy.
      episodes: N, each to its time limit or until all tasks are done.
      seed: of the first episode.
      num_envs: environments side by side, at most 25, for one of the Franka kitchen
        needs 80 MB.
      devices: the batch of environments is split over them.

    Returns:
      A record of the counts, and the run's episodes. Its score is the share of
      episodes with four tasks or more, in percent.

    Raises:
      UserError: the run's dataset is not of a kitchen, or it cannot be simulated.
    """
    if not is_kitchen(run):
        raise UserError(
            f"{run.path} was trained on {run.document['dataset']['name']}, which is no "
            "kitchen; give this command a run of one"
        )
    started = time.monotonic()
    own = play(
        run,
        lambda: make_env(run),
        episodes=episodes,
        num_envs=min(num_envs, _MOST_ENVS),
        seed=seed,
        devices=devices,
    )
    tasks = [[task for task, _ in completions(path)] for path in paths_of(own)]
    counts = np.array([len(each) for each in tasks])
    low, high = bootstrap(counts >= DEMONSTRATED)
    record = {
        "setting": run.document["dataset"]["name"],
        "episodes": episodes,
        "score": 100 * float(np.mean(counts >= DEMONSTRATED)),
        "score_low": 100 * low,
        "score_high": 100 * high,
        "scale": f"percent of episodes with {DEMONSTRATED} tasks or more",
        "mean_tasks": float(counts.mean()),
        **tasks_at_least(tasks),
        "mean_length": float(own.lengths.mean()),
        "seconds": time.monotonic() - started,
    }
    return record, own


def paths_of(rollouts: Rollouts) -> list[np.ndarray]:
    """Cut what was played where each episode ended: N arrays `[T + 1, 30]`."""
    pairs = zip(rollouts.observations, rollouts.lengths, strict=True)
    return [path[: length + 1] for path, length in pairs]


def demonstrations(episodes: Episodes) -> list[np.ndarray]:
    """Give the demonstrations of a dataset as E arrays `[T + 1, 30]`."""
    spans = zip(episodes.starts, episodes.lengths, strict=True)
    return [episodes.observations[start : start + n + 1] for start, n in spans]


def times(paths: Sequence[np.ndarray], count: int = DEMONSTRATED) -> np.ndarray:
    """Give the steps at which the first tasks were done.

    Args:
      paths: N episodes `[T + 1, 30]`.
      count: K.

    Returns:
      `[N, K]`, NaN for those that were not.
    """
    found = np.full((len(paths), count), np.nan)
    for row, path in zip(found, paths, strict=True):
        steps = [step for _, step in completions(path)][:count]
        row[: len(steps)] = steps
    return found


def tasks_at_least(tasks: Sequence[Sequence[str]]) -> dict[str, float]:
    """Score how many tasks were done, equation (1), for every n."""
    return {
        f"tasks_at_least_{n}": imitation.tasks_at_least(tasks, n)
        for n in range(1, len(TASKS) + 1)
    }


def score_paths(
    demonstrated: Sequence[np.ndarray], played: Sequence[np.ndarray]
) -> dict[str, float]:
    """Compare episodes with demonstrations, equations (1) to (5).

    Args:
      demonstrated: N episodes `[T + 1, 30]`, more than five.
      played: M episodes.

    Returns:
      `tasks_at_least_1` to `_7`, `task_w`, `time_w`, `state_w`, `density` and
      `coverage`.
    """
    tasks = [
        [[task for task, _ in completions(path)] for path in paths]
        for paths in (demonstrated, played)
    ]
    x, y = ([_until_done(path) for path in paths] for paths in (demonstrated, played))
    states = np.concatenate(x).astype(np.float64)
    changes = states.max(0) > states.min(0)
    mean, std = states.mean(0), states.std(0)

    def units(rows: np.ndarray) -> np.ndarray:
        return ((rows - mean) / np.where(changes, std, 1.0))[..., changes]

    a, b = units(states), units(np.concatenate(y))
    density, coverage = imitation.density_and_coverage(
        *(np.stack([units(_read(path)).ravel() for path in paths]) for paths in (x, y))
    )
    return {
        **tasks_at_least(tasks[1]),
        "task_w": imitation.sequence_wasserstein(*tasks, length=DEMONSTRATED),
        "time_w": imitation.time_wasserstein(
            times(demonstrated), times(played), horizon=HORIZON
        ),
        "state_w": float(
            np.mean(
                [imitation.wasserstein(p, q) for p, q in zip(a.T, b.T, strict=True)]
            )
        ),
        "density": density,
        "coverage": coverage,
    }


def _until_done(path: np.ndarray) -> np.ndarray:
    """Cut an episode where its fourth task is done."""
    found = completions(path)
    if len(found) < DEMONSTRATED:
        return path
    return path[: found[DEMONSTRATED - 1][1] + 1]


def _read(path: np.ndarray) -> np.ndarray:
    """Read an episode at ten times: `[T + 1, 30]` -> `[10, 30]`."""
    return path[np.linspace(0, len(path) - 1, _TIMES).round().astype(int)]
