"""Classifier guidance against classifier-free: score and time, at equal network calls.

    python -m benchmarks.classifier_free CLASSIFIER_RUN FREE_RUN [--clean CLEAN_RUN]
        [--decision DECISION_RUN] [--episodes 20]

CLASSIFIER_RUN is a Diffuser with a model of returns (`jaxdiff train diffuser`),
CLEAN_RUN one with a return model of clean windows (`--no-noised-returns`), FREE_RUN the
same network of states and actions, conditioned on returns (`jaxdiff train
decision-diffuser --actions diffused`), and DECISION_RUN a Decision Diffuser that
diffuses states alone. All were trained on one dataset and have the same network and
horizon.

In a denoising step, the first two call the denoiser once and the return model once (for
a gradient, which costs about two more calls). The others call the denoiser once for two
predictions, with and without the condition. All make one plan in the same number of
denoising steps, are guided once in each, and have the noise of the first run. The
return model also scores the finished plan once.

Rows of `classifier-vs-free` (benchmarks/results/classifier-vs-free.json): the score and
the seconds of a decision, which is a call of the policy of one environment that makes a
plan, as a median over calls.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.command import command_of, run_command
from benchmarks.playing import first_observation, play_run, require_one_dataset
from benchmarks.rows import RESULTS, measured, write_rows
from jaxdiff.errors import UserError
from jaxdiff.run import Run, load_run

# What must be the same for a comparison to be of guidance alone.
_SAME = ("network", "dim", "dim_mults", "dit_width", "dit_depth", "horizon")


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare two kinds of guidance."""

    classifier: tyro.conf.Positional[Path]
    """A Diffuser with a model of returns."""
    free: tyro.conf.Positional[Path]
    """A Decision Diffuser of states and actions."""
    clean: Path | None = None
    """A Diffuser with a return model of clean windows."""
    decision: Path | None = None
    """A Decision Diffuser of states."""
    sampling_steps: int | None = None
    """Denoising steps of all; by default those of the first run."""
    episodes: int = 20
    """Episodes of each run."""
    calls: int = 30
    """Timed calls of the policy."""
    seed: int = 1_000
    """Seed of the first episode."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Play, time and write the rows.

    Raises:
      UserError: a run of another kind, of another dataset or of another network.
    """
    if options.calls < 1:
        raise UserError(f"`calls` is {options.calls}; it must be at least 1")
    first = load_run(options.classifier)
    temperature = first.acting.temperature
    common = {
        "candidates": 1,
        "sampling_steps": options.sampling_steps
        or first.acting.sampling_steps
        or first.config.diffusion_steps,
        "temperature": temperature,
    }
    guided = {**common, "guide_steps": 1}
    free = {**common, "init_temperature": temperature}
    methods: list[tuple[str, Path | None, dict[str, Any]]] = [
        ("classifier", options.classifier, guided),
        ("classifier-clean", options.clean, guided),
        ("classifier-free", options.free, free),
        ("decision-diffuser", options.decision, free),
    ]
    given = [(method, path, each) for method, path, each in methods if path is not None]
    for method, path, _ in given:
        _check_kind(method, load_run(path))
    runs = {method: load_run(path, overrides=each) for method, path, each in given}
    _check_same(list(runs.values()))
    for method, run in runs.items():
        setting, played = play_run(run, options)
        scores = [row for row in played if row["metric"] == "score"] or played
        timed = seconds_per_decision(run, options)
        rows = [
            {"setting": setting, "method": method, **row} for row in [*scores, timed]
        ]
        command = command_of("classifier_free", options)
        write_rows("classifier-vs-free", rows, command=command, directory=directory)
        shown = ", ".join(f"{row['metric']} {row['value']:.4g}" for row in rows)
        print(f"{setting}, {method}: {shown}", flush=True)


def _check_kind(method: str, run: Run) -> None:
    """Check that a run is of the kind of its method.

    Raises:
      UserError: it is not.
    """
    guided = getattr(run.config, "return_model", False)
    actions = getattr(run.config, "actions", None)
    wanted = {
        "classifier": (guided, "a Diffuser with a model of returns"),
        "classifier-clean": (
            guided and not run.config.noised_returns,
            "a Diffuser with a return model of clean windows (`noised_returns=False`)",
        ),
        "classifier-free": (actions == "diffused", "trained with `actions='diffused'`"),
        "decision-diffuser": (actions == "inverse", "a Decision Diffuser of states"),
    }
    fits, words = wanted[method]
    if not fits:
        raise UserError(f"for {method}, {run.path} must be {words}; name another run")


def _check_same(runs: list[Run]) -> None:
    """Check that runs are of one dataset and one network.

    Raises:
      UserError: they are not.
    """
    require_one_dataset(runs)
    for run in runs[1:]:
        differ = [
            name
            for name in _SAME
            if getattr(run.config, name) != getattr(runs[0].config, name)
        ]
        if differ:
            raise UserError(
                f"{run.path} differs from {runs[0].path} in {', '.join(differ)}; "
                "compare runs of one network"
            )


def seconds_per_decision(run: Run, options: Options) -> dict[str, Any]:
    """Time the policy of one environment where it plans: a row."""
    seen, goal = first_observation(run, options.seed)
    policy, seconds = run.policy(1), []
    for _ in range(options.calls + 1):
        policy.reset()
        started = time.perf_counter()
        policy(seen, goal)
        seconds.append(time.perf_counter() - started)
    return {
        "metric": "seconds_per_decision",
        # The first call compiles.
        **measured(seconds[1:], statistic=np.median),
        "seeds": 1,
    }


if __name__ == "__main__":
    run_command(main, Options, cpu_devices=2)
