"""Score a maze run, its two ways to choose a plan beside the expert and chance.

    python -m benchmarks.maze RUN [RUN ...] [--episodes 100] [--settings multi single]

Each run is a seed of training; a row pools the episodes of all runs given. Rows go to
benchmarks/results/maze.json: score (0 random, 100 expert, same starts and goals),
success, return and D4RL's score, with 95% bootstrap intervals over episodes.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks.rows import write_rows
from jaxdiff.devices import request_cpu_devices, select_devices
from jaxdiff.evaluate import (
    Rollouts,
    bootstrap,
    d4rl_score,
    maze_references,
    play_maze,
    score,
)
from jaxdiff.run import load_run, require_maze

METHODS = {
    "diffuser": {"choose": "fixed"},
    "diffuser-replan": {"choose": "fixed", "replan_every": 40},
    "diffuser-earliest": {"choose": "earliest"},
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Score maze runs."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders that differ in nothing but the seed."""
    episodes: int = 100
    """Episodes a run and setting."""
    settings: tuple[Literal["multi", "single"], ...] = ("multi", "single")
    """A random goal each episode, or D4RL's fixed goal."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Of diffuser, diffuser-replan, diffuser-earliest."""
    seed: int = 1_000
    """Of the first episode."""


def main(options: Options) -> None:
    request_cpu_devices(2)
    devices = select_devices()
    maze = require_maze(load_run(options.runs[0]))
    command = (
        f"python -m benchmarks.maze RUN --episodes {options.episodes} "
        f"--seed {options.seed}"
    )
    for setting in options.settings:
        kwargs: dict[str, Any] = {
            "episodes": options.episodes,
            "setting": setting,
            "seed": options.seed,
        }
        expert, chance = maze_references(maze, **kwargs)
        played = {"expert": ([expert], 0.0), "random": ([chance], 0.0)}
        for method in options.methods:
            started = time.monotonic()
            rollouts = [
                play_maze(
                    load_run(run, overrides=METHODS[method]), devices=devices, **kwargs
                )
                for run in options.runs
            ]
            played[method] = (rollouts, time.monotonic() - started)
        for method, (rollouts, seconds) in played.items():
            rows = _rows(maze, rollouts, expert, chance)
            write_rows(
                "maze",
                [
                    {
                        "setting": f"{maze.name}-{setting}",
                        "method": method,
                        "n": sum(len(one.returns) for one in rollouts),
                        "seeds": len(rollouts),
                        "seconds": round(seconds, 1),
                        **row,
                    }
                    for row in rows
                ],
                command=command,
            )


def _rows(maze, rollouts: list[Rollouts], expert: Rollouts, chance: Rollouts):
    returns = np.concatenate([one.returns for one in rollouts])
    successes = np.concatenate([one.successes for one in rollouts])
    repeated = [np.tile(one.returns, len(rollouts)) for one in (chance, expert)]
    value, low, high = score(returns, *repeated)
    yield {"metric": "score", "value": value, "low": low, "high": high}
    d4rl = [d4rl_score(maze, bound) for bound in bootstrap(returns)]
    measured = {
        "success": (successes.mean(), *bootstrap(successes)),
        "return": (returns.mean(), *bootstrap(returns)),
        "d4rl_score": (d4rl_score(maze, returns.mean()), *d4rl),
    }
    for metric, bounds in measured.items():
        value, low, high = (float(bound) for bound in bounds)
        yield {"metric": metric, "value": value, "low": low, "high": high}


if __name__ == "__main__":
    main(tyro.cli(Options))
