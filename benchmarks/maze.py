"""Score ways to choose a plan in a maze, beside the expert and chance.

    python -m benchmarks.maze RUN [RUN ...] [--episodes 100] [--settings multi single]

Each run is a seed of training, and all of them play the same starts and goals. Rows go
to benchmarks/results/maze.json: score (0 random, 100 expert, same starts and goals),
success, return and D4RL's score, means over runs and episodes. The 95% bootstrap
intervals are over episodes, each with all of its runs: they cover other starts and
goals, but not other seeds of training.

When random goals are played by earliest arrival, benchmarks/results/figures shows the
first plans of the first run and the paths that came of them (plans-MAZE.png), and the
episode with the longest way to its goal (episode-MAZE.gif).
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks.command import command_of, run_command
from benchmarks.rows import RESULTS, bounded, write_rows
from jaxdiff import figures
from jaxdiff.devices import select_devices
from jaxdiff.errors import UserError
from jaxdiff.evaluation import evaluate
from jaxdiff.rollouts import Rollouts
from jaxdiff.run import Run, load_run
from jaxdiff.scoring import bootstrap, score
from jaxdiff.tasks.pointmaze.environment import Setting
from jaxdiff.tasks.pointmaze.figures import animate_episode, plot_episodes
from jaxdiff.tasks.pointmaze.question import run_maze
from jaxdiff.tasks.pointmaze.scores import MazeRollouts, d4rl_score, plan_paths

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
    """Run folders that differ in their seed alone."""
    episodes: int = 100
    """Episodes of each run and setting."""
    settings: tuple[Setting, ...] = ("multi", "single")
    """A random goal each episode, or D4RL's fixed goal."""
    methods: tuple[Method, ...] = tuple(METHODS)
    """Ways to choose a plan."""
    seed: int = 1_000
    """Seed of the first episode."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Play, score, write the rows and draw.

    Raises:
      UserError: there are no runs, a run of another maze, or no or an unknown method.
    """
    _check_one_maze(options.runs)
    unknown = [method for method in options.methods if method not in METHODS]
    if unknown or not options.methods:
        raise UserError(
            f"`methods` is {options.methods}; choose among {', '.join(METHODS)}"
        )
    for setting in options.settings:
        played: dict[str, tuple[list[Rollouts], float]] = {}
        for method in options.methods:
            started = time.monotonic()
            runs = [load_run(run, overrides=METHODS[method]) for run in options.runs]
            rollouts = [
                play_maze(run, setting, options.episodes, options.seed) for run in runs
            ]
            played[method] = (list(rollouts), time.monotonic() - started)
            if (setting, method) == DRAWN:
                _draw(runs[0], rollouts[0], directory / "figures")
        one = rollouts[0]
        played = {"expert": ([one.expert], 0.0), "random": ([one.chance], 0.0)} | played
        for method, (each, seconds) in played.items():
            named = {
                "setting": f"{one.maze.name}-{setting}",
                "method": method,
                "seeds": len(each),
                "seconds": round(seconds, 1),
            }
            rows = [{**named, **row} for row in maze_rows(each, one)]
            command = command_of("maze", options)
            write_rows("maze", rows, command=command, directory=directory)


def play_maze(run: Run, setting: Setting, episodes: int, seed: int) -> MazeRollouts:
    """Play a run in its maze, and beside it the expert and the random policy.

    Raises:
      UserError: the run is of no maze.
    """
    run_maze(run)
    return evaluate(
        run,
        options={"setting": setting},
        episodes=episodes,
        seed=seed,
        devices=select_devices(),
    )[1]


def maze_rows(played: Sequence[Rollouts], one: MazeRollouts) -> Iterator[Any]:
    """Yield the metrics of one method, of means over its runs in each episode.

    Args:
      played: the same episodes, of each run.
      one: those episodes with the maze, the expert and the random policy.
    """
    returns = np.mean([each.returns for each in played], axis=0)
    successes = np.mean([each.successes for each in played], axis=0)
    found = {
        "score": score(returns, one.chance.returns, one.expert.returns),
        "success": (successes.mean(), *bootstrap(successes)),
        "return": (returns.mean(), *bootstrap(returns)),
    }
    if one.maze.d4rl_expert is not None:
        found["d4rl_score"] = tuple(d4rl_score(one.maze, x) for x in found["return"])
    count = sum(len(each.returns) for each in played)
    for metric, bounds in found.items():
        yield {"metric": metric, **bounded(bounds), "n": count}


def _check_one_maze(runs: Sequence[Path]) -> None:
    if not runs:
        raise UserError("there is no run to score; name one run folder or more")
    mazes = [run_maze(load_run(run)) for run in runs]
    for run, maze in zip(runs, mazes, strict=True):
        if maze != mazes[0]:
            raise UserError(
                f"{run} is of the maze {maze.name!r} and {runs[0]} of "
                f"{mazes[0].name!r}; score the runs of each maze by themselves"
            )


def _draw(run: Run, played: MazeRollouts, folder: Path) -> None:
    """Draw the first episodes, and the one with the longest way to its goal."""
    maze = played.maze
    figures.save(plot_episodes(run, played), folder / f"plans-{maze.name}.png")
    paths = plan_paths(played)
    assert played.goals is not None
    longest = int(np.argmax([_length(path) for path in paths]))
    arrived = len(paths[longest])
    animate_episode(
        maze,
        played.observations[longest, : arrived + 50],
        paths[longest],
        played.goals[longest],
        folder / f"episode-{maze.name}.gif",
    )


def _length(path: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(path, axis=0), axis=-1).sum())


if __name__ == "__main__":
    run_command(main, Options, cpu_devices=2)
