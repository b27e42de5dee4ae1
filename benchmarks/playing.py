"""Play runs for benchmarks: scores and returns as rows, of runs of one dataset."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.rows import bounded
from jaxdiff.devices import Device
from jaxdiff.errors import UserError
from jaxdiff.evaluation import evaluate_run
from jaxdiff.run import Run, load_run
from jaxdiff.tasks.claw.scores import claw_of
from jaxdiff.tasks.doom.scores import is_doom
from jaxdiff.tasks.kitchen.scores import is_kitchen
from jaxdiff.tasks.pointmaze.world import Setting


def require_one_dataset(runs: Sequence[Run]) -> None:
    """Check that runs were trained on the same data.

    Raises:
      UserError: they were not.
    """
    for run in runs[1:]:
        one, other = (r.document["dataset"]["fingerprint"] for r in (runs[0], run))
        if one != other:
            raise UserError(
                f"{run.path} was trained on other data than {runs[0].path}; compare "
                "runs of one dataset"
            )


def play(
    path: Path,
    overrides: dict[str, Any],
    options: Any,
    devices: list[Device],
    *,
    setting: Setting | None = None,
) -> tuple[str, list[dict[str, Any]]]:
    """Play the run in a folder, acting with other options; see `play_run`."""
    run = load_run(path, overrides=overrides)
    return play_run(run, options, devices, setting=setting)


def play_run(
    run: Run, options: Any, devices: list[Device], *, setting: Setting | None = None
) -> tuple[str, list[dict[str, Any]]]:
    """Play one run as `options` says (episodes and seed): its task, its metrics.

    Raises:
      UserError: its task has measures of its own in place of returns.
    """
    if claw_of(run) is not None or is_doom(run) or is_kitchen(run):
        raise UserError(
            f"{run.path} was trained on {run.document['dataset']['name']}, a task that "
            "is not scored by returns; name a run of a maze or of control"
        )
    started = time.monotonic()
    record, rollouts = evaluate_run(
        run,
        setting=setting,
        episodes=options.episodes,
        seed=options.seed,
        devices=devices,
    )
    measured = {"return": (record["mean_return"], *record["return_interval"])}
    if "score" in record:
        bounds = (record[name] for name in ("score", "score_low", "score_high"))
        measured = {"score": tuple(bounds), **measured}
    rows = [
        {
            "metric": metric,
            **bounded(bounds),
            "n": len(rollouts.returns),
            "seeds": 1,
            "seconds": round(time.monotonic() - started, 1),
        }
        for metric, bounds in measured.items()
    ]
    return record["setting"], rows
