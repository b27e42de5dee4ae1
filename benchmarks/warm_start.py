"""Score warm-started replanning: what a plan from the last one costs, and saves.

    python -m benchmarks.warm_start RUN [--episodes 20] [--sampling-steps 20]

RUN is a run of control (Hopper, Walker2d, HalfCheetah). Its agent plays the same
episodes with the last plan noised again to 1, 2, a quarter, a half and all of the
levels that its sampler walks, those of the run or as many as `--sampling-steps`; from
the last level a plan is as good as new. Rows go to
benchmarks/results/warm-start.json, setting `N levels;k=K`: score (where the dataset has
references, otherwise return) with 95% bootstrap intervals over episodes, and plans a
second, the median over calls of the compiled planner for one problem with all
candidates of the run. Both are drawn into benchmarks/results/figures/warm-start.png.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from benchmarks.command import run_command
from benchmarks.rows import RESULTS, bootstrap_interval, write_rows
from jaxdiff import figures
from jaxdiff.devices import select_devices
from jaxdiff.errors import UserError
from jaxdiff.run import Run, load_run, maze_of
from jaxdiff.tasks.control import evaluate_control, make_env


@dataclasses.dataclass(frozen=True)
class Options:
    """Score warm starts of a run of control."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    episodes: int = 20
    """Played for every level."""
    seed: int = 1_000
    """Of the first episode."""
    calls: int = 20
    """Of the planner, timed for every level."""
    sampling_steps: int | None = None
    """Levels that the sampler walks; by default those of the run."""
    levels: tuple[int, ...] = ()
    """Levels to noise to, and no picture; by default the five named above."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Play, time, write the rows and draw.

    Raises:
      UserError: the run is of a maze, or has an option that warm starts exclude, or a
        level that its sampler does not walk.
    """
    if options.calls < 1:
        raise UserError(f"--calls is {options.calls}; it must be at least 1")
    own = {"sampling_steps": options.sampling_steps} if options.sampling_steps else {}
    loaded = load_run(options.run, overrides=own)
    if maze_of(loaded) is not None:
        raise UserError(
            f"{options.run} is a run of a maze; give this benchmark a run of control"
        )
    rows = []
    steps = walked(loaded.config)
    for level in options.levels:
        if not 1 <= level <= steps:
            raise UserError(
                f"--levels has {level}; the sampler walks {steps}, so choose from 1 to "
                f"{steps}"
            )
    for level in options.levels or levels(loaded.config):
        run = load_run(options.run, overrides={**own, "warm_start": level})
        started = time.monotonic()
        measured = {
            **_played(run, options),
            "plans_per_second": (*plans_per_second(run, options), options.calls),
        }
        seconds = round(time.monotonic() - started, 1)
        rows += [
            {
                "setting": f"{steps} levels;k={level}",
                "method": run.name,
                "metric": metric,
                **dict(zip(("value", "low", "high", "n"), numbers, strict=True)),
                "seeds": 1,
                "seconds": seconds,
            }
            for metric, numbers in measured.items()
        ]
        print(", ".join(f"{row['metric']} {row['value']:.4g}" for row in rows[-2:]))
        write_rows(
            "warm-start", rows[-2:], command=_command(options), directory=directory
        )
    if options.levels:
        return
    figures.save(
        figures.plot_sweep(rows, label="levels to which the last plan is noised again"),
        directory / "figures" / "warm-start.png",
    )


def levels(config: Any) -> list[int]:
    """Return 1, 2, a quarter, a half and all of the levels that a sampler walks."""
    steps = walked(config)
    wanted = (1, 2, round(steps / 4), round(steps / 2), steps)
    return sorted({level for level in wanted if 1 <= level <= steps})


def walked(config: Any) -> int:
    """Return how many levels a sampler walks."""
    return config.sampling_steps or config.diffusion_steps


def _played(run: Run, options: Options) -> dict[str, tuple[float, ...]]:
    """Play the episodes; give the metric with its bounds and count."""
    record, _ = evaluate_control(
        run, episodes=options.episodes, seed=options.seed, devices=select_devices()
    )
    if "score" in record:
        bounds = (record["score"], record["score_low"], record["score_high"])
        return {"score": (*bounds, options.episodes)}
    bounds = (record["mean_return"], *record["return_interval"])
    return {"return": (*bounds, options.episodes)}


def plans_per_second(run: Run, options: Options) -> tuple[float, float, float]:
    """Time the compiled planner of one problem; the median and its interval."""
    assert run.algorithm.plan is not None
    env = make_env(run)
    observation = np.asarray(env.reset(seed=options.seed)[0], np.float32)[None]
    env.close()
    plan = jax.jit(run.algorithm.plan)
    # Time does not depend on what is gone on from: here, on standing still.
    row = np.append(np.zeros(run.document["dataset"]["action_dim"]), observation)
    followed = np.tile(row.astype(np.float32), (1, run.config.horizon, 1))
    rates = []
    for call in range(options.calls + 1):
        key = jax.block_until_ready(jax.random.key(call))
        started = time.perf_counter()
        jax.block_until_ready(plan(run.states, key, observation, init=followed))
        rates.append(1 / (time.perf_counter() - started))
    rates = rates[1:]  # the first call compiles
    low, high = bootstrap_interval(rates, statistic=np.median)
    return float(np.median(rates)), low, high


def _command(options: Options) -> str:
    """Write the command that measures the same again."""
    steps = options.sampling_steps
    return (
        f"python -m benchmarks.warm_start RUN --episodes {options.episodes} "
        f"--seed {options.seed} --calls {options.calls}"
        + (f" --sampling-steps {steps}" if steps else "")
        + (f" --levels {' '.join(map(str, options.levels))}" if options.levels else "")
    )


if __name__ == "__main__":
    run_command(main, Options, cpu_devices=2)
