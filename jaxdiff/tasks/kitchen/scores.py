"""Scores in a kitchen: which tasks are done, in what order, when, and on which paths.

Demonstrations end after four tasks, and a policy may go on. So only the part of an
episode until its fourth task is done is compared with demonstrations, or all of it if
there is no fourth. The scores are those of `jaxdiff.tasks.metrics`, with

(1) tasks_at_least_n: share of episodes in which n tasks were done;
(2) task_w: W1 between the orders of the first four tasks, by the places in which two
    orders differ;
(3) time_w: W1 between the steps at which the first to the fourth task were done; a task
    that was not done counts as done at the time limit;
(4) state_w: mean over the 30 positions of W1 between the states that are visited, in
    units of the demonstrations' standard deviation;
(5) density and coverage, with episodes as points: each is read at ten times from its
    start to its end, in the same units.

Positions that never change in the demonstrations are left out. The details of the
paper's own (2) to (5) are not published, so its numbers are not on these scales.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdiff.data.episodes import Episodes
from jaxdiff.rollouts import Rollouts
from jaxdiff.scoring import bootstrap
from jaxdiff.tasks import metrics
from jaxdiff.tasks.control import paths_of
from jaxdiff.tasks.kitchen.world import HORIZON, TASKS, completions

DEMONSTRATED = 4  # tasks in a demonstration
_TIMES = 10  # at which an episode is read


def score(
    played: Rollouts, options: Any, references: Mapping[str, float]
) -> dict[str, Any]:
    """Count the tasks that were done.

    Args:
      played: N episodes.
      options: options of the task; not read.
      references: references of the dataset; not read.

    Returns:
      The record. Its score is the percentage of episodes with four tasks or more.
    """
    tasks = [[task for task, _ in completions(path)] for path in paths_of(played)]
    counts = np.array([len(each) for each in tasks])
    low, high = bootstrap(counts >= DEMONSTRATED)
    return {
        "score": 100 * float(np.mean(counts >= DEMONSTRATED)),
        "score_low": 100 * low,
        "score_high": 100 * high,
        "scale": f"percent of episodes with {DEMONSTRATED} tasks or more",
        "mean_tasks": float(counts.mean()),
        **tasks_at_least(tasks),
        "mean_length": float(played.lengths.mean()),
    }


def demonstrations(episodes: Episodes) -> list[np.ndarray]:
    """Return the demonstrations of a dataset as E arrays `[T + 1, 30]`."""
    spans = zip(episodes.starts, episodes.lengths, strict=True)
    return [episodes.observations[start : start + n + 1] for start, n in spans]


def times(paths: Sequence[np.ndarray], count: int = DEMONSTRATED) -> np.ndarray:
    """Return the steps at which the first tasks were done.

    Args:
      paths: N episodes `[T + 1, 30]`.
      count: K, the number of tasks.

    Returns:
      `[N, K]`, NaN for tasks that were not done.
    """
    found = np.full((len(paths), count), np.nan)
    for row, path in zip(found, paths, strict=True):
        steps = [step for _, step in completions(path)][:count]
        row[: len(steps)] = steps
    return found


def tasks_at_least(tasks: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return equation (1) for every n."""
    return {
        f"tasks_at_least_{n}": metrics.tasks_at_least(tasks, n)
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
    density, coverage = metrics.density_and_coverage(
        *(np.stack([units(_read(path)).ravel() for path in paths]) for paths in (x, y))
    )
    return {
        **tasks_at_least(tasks[1]),
        "task_w": metrics.sequence_wasserstein(*tasks, length=DEMONSTRATED),
        "time_w": metrics.time_wasserstein(
            times(demonstrated), times(played), horizon=HORIZON
        ),
        "state_w": float(
            np.mean([metrics.wasserstein(p, q) for p, q in zip(a.T, b.T, strict=True)])
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
