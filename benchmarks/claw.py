r"""Score policies at the claw machine, beside its demonstrator.

    python -m benchmarks.claw RUN [RUN ...] [--methods NAME ...] [--overrides TEXT ...]

Every run is scored under the name that stands in its place in --methods (by default its
algorithm's), and runs of one name are seeds of one method. --overrides has, for each
run, options of acting to change, such as "sampler=ddim sampling_steps=10", so that one
run may be named again to act in another way. For example

    python -m benchmarks.claw runs/bc runs/d runs/d --methods bc d "d, 10 steps" \
        --overrides "" "" "sampling_steps=10"

Rows go to benchmarks/results/claw.json, one setting for each family of scenes: validity
(actions on a toy), share error (total variation of the shares of toys), energy and
sliced Wasserstein distance, density and coverage, means over scenes and runs. The
demonstrator is a row too: another sample of it, of the same size, scores what a perfect
imitator would. With --guided, so are samples of what classifier-free guidance of these
weights would make of it if nothing were learned: equation (2) of `jaxdiff.tasks.claw.world`.
The interval of validity is over samples. What was drawn is shown in
benchmarks/results/figures/claw-FAMILY.png.
"""

import ast
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.command import run_command
from benchmarks.rows import RESULTS, write_rows
from jaxdiff import figures
from jaxdiff.devices import select_devices
from jaxdiff.errors import UserError
from jaxdiff.run import load_run
from jaxdiff.scoring import bootstrap
from jaxdiff.tasks.claw.scores import (
    claw_of,
    demonstrations,
    evaluate_claw,
    labels_of,
    score_actions,
)
from jaxdiff.tasks.claw.world import Family, guided
from jaxdiff.tasks.claw.world import draw_actions as draw_points
from jaxdiff.tasks.imitation_figures import draw_actions

DEMONSTRATOR = "demonstrator"


@dataclasses.dataclass(frozen=True)
class Options:
    """Score claw-machine runs."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    methods: tuple[str, ...] = ()
    """What each run is called; its algorithm's name by default."""
    overrides: tuple[str, ...] = ()
    """For each run, options of acting to change: "NAME=VALUE NAME=VALUE"."""
    samples: int = 300
    """Actions drawn of each run in each scene."""
    num_envs: int = 100
    """Of each scene side by side; fewer need less memory."""
    seed: int = 0
    """Of the actions."""
    guided: tuple[float, ...] = ()
    """Weights of exact guidance to score too."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Draw actions, score them, write the rows and draw.

    Raises:
      UserError: there are no runs, a run of another task, or more or fewer methods or
        overrides than runs.
    """
    drawn: dict[Family, dict[str, list[np.ndarray]]] = {}
    seconds: dict[tuple[Family, str], float] = {}
    devices = select_devices()
    for path, method, overrides in asked(options):
        run = load_run(path, overrides=overrides)
        name = method or run.name
        started = time.monotonic()
        _, actions = evaluate_claw(
            run,
            samples=options.samples,
            seed=options.seed,
            num_envs=options.num_envs,
            devices=devices,
        )
        family = claw_of(run)
        assert family is not None
        drawn.setdefault(family, {}).setdefault(name, []).append(actions)
        spent = seconds.get((family, name), 0.0) + time.monotonic() - started
        seconds[family, name] = spent
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
        write_rows("claw", rows, command=_command(options), directory=directory)
        shown = {method: runs[0] for method, runs in methods.items()}
        path = directory / "figures" / f"claw-{family}.png"
        figures.save(draw_actions(family, shown), path)


def _guided(family: Family, weight: float, options: Options) -> np.ndarray:
    """Draw actions of the guided demonstrator in every scene, `[S, N, 2]`."""
    rng = np.random.default_rng(options.seed)
    scenes = guided(family, weight)
    return np.stack([draw_points(each, options.samples, rng) for each in scenes])


def asked(
    options: Any, *, optional: bool = False
) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    """Give the path, method and overrides of each run.

    Args:
      options: with `runs`, `methods` and `overrides` as in `Options`.
      optional: whether there may be no run at all.

    Raises:
      UserError: as in `main`.
    """
    count = len(options.runs)
    for flag in ("methods", "overrides"):
        given = getattr(options, flag)
        if given and len(given) != count:
            raise UserError(
                f"--{flag} has {len(given)} entries for {count} runs; give one for "
                "each, in their order"
            )
    if not count and not optional:
        raise UserError("there is no run to score; name one run folder or more")
    if DEMONSTRATOR in options.methods:
        raise UserError(
            f"{DEMONSTRATOR!r} is a row of its own; choose another name with --methods"
        )
    empty = ("",) * count
    yield from zip(
        options.runs,
        options.methods or empty,
        map(parse_overrides, options.overrides or empty),
        strict=True,
    )


def asked_words(options: Any) -> list[str]:
    """Write runs, methods and overrides as the words of a command."""
    words = ["RUN"] * len(options.runs)
    for flag in ("methods", "overrides"):
        if getattr(options, flag):
            words += [f"--{flag}", *(f'"{text}"' for text in getattr(options, flag))]
    return words


def parse_overrides(text: str) -> dict[str, Any]:
    """Read "name=value name=value"; a value that is no Python literal is a word.

    Raises:
      UserError: a part has no "=".
    """
    found: dict[str, Any] = {}
    for part in text.split():
        name, equals, value = part.partition("=")
        if not (name and equals and value):
            raise UserError(
                f"--overrides has {part!r}; write NAME=VALUE, such as sampling_steps=10"
            )
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def _rows(family: Family, runs: list[np.ndarray]) -> Iterator[dict[str, Any]]:
    """Give the metrics of one method, means over its runs."""
    scores = [score_actions(family, actions) for actions in runs]
    hits = np.mean([labels_of(family, actions) >= 0 for actions in runs], axis=(0, 1))
    for metric in scores[0]:
        row = {"metric": metric, "value": float(np.mean([s[metric] for s in scores]))}
        if metric == "validity":
            row["low"], row["high"] = bootstrap(hits)
        yield row


def _command(options: Options) -> str:
    """Write the command that measures the same again."""
    words = ["python -m benchmarks.claw", *asked_words(options)]
    if options.guided:
        words += ["--guided", *(f"{weight:g}" for weight in options.guided)]
    return " ".join(
        [
            *words,
            f"--samples {options.samples} --num-envs {options.num_envs}",
            f"--seed {options.seed}",
        ]
    )


if __name__ == "__main__":
    run_command(main, Options, cpu_devices=2)
