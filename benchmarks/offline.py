"""Train algorithms that learn a policy offline on one dataset, and score them.

    python -m benchmarks.offline hopper-medium-expert-like-v0 [--seeds 3] \
        [--algorithms bc iql ...] [--updates N] [--runs runs/offline]

Each algorithm is trained once a seed (of data order, critic, behaviour and policy),
with the options of `--preset`, into a folder of its own under `--runs`; what is trained
already is not trained again. Then every run plays the same episodes. Rows of the
experiment `offline`: score, return and, where a run was trained just now, the median of
the seconds that takes on the machine's CPU or accelerator, compilation included.
`edp` is Diffusion-QL whose policy climbs the critic in one step.

A dataset of a maze is played with random goals and with D4RL's one, and its rows stand
in the experiment `maze`, beside Diffuser's. Intervals are over the episodes of all
seeds; they do not know that those of one seed have a policy in common.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.command import run_command
from benchmarks.maze import maze_rows
from benchmarks.rows import RESULTS, bounded, write_rows
from jaxdiff.data.episodes import Dataset, load_dataset
from jaxdiff.devices import Device, select_devices
from jaxdiff.errors import UserError
from jaxdiff.run import Run, maze_of, train_run
from jaxdiff.scoring import bootstrap, reference_scores
from jaxdiff.tasks.control import evaluate_control
from jaxdiff.tasks.pointmaze.scores import maze_references, play_maze
from jaxdiff.tasks.pointmaze.world import Maze, Setting, setting_of_dataset
from jaxdiff.tasks.presets import preset

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
    """Of `jaxdiff list`, or edp."""
    preset: str = "demo"
    """Options of the algorithms."""
    updates: int | None = None
    """Of every learner, in place of the preset's."""
    seeds: int = 3
    """Runs of each algorithm."""
    episodes: int = 20
    """Played by each run."""
    seed: int = 1_000
    """Of the first episode."""
    runs: Path = Path("runs/offline")
    """Folder of the run folders."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Train what is missing, play, and write the rows of each algorithm.

    Raises:
      UserError: there is no such dataset, algorithm or preset, or nothing to train.
    """
    for flag, count in (("--seeds", options.seeds), ("--episodes", options.episodes)):
        if count < 1:
            raise UserError(f"{flag} is {count}; it must be at least 1")
    if options.updates is not None and options.updates < 1:
        raise UserError(f"--updates is {options.updates}; it must be at least 1")
    dataset = load_dataset(options.dataset)
    devices = select_devices()
    references: dict[str, Any] = {}
    for algorithm in options.algorithms:
        runs, seconds = _train(algorithm, dataset, options)
        maze = maze_of(runs[0])
        if maze is None:
            named = _control(runs, dataset.name, options, devices)
        else:
            named = _mazes(runs, maze, options, devices, references)
        # What is trained first is not timed again by a second command.
        timed = [_seconds(seconds)] if seconds and maze is None else []
        for experiment, setting, rows in named:
            common = {"setting": setting, "method": algorithm}
            write_rows(
                experiment,
                [{**common, **row, "seeds": len(runs)} for row in [*rows, *timed]],
                command=_command(options),
                directory=directory,
            )


def _train(
    algorithm: str, dataset: Dataset, options: Options
) -> tuple[list[Run], list[float]]:
    """Return a run for each seed, and what training took where it was not done."""
    named, changes = VARIANTS.get(algorithm, (algorithm, {}))
    config, training = preset(named, options.preset, dataset.name)
    config = dataclasses.replace(config, **changes)
    if options.updates is not None:
        training = {
            learner: dataclasses.replace(one, num_steps=options.updates)
            for learner, one in training.items()
        }
    runs, seconds = [], []
    for seed in range(options.seeds):
        path = options.runs / f"{dataset.name.replace('/', '-')}-{algorithm}-{seed}"
        fresh = not path.exists()
        started = time.monotonic()
        runs.append(
            train_run(
                *(named, dataset, path),
                config=config,
                training=training,
                seed=seed,
                resume=True,
            )
        )
        if fresh:
            seconds.append(time.monotonic() - started)
    return runs, seconds


Named = Iterator[tuple[str, str, list[dict[str, Any]]]]


def _control(
    runs: Sequence[Run], setting: str, options: Options, devices: list[Device]
) -> Named:
    """Give experiment, setting and rows of runs in their dataset's environment."""
    game: dict[str, Any] = {"episodes": options.episodes, "seed": options.seed}
    played = [evaluate_control(run, devices=devices, **game)[1] for run in runs]
    returns = np.concatenate([one.returns for one in played])
    bounds = returns.mean(), *bootstrap(returns)
    measured = {"return": bounds}
    references = runs[0].document["dataset"]["references"]
    scores = reference_scores(references, float(bounds[0]), bounds[1:])
    if scores:
        measured = {"score": tuple(scores.values()), **measured}
    rows = [
        {
            "metric": metric,
            **bounded(bounds),
            "n": len(returns),
        }
        for metric, bounds in measured.items()
    ]
    yield "offline", setting, rows


def _mazes(
    runs: Sequence[Run],
    maze: Maze,
    options: Options,
    devices: list[Device],
    references: dict[str, Any],
) -> Named:
    """Give the same of runs in a maze, with random goals and with the one.

    Who was trained on the one alone plays for it alone, under a name of its own.
    """
    game: dict[str, Any] = {"episodes": options.episodes, "seed": options.seed}
    alone = setting_of_dataset(options.dataset) == "single"
    settings: tuple[Setting, ...] = ("single",) if alone else ("multi", "single")
    for setting in settings:
        if setting not in references:
            references[setting] = maze_references(maze, setting=setting, **game)
        played = [
            play_maze(run, setting=setting, devices=devices, **game) for run in runs
        ]
        count = sum(len(one.returns) for one in played)
        rows = [
            {**row, "n": count} for row in maze_rows(maze, played, *references[setting])
        ]
        named = f"{maze.name}-{setting}" + (", of one goal" if alone else "")
        yield "maze", named, rows


def _seconds(seconds: list[float]) -> dict[str, Any]:
    """Write the row of what training took."""
    return {
        "metric": "training_seconds",
        "value": float(np.median(seconds)),
        "low": min(seconds),
        "high": max(seconds),
        "n": len(seconds),
    }


def _command(options: Options) -> str:
    """Write the command that measures the same again."""
    updates = "" if options.updates is None else f" --updates {options.updates}"
    return (
        f"python -m benchmarks.offline {options.dataset} --algorithms "
        f"{' '.join(options.algorithms)} --preset {options.preset}{updates} "
        f"--seeds {options.seeds} --episodes {options.episodes} --seed {options.seed}"
    )


if __name__ == "__main__":
    run_command(main, Options)
