"""Score and success against the horizon of a plan, fixed or chosen.

    python -m benchmarks.arrival RUN [RUN ...] [--episodes 100]

Each run is of another maze and plays the same episodes with random goals. For each of
its horizons it follows one plan of that horizon an episode, which arrives at its last
step. Then it chooses the earliest feasible plan. Rows go to
benchmarks/results/arrival.json (methods `fixed-H` and `earliest`, metrics score and
success); `python benchmarks/report.py` draws them.
"""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import tyro

from benchmarks.command import command_of, run_command
from benchmarks.maze import maze_rows, play_maze
from benchmarks.playing import with_config
from benchmarks.rows import RESULTS, write_rows
from jaxdiff.algorithms.planning.options import declared_horizons
from jaxdiff.errors import UserError
from jaxdiff.run import Run, load_run
from jaxdiff.tasks.pointmaze.question import run_maze


@dataclasses.dataclass(frozen=True)
class Options:
    """Score plans of every horizon beside the earliest."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, one of each maze."""
    episodes: int = 100
    """Episodes for every horizon."""
    seed: int = 1_000
    """Seed of the first episode."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Play and write the rows of each run.

    Raises:
      UserError: there are no runs, one is no maze's, or two are of the same maze.
    """
    if not options.runs:
        raise UserError("there is no run to score; name one run folder or more")
    names = [run_maze(load_run(path)).name for path in options.runs]
    if len(set(names)) < len(names):
        raise UserError(
            f"the runs are of the mazes {', '.join(names)}; name one run of each maze"
        )
    for path, name in zip(options.runs, names, strict=True):
        for method, run in methods(path):
            started = time.monotonic()
            played = play_maze(run, "multi", options.episodes, options.seed)
            seconds = round(time.monotonic() - started, 1)
            named = {"setting": name, "method": method, "seeds": 1, "seconds": seconds}
            rows = [
                {**named, **row}
                for row in maze_rows([played], played)
                if row["metric"] in ("score", "success")
            ]
            command = command_of("arrival", options)
            write_rows("arrival", rows, command=command, directory=directory)


def methods(path: Path) -> Iterator[tuple[str, Run]]:
    """Yield each way to play the run in a folder, by its name."""
    fixed = {"choose": "fixed", "lost": 0.0, "replan_every": 0}
    run = load_run(path, overrides=fixed)
    for horizon in declared_horizons(run.config):
        yield f"fixed-{horizon}", with_config(run, horizon=horizon, train_horizons=())
    yield "earliest", load_run(path, overrides={"choose": "earliest"})


if __name__ == "__main__":
    run_command(main, Options, cpu_devices=2)
