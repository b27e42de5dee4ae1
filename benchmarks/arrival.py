"""When does a plan arrive: score and success against the horizon, fixed and chosen.

    python -m benchmarks.arrival RUN [RUN ...] [--episodes 100]

Each run is of another maze. It plays the same episodes with random goals once for each
of its horizons, with one plan of that horizon an episode, which arrives at its last
step, and once choosing the earliest plan that is feasible. Rows go to
benchmarks/results/arrival.json (methods `fixed-H` and `earliest`, metrics score and
success); `python benchmarks/report.py` draws them.
"""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro

from benchmarks.command import run_command
from benchmarks.rows import RESULTS, bounded, write_rows
from jaxdiff.algorithms.planning.diffuser import declared_horizons
from jaxdiff.devices import select_devices
from jaxdiff.errors import UserError
from jaxdiff.run import load_run, require_maze
from jaxdiff.scoring import bootstrap, score
from jaxdiff.tasks.pointmaze.scores import maze_references, play_maze


@dataclasses.dataclass(frozen=True)
class Options:
    """Score plans of every horizon beside the earliest."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, one of each maze."""
    episodes: int = 100
    """Episodes for every horizon."""
    seed: int = 1_000
    """Of the first episode."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Play and write the rows of each run.

    Raises:
      UserError: there are no runs, one is no maze's, or two are of the same maze.
    """
    if not options.runs:
        raise UserError("there is no run to score; name one run folder or more")
    names = [require_maze(load_run(path)).name for path in options.runs]
    if len(set(names)) < len(names):
        raise UserError(
            f"the runs are of the mazes {', '.join(names)}; name one run of each maze"
        )
    game: dict[str, Any] = {"episodes": options.episodes, "seed": options.seed}
    devices = select_devices()
    for path, name in zip(options.runs, names, strict=True):
        maze = require_maze(load_run(path))
        expert, chance = maze_references(maze, **game)
        for method, overrides in _methods(path):
            started = time.monotonic()
            run = load_run(path, overrides=overrides)
            own = play_maze(run, devices=devices, **game)
            successes = own.successes.astype(float)
            measured = {
                "score": score(own.returns, chance.returns, expert.returns),
                "success": (successes.mean(), *bootstrap(successes)),
            }
            rows = [
                {
                    "setting": name,
                    "method": method,
                    "metric": metric,
                    **bounded(bounds),
                    "n": options.episodes,
                    "seeds": 1,
                    "seconds": round(time.monotonic() - started, 1),
                }
                for metric, bounds in measured.items()
            ]
            command = (
                f"python -m benchmarks.arrival {' '.join(['RUN'] * len(names))} "
                f"--episodes {options.episodes} --seed {options.seed}"
            )
            write_rows("arrival", rows, command=command, directory=directory)


def _methods(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name each way to play, and the options that it changes."""
    fixed = {"choose": "fixed", "lost": 0.0, "replan_every": 0}
    for horizon in declared_horizons(load_run(path).config):
        yield f"fixed-{horizon}", {**fixed, "horizon": horizon, "train_horizons": ()}
    yield "earliest", {"choose": "earliest"}


if __name__ == "__main__":
    run_command(main, Options, cpu_devices=2)
