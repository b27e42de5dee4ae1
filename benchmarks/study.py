"""Study what lets Diffuser solve a maze: a plain U-Net, one option changed at a time.

    python -m benchmarks.study [VARIANT ...] [--dataset pointmaze-medium]

Every variant trains with the same seed and number of updates on one device and plays
the same episodes with random goals, following one plan of the preset's horizon. Rows go
to benchmarks/results/maze-study.json: success, success with plans three quarters as
long, score, and updates a second, which tell only roughly how costly a variant is, for
several may be trained side by side. The intervals are over episodes; one seed of
training says little about differences of a few points.
"""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import tyro

from benchmarks.command import run_command
from benchmarks.rows import RESULTS, bounded, write_rows
from jaxdiff.errors import UserError
from jaxdiff.networks import horizon_multiple
from jaxdiff.run import load_run, require_maze, train_run
from jaxdiff.scoring import bootstrap, score
from jaxdiff.tasks.pointmaze.scores import maze_references, play_maze
from jaxdiff.tasks.presets import preset
from jaxdiff.train import TrainConfig

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
    "sampling_steps": 32,
    "candidates": 2,
    "choose": "fixed",
    "lost": 0.0,
}
# What differs in each: options of Diffuser, or of its training.
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
    "constant learning rate": {"learning_rate_decay": 0},
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
    """Which of them."""
    dataset: str = "pointmaze-medium"
    """A maze dataset."""
    updates: int = 2_000
    """Of every variant."""
    episodes: int = 100
    """Of every variant."""
    seed: int = 1_000
    """Of the first episode."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Train, play and write the rows of each variant.

    Raises:
      UserError: a variant unheard of, or a dataset that is not of a maze.
    """
    unknown = [name for name in options.variants if name not in VARIANTS]
    if unknown:
        raise UserError(
            f"there is no variant {unknown[0]!r}; choose of {', '.join(VARIANTS)}"
        )
    for name in options.variants:
        with tempfile.TemporaryDirectory() as folder:
            rows = _study(name, Path(folder) / "run", options)
        write_rows("maze-study", rows, command=_command(options), directory=directory)
        shown = ", ".join(f"{row['metric']} {row['value']:.3g}" for row in rows)
        print(f"{name}: {shown}", flush=True)


def _study(name: str, path: Path, options: Options) -> list[dict[str, Any]]:
    config, training = variant(name, options.dataset, options.updates)
    started = time.monotonic()
    run = train_run("diffuser", options.dataset, path, config=config, training=training)
    seconds = time.monotonic() - started
    maze = require_maze(run)
    game: dict[str, Any] = {
        "setting": "multi",
        "episodes": options.episodes,
        "seed": options.seed,
    }
    expert, chance = maze_references(maze, **game)
    own = play_maze(run, **game)
    successes = own.successes.astype(float)
    multiple = horizon_multiple(config.dim_mults, config.patch)
    horizon = multiple * round(SHORTER * config.horizon / multiple)
    shorter = load_run(path, overrides={"horizon": horizon, "train_horizons": ()})
    in_less = play_maze(shorter, **game).successes.astype(float)
    rate = options.updates / seconds
    measured = {
        "success": (successes.mean(), *bootstrap(successes)),
        f"success_at_{horizon}": (in_less.mean(), *bootstrap(in_less)),
        "score": score(own.returns, chance.returns, expert.returns),
        "updates_per_second": (rate, rate, rate),
    }
    return [
        {
            "setting": f"{maze.name}-multi;{options.updates} updates",
            "method": name,
            "metric": metric,
            **bounded(bounds),
            "n": options.episodes,
            "seeds": 1,
            "seconds": round(seconds, 1),
        }
        for metric, bounds in measured.items()
    ]


def variant(name: str, dataset: str, updates: int) -> tuple[Any, TrainConfig]:
    """Return the options of a variant and of its training."""
    config, trainings = preset("diffuser", "demo", dataset)
    training = trainings["denoiser"]
    changes = {**PLAIN, "learning_rate_decay": updates, **VARIANTS[name]}
    batch_size = changes.pop("batch_size", training.batch_size)
    training = TrainConfig(
        num_steps=updates, batch_size=batch_size, save_every=updates, keep=1
    )
    return dataclasses.replace(config, **changes), training


def _command(options: Options) -> str:
    """Write the command that measures the same again; a row's method is the VARIANT."""
    return (
        f"python -m benchmarks.study VARIANT --dataset {options.dataset} "
        f"--updates {options.updates} --episodes {options.episodes} "
        f"--seed {options.seed}"
    )


if __name__ == "__main__":
    run_command(main, Options)
