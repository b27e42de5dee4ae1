"""Study the options of Diffuser in a maze: a plain U-Net, one option changed at a time.

    python -m benchmarks.study [VARIANT ...] [--dataset pointmaze-medium]

Every variant trains with the same seed and number of updates on one device and plays
the same episodes with random goals, following one plan of the preset's horizon. Rows go
to benchmarks/results/maze-study.json: success, success with plans three quarters as
long, score, and updates a second. Variants may be trained side by side, so updates a
second are only a rough cost. The intervals are over episodes; one seed of training says
little about differences of a few points.
"""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import tyro

from benchmarks.command import command_of, run_command
from benchmarks.maze import maze_rows, play_maze
from benchmarks.playing import with_config
from benchmarks.rows import RESULTS, write_rows
from jaxdiff.algorithms.base import Preset
from jaxdiff.data.episodes import Dataset
from jaxdiff.errors import UserError
from jaxdiff.networks import horizon_multiple
from jaxdiff.tasks.lookup import find_preset, load_dataset, spec_of
from jaxdiff.training import train_run

# What all variants have in common, beside the demo preset of the maze. Patches make so
# many of them affordable.
PLAIN: dict[str, Any] = {
    "horizons": (),
    "train_horizons": (),
    "dim_mults": (2, 4, 4),
    "patch": 4,
    "show_ends": False,
    "norm_by_row": False,
    "noise_shift": 1.0,
    "learning_rate_decay": 1.0,
}
ACTING: dict[str, Any] = {
    "sampling_steps": 32,
    "candidates": 2,
    "choose": "fixed",
    "lost": 0.0,
}
# What differs in each: options of Diffuser, of acting, or of training.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rows one by one": {"patch": 1, "dim_mults": (1, 2, 4, 4)},
    "two levels": {"dim_mults": (2, 4)},
    "four levels": {"dim_mults": (2, 4, 4, 4)},
    "ends shown": {"show_ends": True},
    "two levels, ends shown": {"dim_mults": (2, 4), "show_ends": True},
    "rows normalised alone": {"norm_by_row": True},
    "rows normalised alone, ends shown": {"norm_by_row": True, "show_ends": True},
    "several horizons": {"train_horizons": (80, 144, 208)},
    "several horizons, ends shown": {
        "train_horizons": (80, 144, 208),
        "show_ends": True,
    },
    "noise shift 3": {"noise_shift": 3.0},
    "noise shift 3, ends shown": {"noise_shift": 3.0, "show_ends": True},
    "attention": {"attention": True},
    "half as wide": {"dim": 16},
    "N=16": {"diffusion_steps": 16, "sampling_steps": 16},
    "N=256": {"diffusion_steps": 256},
    "x0": {"prediction": "x0"},
    "noise": {"prediction": "noise"},
    "constant learning rate": {"learning_rate_decay": 0.0},
    "learning rate 3e-4": {"learning_rate": 3e-4},
    "EMA 0.999": {"ema_decay": 0.999},
    "batch 64": {"batch_size": 64},
    "goal at rest": {"goal_dim": 4},
    "action weight 1": {"action_weight": 1.0},
}
# A plan this much shorter than the one that was trained, as a share.
SHORTER = 0.75


@dataclasses.dataclass(frozen=True)
class Options:
    """Train and score variants."""

    variants: tyro.conf.Positional[tuple[str, ...]] = tuple(VARIANTS)
    """Variants to train."""
    dataset: str = "pointmaze-medium"
    """A maze dataset."""
    updates: int = 2_000
    """Updates of every variant."""
    episodes: int = 100
    """Episodes of every variant."""
    seed: int = 1_000
    """Seed of the first episode."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Train, play and write the rows of each variant.

    Raises:
      UserError: there is no such variant, or a dataset that is not of a maze.
    """
    unknown = [name for name in options.variants if name not in VARIANTS]
    if unknown:
        raise UserError(
            f"there is no variant {unknown[0]!r}; choose one of {', '.join(VARIANTS)}"
        )
    dataset = load_dataset(options.dataset)
    # The method of a row is the VARIANT of its command.
    command = command_of("study", dataclasses.replace(options, variants=("VARIANT",)))
    for name in options.variants:
        with tempfile.TemporaryDirectory() as folder:
            rows = _study(name, dataset, Path(folder) / "run", options)
        write_rows("maze-study", rows, command=command, directory=directory)
        shown = ", ".join(f"{row['metric']} {row['value']:.3g}" for row in rows)
        print(f"{name}: {shown}", flush=True)


def _study(
    name: str, dataset: Dataset, path: Path, options: Options
) -> list[dict[str, Any]]:
    chosen = variant(name, dataset, options.updates)
    started = time.monotonic()
    run = train_run("diffuser", dataset, path, preset=chosen)
    seconds = time.monotonic() - started
    multiple = horizon_multiple(run.config.dim_mults, run.config.patch)
    horizon = multiple * round(SHORTER * run.config.horizon / multiple)
    shorter = with_config(run, horizon=horizon, train_horizons=())
    games = [
        play_maze(each, "multi", options.episodes, options.seed)
        for each in (run, shorter)
    ]
    own, in_less = (
        {row["metric"]: row for row in maze_rows([game], game)} for game in games
    )
    rate = dict.fromkeys(("value", "low", "high"), options.updates / seconds)
    rows = [
        own["success"],
        {**in_less["success"], "metric": f"success_at_{horizon}"},
        own["score"],
        {**rate, "metric": "updates_per_second", "n": options.episodes},
    ]
    named = {
        "setting": f"{games[0].maze.name}-multi;{options.updates} updates",
        "method": name,
        "seeds": 1,
        "seconds": round(seconds, 1),
    }
    return [{**row, **named} for row in rows]


def variant(name: str, dataset: Dataset, updates: int) -> Preset:
    """Return the options of a variant, of acting with it and of its training."""
    start = find_preset("diffuser", dataset, spec_of(dataset), "demo")
    asked = {**PLAIN, **ACTING, **VARIANTS[name]}
    training = dataclasses.replace(
        start.training["denoiser"], num_steps=updates, save_every=updates, keep=1
    )
    *options, denoiser = (
        dataclasses.replace(one, **{k: v for k, v in asked.items() if hasattr(one, k)})
        for one in (start.config, start.acting, training)
    )
    return Preset(*options, {"denoiser": denoiser}, name)


if __name__ == "__main__":
    run_command(main, Options)
