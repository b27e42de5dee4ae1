"""Regions to keep out of, told one by one and asked for together: a maze.

    jaxdiff train decision-diffuser --dataset pointmaze-umaze --run RUN
        --condition region --regions 0 0.7 0.3 1.3 0 0.3 0 -0.7 0.3
    python -m benchmarks.regions RUN [--episodes 50]

RUN is a Decision Diffuser that was told of a window which of its regions it keeps out
of, one at a time (`jaxdiff.algorithms.conditions`). The three above lie across the lane
of the U-maze, one in each corridor, and each leaves half of the lane free. Episodes
lead to D4RL's goal from the cell that is farthest from it, past all of them; each
follows plans of the run's one horizon.

Rows of `regions` (benchmarks/results/regions.json), for each region and for all
together, with plans that are asked to keep out and plans that are asked for nothing:

- `planned`: the share of first plans that keep out;
- `driven`: the share of episodes whose path does until the goal is reached;
- `success`: the share that reaches it.

Four episodes of both kinds are drawn into benchmarks/results/figures/regions-MAZE.png.
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.command import run_command
from benchmarks.properties import shortest_way
from benchmarks.rows import RESULTS, bounded, write_rows
from jaxdiff import figures
from jaxdiff.algorithms.decision_diffuser import Asked
from jaxdiff.devices import select_devices
from jaxdiff.envs import pointmaze
from jaxdiff.envs.pointmaze import GOAL_RADIUS
from jaxdiff.errors import UserError
from jaxdiff.evaluate import Rollouts, bootstrap, plan_paths
from jaxdiff.evaluate.playing import play
from jaxdiff.run import Run, load_run, require_maze

ASKED, FREE = "asked to keep out", "nothing asked"


@dataclasses.dataclass(frozen=True)
class Options:
    """Ask plans to keep out of regions."""

    run: tyro.conf.Positional[Path]
    """A Decision Diffuser of a maze that was told of regions."""
    weight: float | None = None
    """Of every region; by default the run's own."""
    episodes: int = 50
    """Of each question."""
    seed: int = 1_000
    """Of the first episode."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Play, write the rows and draw.

    Raises:
      UserError: the run was told of no regions, or is of no maze.
    """
    # Whether regions were kept out of is asked here, and not when the goal is reached.
    run = load_run(options.run, overrides={"choose": "fixed"})
    maze = require_maze(run)
    if getattr(run.config, "condition", None) != "region":
        raise UserError(
            f"{options.run} was told of no regions that one could keep out of; train "
            "one with `jaxdiff train decision-diffuser --condition region --regions "
            "0 0.7 0.3`"
        )
    regions = np.reshape(run.config.regions, (-1, 3))
    own = run.config.guidance_weight if options.weight is None else options.weight
    everything = tuple(range(len(regions)))
    questions: dict[str, tuple[int, ...]] = {
        f"region {i + 1}": (i,) for i in everything
    }
    if len(regions) > 1:
        questions[f"all {len(regions)}"] = everything
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
                "setting": f"{maze.name}, {name}",
                "method": method,
                "metric": metric,
                **bounded([values.mean(), *bootstrap(values)]),
                "n": len(values),
                "seeds": 1,
                "seconds": round(took, 1),
            }
            for method, (rollouts, took) in played.items()
            for metric, values in outcomes(rollouts, regions[list(chosen)]).items()
        ]
        write_rows("regions", rows, command=_command(options), directory=directory)
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
    """Play episodes from one end of a maze to D4RL's goal, asked to keep out.

    Args:
      run: a trained run.
      chosen: which regions it is asked to keep out of.
      weight: of each; 0 asks for nothing.
      options: episodes and seed.
    """
    maze = require_maze(run)
    conditions = jnp.eye(len(run.config.regions) // 3)[jnp.asarray(chosen)]
    asked = Asked(conditions=conditions, weights=[weight] * len(chosen))
    act = functools.partial(run.algorithm.act, guidance=asked)
    told = run._replace(algorithm=run.algorithm._replace(act=act))
    farthest = max(
        (tuple(cell) for cell in pointmaze.free_cells(maze)),
        key=lambda cell: len(shortest_way(maze, cell, maze.goal_cell) or ()),
    )
    return play(
        told,
        lambda: pointmaze.make_env(maze.name),
        episodes=options.episodes,
        seed=options.seed,
        devices=select_devices(),
        options={
            "reset_cell": np.asarray(farthest),
            "goal_cell": np.asarray(maze.goal_cell),
        },
    )


def outcomes(rollouts: Rollouts, regions: np.ndarray) -> dict[str, np.ndarray]:
    """Say of each episode, `[N]` of 0 and 1, what the rows are shares of.

    Args:
      rollouts: of `drive`.
      regions: `[R, 3]`, those that are to be kept out of, metres.
    """
    assert rollouts.goals is not None
    driven = rollouts.observations[..., :2]
    away = np.linalg.norm(driven - rollouts.goals[:, None, :2], axis=-1)
    # What comes after the arrival was not asked for.
    there = np.maximum.accumulate(away <= GOAL_RADIUS, axis=1)
    found: dict[str, Any] = {
        "planned": [
            keeps_out(path, regions).all()
            for path in plan_paths(rollouts, action_dim=2)
        ],
        "driven": (keeps_out(driven, regions) | there).all(1),
        "success": rollouts.successes,
    }
    return {name: np.asarray(each, np.float64) for name, each in found.items()}


def keeps_out(positions: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Tell which positions `[..., 2]` lie in none of the regions `[R, 3]`: `[...]`."""
    offset = positions[..., None, :] - regions[:, :2]
    return (np.linalg.norm(offset, axis=-1) >= regions[:, 2]).all(-1)


def draw(run: Run, played: dict[str, Rollouts], regions: np.ndarray) -> Any:
    """Draw some first plans of each kind, and what was driven."""
    count = 4
    panels: dict[str, list[Any]] = {
        "plans": [], "executed": [], "starts": [], "goals": [], "titles": [],
    }  # fmt: skip
    for name, rollouts in played.items():
        assert rollouts.goals is not None
        driven = rollouts.observations[:count, :, :2]
        panels["plans"] += plan_paths(rollouts, action_dim=2)[:count]
        panels["executed"] += list(driven)
        panels["starts"] += list(driven[:, 0])
        panels["goals"] += list(rollouts.goals[:count, :2])
        panels["titles"] += [name] * len(driven)
    many = [regions] * len(panels["plans"])
    return figures.draw_plans(require_maze(run), avoid=many, columns=count, **panels)


def _command(options: Options) -> str:
    """Write the command that measures the same again."""
    weight = "" if options.weight is None else f" --weight {options.weight:g}"
    return (
        f"python -m benchmarks.regions RUN{weight} --episodes {options.episodes} "
        f"--seed {options.seed}"
    )


if __name__ == "__main__":
    run_command(main, Options, cpu_devices=2)
