"""Score policies at PushT, beside its demonstrator, and draw their ways round.

    python -m benchmarks.pusht [RUN ...] [--methods NAME ...] [--overrides TEXT ...]

Runs, --methods and --overrides are as in `benchmarks.claw`. Rows go to
benchmarks/results/pusht.json. In the setting pusht every episode has a start of its
own: success, the largest share of the goal that the block covered, and steps to the end
of an episode. In pusht-one-start the agent always stands opposite the side to be
pushed, and both ways round the block are equally good. `right_hand` is the share of
episodes that take one of them: a half for the demonstrator, and 0 or 1 for a policy
that knows only one. benchmarks/results/figures/pusht.png shows those episodes.
Intervals are over episodes.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import command_of, run_command
from benchmarks.methods import DEMONSTRATOR, MethodOptions, asked
from benchmarks.rows import RESULTS, measured, write_rows
from jaxdiff import figures
from jaxdiff.devices import select_devices
from jaxdiff.errors import UserError
from jaxdiff.evaluation import make_env
from jaxdiff.rollouts import Session, rollout
from jaxdiff.run import Run
from jaxdiff.tasks.control import paths_of
from jaxdiff.tasks.lookup import task_of
from jaxdiff.tasks.pusht import TASK
from jaxdiff.tasks.pusht import world as pusht
from jaxdiff.tasks.pusht.environment import make_raw
from jaxdiff.tasks.pusht.figures import plot_pushes
from jaxdiff.tasks.pusht.recipe import record_episode

# Agent x, y; what gym-pusht makes of block x, y, angle: it sets the angle last.
START = np.array([400.0, 400.0, 200.0, 200.0, np.pi / 4])

# Of each episode: observations [T + 1, 5], whether it succeeded, and the best reward.
Played = list[tuple[np.ndarray, bool, float]]
# (episodes, options of reset) -> episodes
Player = Callable[[int, dict[str, Any] | None], Played]


@dataclasses.dataclass(frozen=True)
class Options(MethodOptions):
    """Score PushT runs; the demonstrator is scored in any case."""

    episodes: int = 50
    """Episodes with different starts."""
    repeats: int = 30
    """Episodes from the one start."""
    noise: float = 4.0
    """Noise of the demonstrator's actions, px."""
    seed: int = 1_000
    """Seed of the first episode."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Play, score, write the rows and draw.

    Raises:
      UserError: a run of another task, or what `benchmarks.methods.asked` raises.
    """
    paths: dict[str, list[np.ndarray]] = {}
    turns: dict[str, list[int]] = {}
    for method, player in _players(options):
        started = time.monotonic()
        free = player(options.episodes, None)
        same = player(options.repeats, {"reset_to_state": START})
        seconds = round(time.monotonic() - started, 1)
        ways = [pusht.way_round(observations) for observations, *_ in same]
        found = {
            ("pusht", "success"): [won for _, won, _ in free],
            ("pusht", "coverage"): [pusht.ENOUGH * best for *_, best in free],
            ("pusht", "steps"): [len(path) - 1 for path, *_ in free],
            ("pusht-one-start", "success"): [won for _, won, _ in same],
            ("pusht-one-start", "right_hand"): [way == 1 for way in ways],
        }
        rows = [
            {
                "setting": setting,
                "method": method,
                "metric": metric,
                **measured(values),
                "seeds": 1,
                "seconds": seconds,
            }
            for (setting, metric), values in found.items()
        ]
        command = command_of("pusht", options)
        write_rows("pusht", rows, command=command, directory=directory)
        paths[method], turns[method] = [path for path, *_ in same], ways
    figures.save(plot_pushes(paths, turns), directory / "figures" / "pusht.png")


def _players(options: Options) -> Iterator[tuple[str, Player]]:
    """Yield the demonstrator and the runs, each as something that plays episodes."""
    runs = asked(options)
    yield DEMONSTRATOR, lambda count, reset: _demonstrate(options, count, reset)
    for name, run in runs:
        if task_of(run.environment()) is not TASK:
            raise UserError(
                f"{run.path} is no run of PushT; name runs of the recipe pusht"
            )
        yield name, _player_of(run, options)


def _player_of(run: Run, options: Options) -> Player:
    devices = select_devices()

    def player(count: int, reset: dict[str, Any] | None) -> Played:
        session = Session(
            lambda envs, seeds: run.policy(envs, seeds=seeds, devices=devices),
            episodes=count,
            num_envs=25,
            seed=options.seed,
            label=run.name,
        )
        played = rollout(session, lambda: make_env(run), options=reset)
        assert played.successes is not None
        wins, peaks = map(bool, played.successes), map(float, played.peaks)
        return list(zip(paths_of(played), wins, peaks, strict=True))

    return player


def _demonstrate(options: Options, count: int, reset: dict[str, Any] | None) -> Played:
    env, rng = make_raw(), np.random.default_rng(options.seed)
    played = []
    for i in range(count):
        episode = record_episode(
            env,
            1 if rng.random() < 0.5 else -1,
            rng,
            seed=options.seed + i,
            noise=options.noise,
            start=None if reset is None else reset["reset_to_state"],
        )
        won, best = bool(episode["terminations"][-1]), float(episode["rewards"].max())
        played.append((episode["observations"], won, best))
    return played


if __name__ == "__main__":
    run_command(main, Options, cpu_devices=2)
