"""Train algorithms that learn a policy offline on one dataset, and score them.

    python -m benchmarks.offline hopper-medium-expert-like-v0 [--seeds 3] \
        [--algorithms bc iql ...] [--updates N] [--runs runs/offline]

Each algorithm trains once for each seed (of data order, critic, behaviour and policy)
with the options of --preset, into its own folder under --runs; finished runs are not
trained again. Then every run plays the same episodes. Rows of the experiment `offline`:
score, return and, for runs that were trained just now, the median seconds of training
on the machine's CPU or accelerator, compilation included. `edp` is Diffusion-QL with
its one-step option.

Runs of a maze's dataset play random goals and D4RL's single goal, and their rows stand
in the experiment `maze`, beside Diffuser's. If the dataset pays for the single goal
alone, they play that goal, in its own setting. Intervals are over the episodes of all
seeds; they ignore that the episodes of one seed share a policy.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.command import command_of, run_command
from benchmarks.maze import maze_rows, play_maze
from benchmarks.playing import join_rollouts, score_rows
from benchmarks.rows import RESULTS, write_rows
from jaxdiff.data.episodes import Dataset
from jaxdiff.devices import select_devices
from jaxdiff.errors import UserError
from jaxdiff.evaluation import evaluate, options_of
from jaxdiff.run import Run
from jaxdiff.tasks.base import Task
from jaxdiff.tasks.lookup import load_dataset, task_of
from jaxdiff.tasks.pointmaze.environment import Setting
from jaxdiff.training import train_run

# Methods that are options of an algorithm.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "edp": ("diffusion-ql", {"one_step": True})
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Train and score offline policies."""

    dataset: tyro.conf.Positional[str]
    """A recipe, Minari id or path."""
    algorithms: tuple[str, ...] = (
        *("bc", "iql", "srpo", "td3-bc", "idql", "diffusion-ql", "qgpo"),
    )
    """Algorithms of `jaxdiff list`, or edp."""
    preset: str | None = None
    """Options of the algorithms; by default demo, or generic where there is none."""
    updates: int | None = None
    """Updates of every learner, in place of the preset's."""
    seeds: int = 3
    """Runs of each algorithm."""
    episodes: int = 20
    """Episodes of each run."""
    seed: int = 1_000
    """Seed of the first episode."""
    runs: Path = Path("runs/offline")
    """Folder of the run folders."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Train what is missing, play, and write the rows of each algorithm.

    Raises:
      UserError: there is no such dataset, algorithm or preset, or nothing to train.
    """
    for name in ("seeds", "episodes", "updates"):
        count = getattr(options, name)
        if count is not None and count < 1:
            raise UserError(f"`{name}` is {count}; it must be at least 1")
    dataset = load_dataset(options.dataset)
    for algorithm in options.algorithms:
        runs, seconds = _train(algorithm, dataset, options)
        task = task_of(runs[0].environment())
        in_maze = task.name == "pointmaze"
        named = _mazes(runs, options) if in_maze else _control(runs, task, options)
        # Runs that were trained before have no time to report.
        timed = [_seconds(seconds)] if seconds and not in_maze else []
        for experiment, setting, rows in named:
            common = {"setting": setting, "method": algorithm}
            write_rows(
                experiment,
                [{**common, **row, "seeds": len(runs)} for row in [*rows, *timed]],
                command=command_of("offline", options, without=("runs",)),
                directory=directory,
            )


def _train(
    algorithm: str, dataset: Dataset, options: Options
) -> tuple[list[Run], list[float]]:
    """Return a run for each seed, and the seconds of those trained just now."""
    named, changes = VARIANTS.get(algorithm, (algorithm, {}))
    updates = {} if options.updates is None else {"num_steps": options.updates}
    runs, seconds = [], []
    for seed in range(options.seeds):
        path = options.runs / f"{dataset.name.replace('/', '-')}-{algorithm}-{seed}"
        fresh = not path.exists()
        started = time.monotonic()
        runs.append(
            train_run(
                *(named, dataset, path),
                preset=options.preset,
                config=changes,
                training=updates,
                seed=seed,
                resume=True,
            )
        )
        if fresh:
            seconds.append(time.monotonic() - started)
    return runs, seconds


Named = Iterator[tuple[str, str, list[dict[str, Any]]]]


def _control(runs: Sequence[Run], task: Task, options: Options) -> Named:
    """Yield experiment, setting and rows of runs in their dataset's environment."""
    played = [
        evaluate(
            run, episodes=options.episodes, seed=options.seed, devices=select_devices()
        )[1]
        for run in runs
    ]
    joined, run = join_rollouts(played), runs[0]
    record = task.score(joined, options_of(task, run), run.dataset["references"])
    rows = list(score_rows(record, len(joined.returns)))
    yield "offline", run.dataset["name"], rows


def _mazes(runs: Sequence[Run], options: Options) -> Named:
    """Yield the same of runs in a maze, with random goals and with the one."""
    alone = runs[0].dataset["metadata"].get("setting") == "single"
    settings: tuple[Setting, ...] = ("single",) if alone else ("multi", "single")
    for setting in settings:
        played = [
            play_maze(run, setting, options.episodes, options.seed) for run in runs
        ]
        named = f"{played[0].maze.name}-{setting}" + (", of one goal" if alone else "")
        yield "maze", named, list(maze_rows(played, played[0]))


def _seconds(seconds: list[float]) -> dict[str, Any]:
    """Return the row of the seconds of training."""
    return {
        "metric": "training_seconds",
        "value": float(np.median(seconds)),
        "low": min(seconds),
        "high": max(seconds),
        "n": len(seconds),
    }


if __name__ == "__main__":
    run_command(main, Options)
