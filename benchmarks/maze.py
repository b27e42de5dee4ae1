"""Score runs of one maze, the ways to choose a plan beside the expert and chance.

    python -m benchmarks.maze RUN [RUN ...] [--episodes 100] [--settings multi single]

Each run is a seed of training, and all of them play the same starts and goals. Rows go
to benchmarks/results/maze.json: score (0 random, 100 expert, same starts and goals),
success, return and D4RL's score, means over runs and episodes. The 95% bootstrap
intervals are over episodes, each with all of its runs: they say what other starts and
goals would change, and not what other seeds of training would.

When random goals are played by earliest arrival, the first plans of the first run and
the paths that came of them are drawn into benchmarks/results/figures/plans-MAZE.png,
and the episode with the longest way to its goal into episode-MAZE.gif.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks.command import run_command
from benchmarks.rows import RESULTS, write_rows
from jaxdiff import figures
from jaxdiff.demo import draw_episodes
from jaxdiff.devices import select_devices
from jaxdiff.errors import UserError
from jaxdiff.rollouts import Rollouts
from jaxdiff.run import Run, load_run, require_maze
from jaxdiff.scoring import bootstrap, score
from jaxdiff.tasks.pointmaze.scores import (
    d4rl_score,
    maze_references,
    plan_paths,
    play_maze,
)
from jaxdiff.tasks.pointmaze.world import Maze, Setting

Method = Literal["diffuser", "diffuser-replan", "diffuser-earliest"]
METHODS: dict[Method, dict[str, Any]] = {
    "diffuser": {"choose": "fixed", "lost": 0.0},
    "diffuser-replan": {"choose": "fixed", "lost": 0.0, "replan_every": 40},
    "diffuser-earliest": {"choose": "earliest"},
}
DRAWN = ("multi", "diffuser-earliest")


@dataclasses.dataclass(frozen=True)
class Options:
    """Score maze runs."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders that differ in nothing but the seed."""
    episodes: int = 100
    """Episodes a run and setting."""
    settings: tuple[Setting, ...] = ("multi", "single")
    """A random goal each episode, or D4RL's fixed goal."""
    methods: tuple[Method, ...] = tuple(METHODS)
    """Ways to choose a plan."""
    seed: int = 1_000
    """Of the first episode."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Play, score, write the rows and draw.

    Raises:
      UserError: there are no runs, a run of another maze, or a method unheard of.
    """
    maze = _common_maze(options.runs)
    unknown = [method for method in options.methods if method not in METHODS]
    if unknown:
        raise UserError(
            f"there is no method {unknown[0]!r}; choose of {', '.join(METHODS)}"
        )
    devices = select_devices()
    for setting in options.settings:
        game: dict[str, Any] = {
            "episodes": options.episodes,
            "setting": setting,
            "seed": options.seed,
        }
        expert, chance = maze_references(maze, **game)
        played = {"expert": ([expert], 0.0), "random": ([chance], 0.0)}
        for method in options.methods:
            started = time.monotonic()
            runs = [load_run(run, overrides=METHODS[method]) for run in options.runs]
            rollouts = [play_maze(run, devices=devices, **game) for run in runs]
            played[method] = (rollouts, time.monotonic() - started)
            if (setting, method) == DRAWN:
                _draw(runs[0], rollouts[0], directory / "figures")
        for method, (rollouts, seconds) in played.items():
            named = {
                "setting": f"{maze.name}-{setting}",
                "method": method,
                "n": sum(len(one.returns) for one in rollouts),
                "seeds": len(rollouts),
                "seconds": round(seconds, 1),
            }
            rows = [
                {**named, **row} for row in maze_rows(maze, rollouts, expert, chance)
            ]
            write_rows("maze", rows, command=_command(options), directory=directory)


def _common_maze(runs: Sequence[Path]) -> Maze:
    if not runs:
        raise UserError("there is no run to score; name one run folder or more")
    mazes = [require_maze(load_run(run)) for run in runs]
    for run, maze in zip(runs, mazes, strict=True):
        if maze != mazes[0]:
            raise UserError(
                f"{run} is of the maze {maze.name!r} and {runs[0]} of "
                f"{mazes[0].name!r}; score the runs of each maze by themselves"
            )
    return mazes[0]


def _command(options: Options) -> str:
    """Write the command that measures the same again."""
    runs = " ".join(["RUN"] * len(options.runs))
    return (
        f"python -m benchmarks.maze {runs} --episodes {options.episodes} "
        f"--settings {' '.join(options.settings)} "
        f"--methods {' '.join(options.methods)} --seed {options.seed}"
    )


def _draw(run: Run, rollouts: Rollouts, folder: Path) -> None:
    """Draw the first episodes, and the one with the longest way to its goal."""
    maze = require_maze(run)
    figures.save(draw_episodes(run, rollouts), folder / f"plans-{maze.name}.png")
    paths = plan_paths(rollouts, action_dim=run.document["dataset"]["action_dim"])
    assert rollouts.goals is not None
    longest = int(np.argmax([_length(path) for path in paths]))
    arrived = len(paths[longest])
    figures.animate_episode(
        maze,
        rollouts.observations[longest, : arrived + 50],
        paths[longest],
        rollouts.goals[longest],
        folder / f"episode-{maze.name}.gif",
    )


def _length(path: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(path, axis=0), axis=-1).sum())


def maze_rows(
    maze: Maze, rollouts: Sequence[Rollouts], expert: Rollouts, chance: Rollouts
) -> Iterator[dict[str, Any]]:
    """Give the metrics of one method, of means over its runs in each episode."""
    returns = np.mean([one.returns for one in rollouts], axis=0)
    successes = np.mean([one.successes for one in rollouts], axis=0)
    d4rl = [d4rl_score(maze, bound) for bound in bootstrap(returns)]
    measured = {
        "score": score(returns, chance.returns, expert.returns),
        "success": (successes.mean(), *bootstrap(successes)),
        "return": (returns.mean(), *bootstrap(returns)),
        "d4rl_score": (d4rl_score(maze, returns.mean()), *d4rl),
    }
    for metric, bounds in measured.items():
        value, low, high = (float(bound) for bound in bounds)
        yield {"metric": metric, "value": value, "low": low, "high": high}


if __name__ == "__main__":
    run_command(main, Options, cpu_devices=2)
