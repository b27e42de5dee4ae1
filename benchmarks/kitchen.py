r"""Score policies in a kitchen beside its demonstrators, and draw when tasks are done.

    python -m benchmarks.kitchen RUN [RUN ...] [--methods NAME ...]
    python -m benchmarks.kitchen --dataset toy-kitchen       # the demonstrators alone

Runs, --methods and --overrides are as in `benchmarks.claw`, such as

    python -m benchmarks.kitchen runs/d runs/d runs/d --methods "Diffusion BC" \
        "Diffusion-X" "Diffusion-KDE" --overrides "" "extra_steps=8" "candidates=50"

All are compared with one half of the demonstrations. As many of the other half as
episodes are played (all of them, where they are fewer) are the row `demonstrator`: what
a perfect imitator would score, for two samples of people differ too. Rows go to
benchmarks/results/kitchen.json, with the name of the dataset as their setting; the
metrics are those of `jaxdiff.tasks.kitchen.scores`, means over the runs of one name.
Intervals are over episodes. The steps at which the first to fourth tasks were done are
shown in benchmarks/results/figures/kitchen-DATASET.png.
"""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.claw import DEMONSTRATOR, asked, asked_words
from benchmarks.command import run_command
from benchmarks.rows import RESULTS, write_rows
from jaxdiff import figures
from jaxdiff.data.episodes import Dataset, load_dataset
from jaxdiff.devices import select_devices
from jaxdiff.errors import UserError
from jaxdiff.run import load_run
from jaxdiff.scoring import bootstrap
from jaxdiff.tasks.imitation_figures import plot_times
from jaxdiff.tasks.kitchen.scores import (
    demonstrations,
    evaluate_kitchen,
    paths_of,
    score_paths,
    times,
)
from jaxdiff.tasks.kitchen.world import ENVIRONMENTS, HORIZON, completions

FEWEST = 12  # demonstrations that can be halved and have neighbours

# Episodes [T + 1, 30].
Paths = list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Options:
    """Score runs in a kitchen."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders."""
    methods: tuple[str, ...] = ()
    """What each run is called; its algorithm's name by default."""
    overrides: tuple[str, ...] = ()
    """For each run, options of acting to change: "NAME=VALUE NAME=VALUE"."""
    dataset: str | None = None
    """Score the demonstrators of this dataset, if there are no runs."""
    episodes: int = 100
    """Played by each run."""
    num_envs: int = 20
    """Side by side; fewer need less memory."""
    seed: int = 1_000
    """Of the first episode."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Play, score, write the rows and draw.

    Raises:
      UserError: neither runs nor a dataset, a run or a dataset of another task, or
        what `benchmarks.claw.asked` raises.
    """
    if not options.runs and options.dataset is None:
        raise UserError("there is nothing to score; name run folders or a --dataset")
    datasets: dict[str, Dataset] = {}
    played: dict[str, dict[str, list[Paths]]] = {}
    seconds: dict[tuple[str, str], float] = {}
    if options.dataset is not None:
        datasets[options.dataset] = _dataset(options.dataset)
        played[options.dataset] = {}
    for path, method, overrides in asked(options, optional=True):
        run = load_run(path, overrides=overrides)
        method, name = method or run.name, run.document["dataset"]["name"]
        if name not in datasets:
            datasets[name] = _dataset(name)
        if datasets[name].fingerprint != run.document["dataset"]["fingerprint"]:
            raise UserError(
                f"{path} was trained on other data than {name} holds now; restore "
                "that dataset, or train again"
            )
        started = time.monotonic()
        _, rollouts = evaluate_kitchen(
            run,
            episodes=options.episodes,
            seed=options.seed,
            num_envs=options.num_envs,
            devices=select_devices(),
        )
        played.setdefault(name, {}).setdefault(method, []).append(paths_of(rollouts))
        spent = seconds.get((name, method), 0.0) + time.monotonic() - started
        seconds[name, method] = spent
    for name, methods in played.items():
        one, other = _halves(datasets[name], options)
        methods = {DEMONSTRATOR: [other], **methods}
        rows = [
            {
                "setting": name,
                "method": method,
                "n": sum(map(len, runs)),
                "seeds": len(runs),
                "seconds": round(seconds.get((name, method), 0.0), 1),
                **row,
            }
            for method, runs in methods.items()
            for row in _rows(one, runs)
        ]
        write_rows("kitchen", rows, command=_command(options), directory=directory)
        shown = {
            method: np.concatenate([times(paths) for paths in runs])
            for method, runs in methods.items()
        }
        shown[DEMONSTRATOR] = times(one + other)
        drawn = plot_times(shown, shaded=DEMONSTRATOR, horizon=HORIZON)
        file = f"kitchen-{name.strip('/').replace('/', '-')}.png"
        figures.save(drawn, directory / "figures" / file)


def _dataset(name: str) -> Dataset:
    dataset = load_dataset(name, download=True)
    if dataset.environment not in ENVIRONMENTS:
        raise UserError(f"{name} is no dataset of a kitchen; name one, or runs of one")
    if len(dataset.episodes.lengths) < FEWEST:
        raise UserError(
            f"{name} has {len(dataset.episodes.lengths)} demonstrations, too few to "
            f"compare with; make at least {FEWEST}"
        )
    return dataset


def _halves(dataset: Dataset, options: Options) -> tuple[Paths, Paths]:
    """Split the demonstrations: what to compare with, and the row of their own."""
    paths = demonstrations(dataset.episodes)
    order = np.random.default_rng(options.seed).permutation(len(paths))
    half = len(paths) // 2
    taken = order[half : half + options.episodes]
    return [paths[i] for i in order[:half]], [paths[i] for i in taken]


def _rows(demonstrated: Paths, runs: list[Paths]) -> Iterator[dict[str, Any]]:
    """Give the metrics of one method, means over its runs."""
    scores = [score_paths(demonstrated, paths) for paths in runs]
    counts = np.array([len(completions(path)) for paths in runs for path in paths])
    for metric in scores[0]:
        row = {"metric": metric, "value": float(np.mean([s[metric] for s in scores]))}
        if metric.startswith("tasks_at_least_"):
            reached = counts >= int(metric.rpartition("_")[2])
            row["low"], row["high"] = bootstrap(reached)
        yield row


def _command(options: Options) -> str:
    """Write the command that measures the same again."""
    words = ["python -m benchmarks.kitchen", *asked_words(options)]
    if options.dataset is not None:
        words += ["--dataset", options.dataset]
    counts = f"--episodes {options.episodes} --num-envs {options.num_envs}"
    return " ".join([*words, counts, f"--seed {options.seed}"])


if __name__ == "__main__":
    run_command(main, Options, cpu_devices=2)
