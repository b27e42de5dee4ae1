"""The main job from nothing: make data, train, plan, act in MuJoCo, draw."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxdiff import figures
from jaxdiff.data.episodes import Dataset
from jaxdiff.devices import Device
from jaxdiff.errors import writing
from jaxdiff.evaluation import evaluate
from jaxdiff.files import write_text
from jaxdiff.plans import plan
from jaxdiff.progress import note
from jaxdiff.run import Run, load_run
from jaxdiff.tasks.lookup import load_dataset
from jaxdiff.tasks.pointmaze.figures import (
    plot_denoising,
    plot_episodes,
    plot_horizons,
)
from jaxdiff.tasks.pointmaze.question import at_rest, run_maze
from jaxdiff.tasks.pointmaze.recipe import RECIPES
from jaxdiff.tasks.pointmaze.scores import MazeRollouts
from jaxdiff.tasks.pointmaze.world import cell_to_xy, free_cells
from jaxdiff.training import train_run

RECIPE = "pointmaze-umaze"
DATA_STEPS = 200_000
BATCH = 32  # examples in an update, which the devices divide


def demo(
    out: Path,
    *,
    episodes: int = 100,
    num_steps: int | None = None,
    seed: int = 0,
    devices: Sequence[Device] | None = None,
) -> dict[str, Any]:
    """Run the demo in a folder and return what it writes to `demo.json`.

    An interrupted demo goes on where it stopped.

    Args:
      out: receives `data/`, `run/`, `figures/` and `demo.json`.
      episodes: played for the score.
      num_steps: updates, by default the preset's.
      seed: of everything random.
      devices: to train and plan on, by default one.

    Raises:
      UserError: the folder cannot be written, or holds a demo of other options.
    """
    dataset = _dataset(out / "data", seed)
    training = {"batch_size": BATCH}
    if num_steps is not None:
        training["num_steps"] = num_steps
    started = time.monotonic()
    run = train_run(
        "diffuser",
        dataset,
        out / "run",
        preset="demo",
        training=training,
        seed=seed,
        devices=devices,
        resume=True,
    )
    train_seconds = time.monotonic() - started
    # The same network acts twice: by plans of one horizon, and by earliest arrival.
    game: dict[str, Any] = {"episodes": episodes, "seed": seed + 1000}
    game["devices"] = devices
    by_horizon = load_run(run.path, overrides={"choose": "fixed"})
    fixed, _ = evaluate(by_horizon, **game)
    record, played = evaluate(run, **game)
    result = {
        **{name: record[name] for name in _REPORTED},
        **{f"fixed_{name}": fixed[name] for name in _REPORTED[:5]},
        "plan_seconds": _draw(run, played, out / "figures"),
        "train_seconds": train_seconds,
        "episodes": episodes,
        "updates": int(run.states["denoiser"].step),
    }
    with writing(out / "demo.json", "name another folder with `out`"):
        text = json.dumps(result, indent=2) + "\n"
        write_text(out / "demo.json", text)
    return result


_REPORTED = (
    "score",
    "score_low",
    "score_high",
    "success_rate",
    "mean_return",
    "expert_return",
    "random_return",
    "d4rl_score",
)


def _dataset(root: Path, seed: int) -> Dataset:
    recipe = RECIPES[RECIPE]
    if not (root / recipe.dataset_id / "data").is_dir():
        recipe.make(steps=DATA_STEPS, seed=seed, root=root)
    return load_dataset(RECIPE, root=root)


def _draw(run: Run, played: MazeRollouts, folder: Path) -> float:
    """Draw what happened; return the seconds that one plan takes, once compiled."""
    maze = run_maze(run)
    figures.save(plot_episodes(run, played), folder / "plans.png")

    cells = free_cells(maze)
    start, goal = cell_to_xy(maze, cells[0]), cell_to_xy(maze, cells[-1])
    config = run.config
    positions = {
        horizon: plan(run, at_rest(start), goal, horizon=horizon).observations[0, :, :2]
        for horizon in (config.horizons[2], config.horizon, config.horizons[-1])
    }
    figures.save(plot_horizons(maze, positions, goal), folder / "horizons.png")

    started = time.monotonic()
    ranked = plan(run, at_rest(start), goal, horizon=config.horizon)  # compiled above
    seconds = time.monotonic() - started
    figures.save(
        plot_denoising(maze, ranked.path[..., :2], start=start, goal=goal),
        folder / "denoising.png",
    )
    note(f"pictures are in {folder}")
    return seconds
