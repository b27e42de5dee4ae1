"""Distil a planner into fast policies, and score and time them beside it.

    python -m benchmarks.habit RUN [--algorithm bc] [--noises 0 0.3] [--runs FOLDER]

For each noise the planner RUN is recorded and an algorithm trained on what it did, see
`jaxdiff.habit`; what was recorded or trained before is not made again. All play the
same episodes. Rows of the experiment `habit`, by the planner and by each habit:

- score, return: of episodes in the environment of the run, many side by side;
- decisions_per_second: of a policy in one environment: the steps of an episode over the
  seconds that the policy took, its plans included; median over episodes;
- slowest_ms: milliseconds of the slowest decision of an episode, such as a plan; median
  over episodes;
- faster: decisions a second over those of the planner;
- record_seconds, train_seconds: compilation included; of what was made just now.

Decisions are timed after a first episode, which compiles. On a CPU all seconds are
those of the processor, which other load disturbs least.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tyro

from benchmarks.command import command_of, run_command
from benchmarks.playing import TimedPolicy, clock, play_run
from benchmarks.rows import RESULTS, measured, write_rows
from jaxdiff.errors import UserError, require_at_least
from jaxdiff.evaluation import make_env
from jaxdiff.habit import Habit, record_run
from jaxdiff.rollouts import Episode, play_wave
from jaxdiff.run import Run, load_run
from jaxdiff.training import train_run


@dataclasses.dataclass(frozen=True)
class Options:
    """Score and time habits beside their planner."""

    run: tyro.conf.Positional[Path]
    """A planner."""
    algorithm: str = "bc"
    """Algorithm of `jaxdiff list` that learns the habit."""
    noises: tuple[float, ...] = (0.0, 0.3)
    """Noise on the planner's actions while it is recorded."""
    recorded: int = Habit().habit_episodes
    """Episodes that are recorded."""
    preset: str | None = None
    """Options of the algorithm; by default demo, or generic where there is none."""
    updates: int | None = None
    """Updates of the habit, in place of the preset's."""
    episodes: int = 100
    """Episodes to score."""
    timed: int = 5
    """Episodes to time."""
    seed: int = 1_000
    """Seed of the first episode that is scored or timed."""
    runs: Path = Path("runs/habits")
    """Folder of the habits' run folders."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Distil what is missing, play, time and write the rows.

    Raises:
      UserError: a count below 1, or what `record_run` or `train_run` raise.
    """
    require_at_least(1, episodes=options.episodes, timed=options.timed)
    planner = load_run(options.run)
    setting, base = None, None
    for method, run, seconds in _methods(planner, options):
        named, rows = play_run(run, options)
        rates, slowest = _timed(run, options)
        rate = float(np.median(rates))
        if base is None:  # the planner is the first
            setting, base = named, rate
        rows += [
            {"metric": "decisions_per_second", **measured(rates, statistic=np.median)},
            {"metric": "slowest_ms", **measured(slowest, statistic=np.median)},
            {"metric": "faster", "value": rate / base},
        ]
        rows += [{"metric": name, "value": value} for name, value in seconds.items()]
        write_rows(
            "habit",
            [{"setting": setting, "method": method, **row} for row in rows],
            command=command_of("habit", options, without=("runs",)),
            directory=directory,
        )
        shown = ", ".join(f"{row['metric']} {row['value']:.4g}" for row in rows)
        print(f"{setting}, {method}: {shown}", flush=True)


def _methods(
    planner: Run, options: Options
) -> Iterator[tuple[str, Run, dict[str, float]]]:
    """Yield the planner and its habits: method, run, and what distilling took."""
    yield f"{planner.name} (planner)", planner, {}
    updates = {} if options.updates is None else {"num_steps": options.updates}
    for noise in options.noises:
        habit = Habit(habit_episodes=options.recorded, habit_noise=noise)
        name = f"{planner.path.resolve().name}-{options.algorithm}-{noise:g}"
        path = options.runs / name
        known, fresh = _recordings(planner), not path.exists()
        began = clock()
        # As many side by side as are scored, which compiles nothing.
        data = record_run(planner, habit, num_envs=min(100, options.episodes))
        recorded = clock()
        run = train_run(
            options.algorithm,
            data,
            path,
            preset=options.preset,
            training=updates,
            resume=True,
        )
        seconds = {}
        if _recordings(planner) != known:
            seconds["record_seconds"] = recorded - began
        if fresh:
            seconds["train_seconds"] = clock() - recorded
        yield f"{options.algorithm}, noise {noise:g}", run, seconds


def _recordings(planner: Run) -> set[Path]:
    return set((planner.path / "habits").glob("*.npz"))


def _timed(run: Run, options: Options) -> tuple[list[float], list[float]]:
    """Return decisions a second, and milliseconds of the slowest, of each episode."""
    env, calls = make_env(run), list[tuple[float, int]]()
    policy = TimedPolicy(run.policy(), calls)
    rates, slowest = [], []
    # The first episode is played twice.
    for i in (0, *range(options.timed)):
        seed = options.seed + i
        policy.reset(seeds=[seed])
        calls.clear()
        for _, episode in play_wave(policy, [env], [seed]):
            if isinstance(episode, Episode):
                seconds = [spent for spent, _ in calls]
                rates.append(len(seconds) / sum(seconds))
                slowest.append(1e3 * max(seconds))
    env.close()
    if len(rates) < 2:
        raise UserError(f"no episode of {run.path} came to its end; none is timed")
    return rates[1:], slowest[1:]


if __name__ == "__main__":
    run_command(main, Options, cpu_devices=1)
