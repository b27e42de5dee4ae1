"""Achieved returns against target returns of Decision Diffuser, in control and mazes.

    python -m benchmarks.target_return RUN [--bc BC_RUN] [--diffuser DIFFUSER_RUN]
        [--diffused DIFFUSED_RUN] [--episodes 20]

RUN is a Decision Diffuser conditioned on returns (`jaxdiff train decision-diffuser`).
The target is y: 0 and 1 are the lowest and the highest percent of the discounted
returns of the data (`jaxdiff.algorithms.planning.conditions`). All play the same
episodes. In a maze one goal pays, and plans are not told this goal:

    jaxdiff data make pointmaze-umaze-single
    jaxdiff train decision-diffuser --dataset pointmaze-umaze-single --run RUN
    python -m benchmarks.target_return RUN

Rows, and pictures of the first two in benchmarks/results/figures; a setting begins with
the task:

- `target-return`: the return of the episodes against the target y;
- `condition-weight`: the same against the weight w of the condition, at the run's own
  target;
- `decision-diffuser`: the run beside behaviour cloning and an unguided plan of Diffuser
  of the same data, and beside DIFFUSED_RUN, a Decision Diffuser that diffuses actions
  with the states (`--actions diffused`) in place of a model of inverse dynamics.

`returns-DATASET.png` is a histogram of the data's returns, with the target.
"""

import dataclasses
from pathlib import Path
from typing import Any

import tyro

from benchmarks.command import command_of, run_command
from benchmarks.figures import plot_sweep
from benchmarks.playing import play_run, require_one_dataset
from benchmarks.rows import RESULTS, write_rows
from jaxdiff import figures
from jaxdiff.errors import UserError
from jaxdiff.run import Run, load_run
from jaxdiff.tasks.pointmaze.environment import Setting


@dataclasses.dataclass(frozen=True)
class Options:
    """Sweep the target return."""

    run: tyro.conf.Positional[Path]
    """A Decision Diffuser conditioned on returns."""
    bc: Path | None = None
    """Behaviour cloning of the same dataset."""
    diffuser: Path | None = None
    """A Diffuser of the same dataset, played with one unguided plan."""
    diffused: Path | None = None
    """A Decision Diffuser that diffuses actions too."""
    targets: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
    """Target returns."""
    weights: tuple[float, ...] = (0.0, 1.0, 1.2, 1.6, 2.4, 4.0)
    """Weights of the condition."""
    setting: Setting | None = None
    """In a maze: multi for goals at random, single for the one of D4RL; by default what
    the dataset pays for."""
    episodes: int = 20
    """Episodes of each setting."""
    seed: int = 1_000
    """Seed of the first episode."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Play, write the rows and draw.

    Raises:
      UserError: the run was told no returns, or runs of different datasets.
    """
    run = load_run(options.run)
    if getattr(run.config, "condition", None) != "return":
        raise UserError(
            f"{options.run} was told no returns that one could ask for; train a run "
            "with `jaxdiff train decision-diffuser`"
        )
    others = (options.bc, options.diffuser, options.diffused)
    require_one_dataset([run, *(load_run(path) for path in others if path)])
    pictures = directory / "figures"
    _draw_histogram(run, pictures)
    swept = {
        "target-return": [(f"y={y:g}", {"target": y}) for y in options.targets],
        "condition-weight": [
            (f"w={w:g}", {"guidance_weight": w}) for w in options.weights
        ],
    }
    labels = {
        "target-return": "return asked for; 0 and 1 bound the data",
        "condition-weight": "weight of the condition",
    }
    for experiment, settings in swept.items():
        rows, task = [], ""
        for asked, overrides in settings:
            task, found = _play(options.run, overrides, options)
            named = {"setting": f"{task}, {asked}", "method": "decision-diffuser"}
            rows += [{**named, **row} for row in found if row["metric"] == "return"]
            _write(experiment, rows[-1:], options, directory)
        if rows:
            drawn = plot_sweep(rows, label=labels[experiment], logarithmic=False)
            figures.save(drawn, pictures / f"{experiment}-{task}.png")
    unguided = {"guide_scale": 0.0, "candidates": 1}
    for method, path, overrides in (
        ("bc", options.bc, {}),
        ("diffuser-unguided", options.diffuser, unguided),
        ("diffused-actions", options.diffused, {}),
        ("decision-diffuser", options.run, {}),
    ):
        if path is not None:
            setting, found = _play(path, overrides, options)
            rows = [{"setting": setting, "method": method, **row} for row in found]
            _write("decision-diffuser", rows, options, directory)


def _play(
    path: Path, overrides: dict[str, Any], options: Options
) -> tuple[str, list[dict[str, Any]]]:
    task_options = {} if options.setting is None else {"setting": options.setting}
    run = load_run(path, overrides=overrides)
    return play_run(run, options, task_options=task_options)


def _write(
    experiment: str, rows: list[dict[str, Any]], options: Options, directory: Path
) -> None:
    command = command_of("target_return", options)
    write_rows(experiment, rows, command=command, directory=directory)
    shown = ", ".join(f"{row['metric']} {row['value']:.4g}" for row in rows)
    print(f"{experiment}, {rows[0]['setting']}, {rows[0]['method']}: {shown}")


def _draw_histogram(run: Run, folder: Path) -> None:
    returns = run.statistics.returns
    drawn = figures.plot_returns(
        returns.counts,
        returns.edges,
        low=float(returns.low),
        high=float(returns.high),
        target=float(returns.target),
        label=f"return to the end of the episode, discounted by {run.config.discount}",
    )
    name = Path(run.dataset["name"]).name
    figures.save(drawn, folder / f"returns-{name}.png")


if __name__ == "__main__":
    run_command(main, Options, cpu_devices=2)
