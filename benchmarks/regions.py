r"""Regions of a maze to keep out of: trained one by one, asked for together.

    jaxdiff train decision-diffuser --dataset pointmaze-umaze --run RUN \
        --condition region --regions -1 1 0.6 -1 -1 0.6 1 0 0.5 \
        --goal-dim 0 --choose fixed --horizons --train-horizons
    python -m benchmarks.regions RUN [--episodes 100]

RUN is a Decision Diffuser without goals. Its condition in training was one region that
a window keeps out of (`jaxdiff.algorithms.planning.conditions`). The three above are
both ends of the U-maze and the middle of the corridor between them. Episodes begin
anywhere outside of all regions and follow a plan from there.

Rows of `regions` (benchmarks/results/regions.json), for each region, every two and all
together, with plans that are asked to keep out and plans that are asked for nothing:

- `planned`: the share of plans that keep out;
- `driven`: the share of paths that do, for as many steps as the plan has;
- `way`: how long the planned path is, metres.

benchmarks/results/figures/regions-MAZE.png shows some of both kinds.
"""

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.command import command_of, run_command
from benchmarks.rows import RESULTS, measured, write_rows
from jaxdiff import figures
from jaxdiff.algorithms.planning.conditions import Conditions, keeps_out
from jaxdiff.devices import select_devices
from jaxdiff.errors import UserError
from jaxdiff.evaluation import evaluate
from jaxdiff.rollouts import Rollouts, select
from jaxdiff.run import Run, load_run
from jaxdiff.tasks.pointmaze.figures import plot_plans
from jaxdiff.tasks.pointmaze.question import run_maze

ASKED, FREE = "asked to keep out", "nothing asked"


@dataclasses.dataclass(frozen=True)
class Options:
    """Ask plans to keep out of regions."""

    run: tyro.conf.Positional[Path]
    """A Decision Diffuser of a maze, conditioned on regions."""
    weight: float | None = None
    """Weight of every region; by default the run's own."""
    episodes: int = 100
    """Episodes of each question, less those that begin in a region."""
    seed: int = 1_000
    """Seed of the first episode."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Play, write the rows and draw.

    Raises:
      UserError: the run was told of no regions, has goals or is of no maze.
    """
    run = load_run(options.run)
    maze = run_maze(run)
    if getattr(run.config, "condition", None) != "region" or run.config.goal_dim:
        raise UserError(
            f"{options.run} must have been told of regions, and plan to no goal; train "
            "one with `jaxdiff train decision-diffuser --condition region --regions "
            "-1 1 0.6 --goal-dim 0 --choose fixed`"
        )
    regions = np.reshape(run.config.regions, (-1, 3))
    own = run.acting.guidance_weight if options.weight is None else options.weight
    everything = tuple(range(len(regions)))
    questions = {
        " and ".join(str(i + 1) for i in chosen): chosen
        for count in range(1, len(regions) + 1)
        for chosen in itertools.combinations(everything, count)
    }
    started = time.monotonic()
    free = drive(run, everything, 0.0, options)
    free_seconds = time.monotonic() - started
    for name, chosen in questions.items():
        started = time.monotonic()
        asked = drive(run, chosen, own, options)
        seconds = time.monotonic() - started
        played = {ASKED: (asked, seconds), FREE: (free, free_seconds)}
        rows = [
            {
                "setting": f"{maze.name}, out of {name}",
                "method": method,
                "metric": metric,
                **measured(values),
                "seeds": 1,
                "seconds": round(took, 1),
            }
            for method, (rollouts, took) in played.items()
            for metric, values in outcomes(rollouts, regions[list(chosen)]).items()
        ]
        command = command_of("regions", options)
        write_rows("regions", rows, command=command, directory=directory)
        shown = ", ".join(
            f"{row['method']}: {row['metric']} {row['value']:.2f}" for row in rows
        )
        print(f"{name}: {shown}", flush=True)
    # The last question was of all.
    figures.save(
        draw(run, {ASKED: asked, FREE: free}, regions),
        directory / "figures" / f"regions-{maze.name}.png",
    )


def drive(
    run: Run, chosen: tuple[int, ...], weight: float, options: Options
) -> Rollouts:
    """Play episodes that begin outside of all regions, asked to keep out of some.

    Args:
      run: a trained run.
      chosen: which regions it is asked to keep out of.
      weight: of each; 0 asks for nothing.
      options: episodes and seed.

    Raises:
      UserError: all episodes begin in a region.
    """
    regions = np.reshape(run.config.regions, (-1, 3))
    _, played = evaluate(
        run,
        options={"setting": "multi"},
        episodes=options.episodes,
        seed=options.seed,
        devices=select_devices(),
        guidance=Conditions(
            values=np.eye(len(regions), dtype=np.float32)[list(chosen)],
            weights=np.full(len(chosen), weight, np.float32),
        ),
    )
    outside = np.asarray(keeps_out(played.observations[:, 0, :2], regions).all(-1))
    if not outside.any():
        raise UserError(
            f"all of {options.episodes} episodes begin in a region; play more of them"
        )
    return select(played, outside)


def outcomes(rollouts: Rollouts, regions: np.ndarray) -> dict[str, np.ndarray]:
    """Measure each episode, `[N]`; rows are means of these numbers.

    Args:
      rollouts: of `drive`.
      regions: `[R, 3]`, those that are to be kept out of, metres.
    """
    assert rollouts.plans is not None
    planned = rollouts.plans[..., 2:4]
    driven = rollouts.observations[:, : planned.shape[1], :2]
    return {
        "planned": np.asarray(keeps_out(planned, regions).all((1, 2)), float),
        "driven": np.asarray(keeps_out(driven, regions).all((1, 2)), float),
        "way": np.linalg.norm(np.diff(planned, axis=1), axis=-1).sum(1),
    }


def draw(run: Run, played: dict[str, Rollouts], regions: np.ndarray) -> Any:
    """Draw some first plans of each kind, and what was driven."""
    count = 4
    plans, driven, titles = [], [], []
    for name, rollouts in played.items():
        assert rollouts.plans is not None
        shown = rollouts.plans[:count, :, 2:4]
        plans += list(shown)
        driven += list(rollouts.observations[:count, : shown.shape[1], :2])
        titles += [name] * len(shown)
    return plot_plans(
        run_maze(run),
        plans,
        executed=driven,
        starts=[path[0] for path in driven],
        avoid=[regions] * len(plans),
        titles=titles,
        columns=count,
    )


if __name__ == "__main__":
    run_command(main, Options, cpu_devices=2)
