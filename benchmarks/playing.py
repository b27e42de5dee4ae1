"""Play runs, and write what the task of a run scores as rows of results."""

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.rows import bounded
from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.devices import select_devices
from jaxdiff.errors import UserError
from jaxdiff.evaluation import evaluate, make_env
from jaxdiff.policy import Policy
from jaxdiff.rollouts import Rollouts
from jaxdiff.run import Run

# Metric of a row -> names of the value, its low and its high end in a task's record.
_METRICS = {
    "score": ("score", "score_low", "score_high"),
    "return": ("mean_return", "return_interval"),
}


def require_one_dataset(runs: Sequence[Run]) -> None:
    """Check that runs were trained on the same data.

    Raises:
      UserError: they were not.
    """
    for run in runs[1:]:
        one, other = (r.dataset["fingerprint"] for r in (runs[0], run))
        if one != other:
            raise UserError(
                f"{run.path} was trained on other data than {runs[0].path}; compare "
                "runs of one dataset"
            )


def play_run(
    run: Run, options: Any, *, task_options: Mapping[str, Any] | None = None
) -> tuple[str, list[dict[str, Any]]]:
    """Play a run, and return its setting and the rows of its score and return.

    Args:
      run: the run.
      options: has `episodes` and `seed`.
      task_options: options of the task, such as `{"setting": "single"}`.

    Raises:
      UserError: the task of the run has neither a score nor a return.
    """
    record, _ = evaluate(
        run,
        options=task_options,
        episodes=options.episodes,
        seed=options.seed,
        devices=select_devices(),
    )
    more = {"seeds": 1, "seconds": round(record["seconds"], 1)}
    count = options.episodes - len(record.get("failed", ()))
    rows = [{**row, **more} for row in score_rows(record, count)]
    if not rows:
        raise UserError(
            f"{run.path} was trained on {run.dataset['name']}, whose task has neither "
            "a score nor a return; name a run of another task"
        )
    return record["setting"], rows


def score_rows(record: Mapping[str, Any], count: int) -> Iterator[dict[str, Any]]:
    """Yield rows of the score and the return that a task's record holds.

    Args:
      record: of `Task.score`, or of `evaluate`.
      count: episodes.
    """
    for metric, names in _METRICS.items():
        if names[0] in record:
            bounds = np.hstack([record[name] for name in names])
            yield {"metric": metric, **bounded(bounds), "n": count}


def clock() -> float:
    """Read processor seconds on a CPU, seconds elsewhere."""
    if jax.default_backend() == "cpu":
        return time.process_time()
    return time.perf_counter()


class TimedPolicy:
    """A policy that notes how long its calls take, and for how many each planned.

    Args:
      policy: of `Run.policy`.
      calls: receives seconds and the number of environments planned for.
    """

    def __init__(self, policy: Policy, calls: list[tuple[float, int]]) -> None:
        self._policy, self._calls = policy, calls
        self.reset = policy.reset

    @property
    def last(self) -> Any:
        """What the policy's newest call gave."""
        return self._policy.last

    def __call__(self, observation: np.ndarray, goal: Any = None) -> np.ndarray:
        """Act."""
        began = clock()
        action = self._policy(observation, goal)
        spent = clock() - began
        planned = getattr(self.last, "planned", None)
        self._calls.append((spent, 0 if planned is None else int(np.sum(planned))))
        return action


def join_rollouts(played: Sequence[Rollouts]) -> Rollouts:
    """Put the numbers of episodes of several runs one after another, to be scored.

    Observations, goals and plans are those of the first run alone.
    """
    names = ("returns", "peaks", "successes", "lengths")
    columns = {name: [getattr(one, name) for one in played] for name in names}
    return dataclasses.replace(
        played[0],
        **{
            name: None if column[0] is None else np.concatenate(column)
            for name, column in columns.items()
        },
    )


def with_config(run: Run, **changes: Any) -> Run:
    """Let a run act as if other options had been trained with; its parameters stay.

    Use it for options that change no parameter, such as the horizon of a U-Net.
    """
    config = dataclasses.replace(run.config, **changes)
    build = ALGORITHMS.find(run.name).build
    algorithm = build(config, run.acting, run.statistics, run.spec)
    return run._replace(config=config, algorithm=algorithm)


def first_observation(run: Run, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return what a policy sees first: `[1, O]`, and a goal `[1, G]` or None.

    Args:
      run: the run, whose environment is made.
      seed: of the reset.
    """
    env = make_env(run)
    seen = env.reset(seed=seed)[0]
    env.close()
    goal = None
    if isinstance(seen, dict):
        seen, goal = seen["observation"], np.float32(seen["desired_goal"])[None]
    return np.asarray(seen, np.float32)[None], goal
