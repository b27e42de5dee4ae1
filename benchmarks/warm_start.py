"""Score and time plans that start from the last plan.

    python -m benchmarks.warm_start RUN [--episodes 20] [--sampling-steps 20]

RUN is a planner in a task of control (Hopper, Walker2d, HalfCheetah). It plays the same
episodes with the last plan noised to 1, 2, a quarter, a half and all of the levels of
its sampler (those of the run, or --sampling-steps); from the last level a plan is as
good as new. Rows go to
benchmarks/results/warm-start.json, setting `N levels;k=K`: score (where the dataset has
references, otherwise return) with 95% bootstrap intervals over episodes, and plans a
second, the median over calls of the compiled planner for one problem with all
candidates of the run. benchmarks/results/figures/warm-start.png shows both.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from benchmarks.command import command_of, run_command
from benchmarks.figures import plot_sweep
from benchmarks.playing import first_observation, play_run
from benchmarks.rows import RESULTS, measured, write_rows
from jaxdiff import figures
from jaxdiff.algorithms.planning.planner import Problem
from jaxdiff.errors import UserError
from jaxdiff.run import Run, load_run
from jaxdiff.tasks.lookup import task_of


@dataclasses.dataclass(frozen=True)
class Options:
    """Score warm starts of a run of control."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    episodes: int = 20
    """Episodes for every level."""
    seed: int = 1_000
    """Seed of the first episode."""
    calls: int = 20
    """Timed calls of the planner for every level."""
    sampling_steps: int | None = None
    """Levels of the sampler; by default those of the run."""
    levels: tuple[int, ...] = ()
    """Levels to noise to, and no picture; by default the five named above."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Play, time, write the rows and draw.

    Raises:
      UserError: the run is of a maze or no planner, has an option that excludes warm
        starts, or a level that its sampler does not walk.
    """
    if options.calls < 1:
        raise UserError(f"`calls` is {options.calls}; it must be at least 1")
    own = {"sampling_steps": options.sampling_steps} if options.sampling_steps else {}
    loaded = load_run(options.run, overrides=own)
    in_maze = task_of(loaded.environment()).name == "pointmaze"
    if in_maze or loaded.algorithm.plan is None:
        raise UserError(
            f"{options.run} is a run of {loaded.name} on {loaded.dataset['name']}; "
            "give this benchmark a planner in a task of control"
        )
    rows = []
    steps = walked(loaded)
    for level in options.levels:
        if not 1 <= level <= steps:
            raise UserError(
                f"`levels` has {level}; the sampler walks {steps}, so choose from 1 to "
                f"{steps}"
            )
    for level in options.levels or levels(loaded):
        run = load_run(options.run, overrides={**own, "warm_start": level})
        started = time.monotonic()
        found = [play_run(run, options)[1][0], plans_per_second(run, options)]
        named = {
            "setting": f"{steps} levels;k={level}",
            "method": run.name,
            "seeds": 1,
            "seconds": round(time.monotonic() - started, 1),
        }
        rows += [{**row, **named} for row in found]
        print(", ".join(f"{row['metric']} {row['value']:.4g}" for row in rows[-2:]))
        command = command_of("warm_start", options)
        write_rows("warm-start", rows[-2:], command=command, directory=directory)
    if options.levels:
        return
    figures.save(
        plot_sweep(rows, label="levels to which the last plan is noised again"),
        directory / "figures" / "warm-start.png",
    )


def levels(run: Run) -> list[int]:
    """Return 1, 2, a quarter, a half and all of the levels that a sampler walks."""
    steps = walked(run)
    wanted = (1, 2, round(steps / 4), round(steps / 2), steps)
    return sorted({level for level in wanted if 1 <= level <= steps})


def walked(run: Run) -> int:
    """Return how many levels the sampler of a run walks."""
    return run.acting.sampling_steps or run.config.diffusion_steps


def plans_per_second(run: Run, options: Options) -> dict[str, Any]:
    """Time the compiled planner of one problem that goes on from a plan: a row."""
    assert run.algorithm.plan is not None
    observation, goal = first_observation(run, options.seed)
    plan = jax.jit(run.algorithm.plan)
    # Time does not depend on what is gone on from: here, on standing still.
    row = np.append(np.zeros(run.spec.action_dim), observation).astype(np.float32)
    rows = run.config.horizon - run.config.history + 1
    problem = Problem(
        history=observation[None], goal=goal, init=np.tile(row, (1, rows, 1))
    )
    rates = []
    for call in range(options.calls + 1):
        keys = jax.block_until_ready(jax.random.key(call)[None])
        started = time.perf_counter()
        jax.block_until_ready(plan(run.states, keys, problem))
        rates.append(1 / (time.perf_counter() - started))
    # The first call compiles.
    return {"metric": "plans_per_second", **measured(rates[1:], statistic=np.median)}


if __name__ == "__main__":
    run_command(main, Options, cpu_devices=2)
