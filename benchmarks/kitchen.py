r"""Score policies in a kitchen beside its demonstrators, and draw when tasks are done.

    python -m benchmarks.kitchen RUN [RUN ...] [--methods NAME ...]
    python -m benchmarks.kitchen --dataset toy-kitchen       # the demonstrators alone

Runs, --methods and --overrides are as in `benchmarks.claw`, such as

    python -m benchmarks.kitchen runs/d runs/d runs/d --methods "Diffusion BC" \
        "Diffusion-X" "Diffusion-KDE" --overrides "" "extra_steps=8" "candidates=50"

All are compared with one half of the demonstrations. The row `demonstrator` scores as
many episodes of the other half as each run plays, or all if they are fewer. A perfect
imitator would score the same, because two samples of people differ too. Rows go to
benchmarks/results/kitchen.json, with the name of the dataset as their setting;
the metrics are those of `jaxdiff.tasks.kitchen.scores`, means over the runs of one
name. Intervals are over episodes. benchmarks/results/figures/kitchen-DATASET.png shows
the steps at which the first to fourth tasks were done.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import command_of, run_command
from benchmarks.methods import DEMONSTRATOR, MethodOptions, asked
from benchmarks.rows import RESULTS, write_rows
from jaxdiff import figures
from jaxdiff.data.episodes import Dataset
from jaxdiff.devices import select_devices
from jaxdiff.errors import UserError
from jaxdiff.evaluation import evaluate
from jaxdiff.scoring import bootstrap
from jaxdiff.tasks.control import paths_of
from jaxdiff.tasks.kitchen import TASK
from jaxdiff.tasks.kitchen.figures import plot_times
from jaxdiff.tasks.kitchen.scores import demonstrations, score_paths, times
from jaxdiff.tasks.kitchen.world import HORIZON, completions
from jaxdiff.tasks.lookup import load_dataset, task_of

FEWEST = 12  # demonstrations that can be halved and have neighbours

# Episodes [T + 1, 30].
Paths = list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Options(MethodOptions):
    """Score runs in a kitchen."""

    dataset: str | None = None
    """Score the demonstrators of this dataset, if there are no runs."""
    episodes: int = 100
    """Episodes of each run."""
    num_envs: int = 20
    """Environments side by side; fewer need less memory."""
    seed: int = 1_000
    """Seed of the first episode."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Play, score, write the rows and draw.

    Raises:
      UserError: neither runs nor a dataset, a run or a dataset of another task, or
        what `benchmarks.methods.asked` raises.
    """
    if not options.runs and options.dataset is None:
        raise UserError("there is nothing to score; name run folders or a `dataset`")
    datasets: dict[str, Dataset] = {}
    played: dict[str, dict[str, list[Paths]]] = {}
    seconds: dict[tuple[str, str], float] = {}
    if options.dataset is not None:
        datasets[options.dataset] = _dataset(options.dataset)
        played[options.dataset] = {}
    for method, run in asked(options):
        name = run.dataset["name"]
        if name not in datasets:
            datasets[name] = _dataset(name)
        if datasets[name].fingerprint != run.dataset["fingerprint"]:
            raise UserError(
                f"{run.path} was trained on other data than {name} holds now; restore "
                "that dataset, or train again"
            )
        record, rollouts = evaluate(
            run,
            episodes=options.episodes,
            seed=options.seed,
            num_envs=options.num_envs,
            devices=select_devices(),
        )
        paths = list(paths_of(rollouts))
        played.setdefault(name, {}).setdefault(method, []).append(paths)
        seconds[name, method] = seconds.get((name, method), 0.0) + record["seconds"]
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
        command = command_of("kitchen", options)
        write_rows("kitchen", rows, command=command, directory=directory)
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
    if task_of(dataset.evaluation) is not TASK:
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
    """Yield the metrics of one method, means over its runs."""
    scores = [score_paths(demonstrated, paths) for paths in runs]
    counts = np.array([len(completions(path)) for paths in runs for path in paths])
    for metric in scores[0]:
        row = {"metric": metric, "value": float(np.mean([s[metric] for s in scores]))}
        if metric.startswith("tasks_at_least_"):
            reached = counts >= int(metric.rpartition("_")[2])
            row["low"], row["high"] = bootstrap(reached)
        yield row


if __name__ == "__main__":
    run_command(main, Options, cpu_devices=2)
