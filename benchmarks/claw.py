r"""Score policies at the claw machine, beside its demonstrator.

    python -m benchmarks.claw RUN [RUN ...] [--methods NAME ...] [--overrides TEXT ...]

Every run is scored under the name at its place in --methods (by default its
algorithm's), and runs of one name are seeds of one method. --overrides gives the acting
options to change in each run, such as "extra_steps=8 temperature=0.5". A run may be
named again to act in another way. For example

    python -m benchmarks.claw runs/bc runs/d runs/d --methods bc d "d, X" \
        --overrides "" "" "extra_steps=16"

Rows go to benchmarks/results/claw.json, one setting for each family of scenes: validity
(actions on a toy), share error (total variation of the shares of toys), energy and
sliced Wasserstein distance, density and coverage, means over scenes and runs. The
demonstrator is a row too: another sample of it, of the same size, scores what a perfect
imitator would. With --guided there are rows of exact classifier-free guidance of these
weights, with nothing learned: equation (2) of `jaxdiff.tasks.claw.world`. The interval
of validity is over samples. Pictures of the actions are
benchmarks/results/figures/claw-FAMILY.png.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import command_of, run_command
from benchmarks.methods import DEMONSTRATOR, MethodOptions, asked
from benchmarks.rows import RESULTS, write_rows
from jaxdiff import figures
from jaxdiff.devices import select_devices
from jaxdiff.errors import UserError
from jaxdiff.evaluation import evaluate
from jaxdiff.scoring import bootstrap
from jaxdiff.tasks.claw.figures import plot_actions
from jaxdiff.tasks.claw.play import ClawPlayed
from jaxdiff.tasks.claw.scores import demonstrations, labels_of, score_actions
from jaxdiff.tasks.claw.world import Family, guided
from jaxdiff.tasks.claw.world import draw_actions as draw_points


@dataclasses.dataclass(frozen=True)
class Options(MethodOptions):
    """Score claw-machine runs."""

    samples: int = 300
    """Actions of each run in each scene."""
    num_envs: int = 100
    """Copies of each scene side by side; fewer need less memory."""
    seed: int = 0
    """Seed of the actions."""
    guided: tuple[float, ...] = ()
    """Weights of exact guidance to score as well."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Draw actions, score them, write the rows and draw.

    Raises:
      UserError: there are no runs, a run of another task, or what
        `benchmarks.methods.asked` raises.
    """
    drawn: dict[Family, dict[str, list[np.ndarray]]] = {}
    seconds: dict[tuple[Family, str], float] = {}
    if not options.runs:
        raise UserError("there is no run to score; name one run folder or more")
    for name, run in asked(options):
        record, played = evaluate(
            run,
            episodes=options.samples,
            seed=options.seed,
            num_envs=options.num_envs,
            devices=select_devices(),
        )
        if not isinstance(played, ClawPlayed):
            raise UserError(
                f"{run.path} is no run of the claw machine; name runs of the recipes "
                "claw or claw-biased"
            )
        family = played.family
        drawn.setdefault(family, {}).setdefault(name, []).append(played.actions)
        seconds[family, name] = seconds.get((family, name), 0.0) + record["seconds"]
    for family, methods in drawn.items():
        truth = demonstrations(family, samples=options.samples, seed=options.seed)
        exact = {
            f"exact guidance, w = {weight:g}": [_guided(family, weight, options)]
            for weight in options.guided
        }
        methods = {DEMONSTRATOR: [truth], **exact, **methods}
        rows = [
            {
                "setting": f"claw-{family}",
                "method": method,
                "n": sum(actions.shape[0] * actions.shape[1] for actions in runs),
                "seeds": len(runs),
                "seconds": round(seconds.get((family, method), 0.0), 1),
                **row,
            }
            for method, runs in methods.items()
            for row in _rows(family, runs)
        ]
        command = command_of("claw", options)
        write_rows("claw", rows, command=command, directory=directory)
        shown = {method: runs[0] for method, runs in methods.items()}
        path = directory / "figures" / f"claw-{family}.png"
        figures.save(plot_actions(family, shown), path)


def _guided(family: Family, weight: float, options: Options) -> np.ndarray:
    """Draw actions of the guided demonstrator in every scene, `[S, N, 2]`."""
    rng = np.random.default_rng(options.seed)
    scenes = guided(family, weight)
    return np.stack([draw_points(each, options.samples, rng) for each in scenes])


def _rows(family: Family, runs: list[np.ndarray]) -> Iterator[dict[str, Any]]:
    """Yield the metrics of one method, means over its runs."""
    scores = [score_actions(family, actions) for actions in runs]
    hits = np.mean([labels_of(family, actions) >= 0 for actions in runs], axis=(0, 1))
    for metric in scores[0]:
        row = {"metric": metric, "value": float(np.mean([s[metric] for s in scores]))}
        if metric == "validity":
            row["low"], row["high"] = bootstrap(hits)
        yield row


if __name__ == "__main__":
    run_command(main, Options, cpu_devices=2)
