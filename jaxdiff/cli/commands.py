"""The commands: each reads its flags and calls one function of the library.

Flags are built from what is registered: options of algorithms, tasks and recipes. The
defaults of a training command come from the preset of its dataset, those of `evaluate`
and `plan` from the run.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.cli.act import evaluate_command, plan_command, tune_command
from jaxdiff.cli.bench import bench_command
from jaxdiff.cli.data import info_command, make_command
from jaxdiff.cli.flags import (
    DEVICES,
    PLATFORM,
    ROOT,
    SEED,
    devices_of,
    require_seed,
    sentence,
)
from jaxdiff.cli.parsing import Flag, parse, table
from jaxdiff.cli.train import train_command


class Command(NamedTuple):
    """One command.

    Attributes:
      summary: what it does, one line.
      run: `(name in messages, arguments) -> None`.
    """

    summary: str
    run: Callable[[str, list[str]], None]


def commands() -> dict[str, Command]:
    """Return every command by name, those of registered algorithms included."""
    return {
        "demo": Command(
            "Make data, train, plan, act in MuJoCo and draw it all.", demo_command
        ),
        "list": Command(
            "List recipes, datasets, algorithms and presets.", list_command
        ),
        "data make": Command("Record a dataset with a simulator.", make_command),
        "data info": Command(
            "Describe a dataset: size, ranges, returns.", info_command
        ),
        **{
            f"train {name}": Command(sentence(entry.summary), train_command(name))
            for name, entry in ALGORITHMS.items()
        },
        "evaluate": Command(
            "Play episodes with a run and score them.", evaluate_command
        ),
        "tune-guidance": Command(
            "Try settings of guidance side by side.", tune_command
        ),
        "plan": Command("Plan from a start, perhaps to a goal.", plan_command),
        "bench": Command(
            "Measure latency, throughput, training and compilation.", bench_command
        ),
    }


def demo_command(prog: str, args: list[str]) -> None:
    """Make data, train, plan, act in MuJoCo and draw."""
    from jaxdiff.demo import BATCH, demo

    flags = [
        Flag("out", Path, "Folder for data, run and pictures.", Path("demo")),
        Flag("episodes", int, "Episodes to play for the score.", 100),
        Flag("num_steps", int | None, "Updates; fewer for a quicker look.", None),
        SEED, DEVICES, PLATFORM,
    ]  # fmt: skip
    asked = parse(prog, args, flags, "Make data, train, plan, act in MuJoCo and draw.")
    require_seed(asked["seed"])
    devices = devices_of(asked.pop("devices"), asked.pop("platform"), batch=BATCH)
    table(demo(asked.pop("out"), devices=devices, **asked))


def list_command(prog: str, args: list[str]) -> None:
    """List what there is."""
    from jaxdiff.data.locate import datasets_root, local_datasets
    from jaxdiff.tasks.lookup import TASKS, recipes

    root = parse(prog, args, [ROOT], "List recipes, datasets and algorithms.")["root"]
    stored = local_datasets(root)
    presets = {
        f"presets of {name}": ", ".join(
            f"{algorithm} ({', '.join(names)})"
            for algorithm, names in _presets_by_algorithm(task).items()
        )
        or "none; generic serves"
        for name, task in TASKS.items()
    }
    table(
        {
            "recipes": ", ".join(
                f"{name} (made)" if recipe.dataset_id in stored else name
                for name, recipe in recipes().items()
            ),
            f"datasets in {datasets_root(root)}": ", ".join(stored) or "none",
            "algorithms": ", ".join(ALGORITHMS),
            "tasks": ", ".join(TASKS),
            **presets,
        }
    )


def _presets_by_algorithm(task: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for algorithm, name in task.presets:
        found.setdefault(algorithm, []).append(name)
    return found
