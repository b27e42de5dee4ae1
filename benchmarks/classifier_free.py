"""Classifier guidance against classifier-free: score and time, at equal network calls.

    python -m benchmarks.classifier_free CLASSIFIER_RUN FREE_RUN [--clean CLEAN_RUN]
        [--decision DECISION_RUN] [--episodes 20]

CLASSIFIER_RUN is a Diffuser with a model of returns (`jaxdiff train diffuser`),
CLEAN_RUN one whose model saw clean windows only (`--no-noised-returns`), FREE_RUN the
same network of states and actions, told returns (`jaxdiff train decision-diffuser
--actions diffused`), and DECISION_RUN a Decision Diffuser that diffuses states alone.
All were trained on one dataset and have one backbone and one horizon.

A denoising step of the first two asks the denoiser once and the model of returns once
(for a gradient, which costs about two more); one of the others asks the denoiser for
two predictions, with and without the condition, in one call. So all make one plan, in
the same number of denoising steps, guided once in each; with the noise of the first.
The model of returns is also asked once what it expects of the finished plan.

Rows of `classifier-vs-free` (benchmarks/results/classifier-vs-free.json): the score and
the seconds of a decision, a call of the compiled agent for one environment that makes a
plan, with the median over calls.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from benchmarks.command import run_command
from benchmarks.playing import play, require_one_dataset
from benchmarks.rows import RESULTS, bootstrap_interval, write_rows
from jaxdiff.devices import select_devices
from jaxdiff.errors import UserError
from jaxdiff.run import Run, load_run
from jaxdiff.tasks.control import make_env

# What must be the same for a comparison to be of guidance alone.
_SAME = ("backbone", "dim", "dim_mults", "dit_width", "dit_depth", "horizon")


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare two kinds of guidance."""

    classifier: tyro.conf.Positional[Path]
    """A Diffuser with a model of returns."""
    free: tyro.conf.Positional[Path]
    """A Decision Diffuser of states and actions."""
    clean: Path | None = None
    """A Diffuser whose model of returns saw clean windows."""
    decision: Path | None = None
    """A Decision Diffuser of states."""
    sampling_steps: int | None = None
    """Denoising steps of all; by default those of the first run."""
    episodes: int = 20
    """Of each."""
    calls: int = 30
    """Of the agent, timed."""
    seed: int = 1_000
    """Of the first episode."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Play, time and write the rows.

    Raises:
      UserError: a run of another kind, of another dataset or of another network.
    """
    if options.calls < 1:
        raise UserError(f"--calls is {options.calls}; it must be at least 1")
    first = load_run(options.classifier).config
    steps = options.sampling_steps or first.sampling_steps or first.diffusion_steps
    temperature = first.temperature
    common = {"candidates": 1, "sampling_steps": steps, "temperature": temperature}
    guided = {**common, "guide_steps": 1}
    free = {**common, "init_temperature": temperature}
    methods: list[tuple[str, Path | None, dict[str, Any]]] = [
        ("classifier", options.classifier, guided),
        ("classifier-clean", options.clean, guided),
        ("classifier-free", options.free, free),
        ("decision-diffuser", options.decision, free),
    ]
    asked = [
        (method, path, _suited(method, path, overrides))
        for method, path, overrides in methods
        if path is not None
    ]
    _check_same([load_run(path, overrides=overrides) for _, path, overrides in asked])
    for method, path, overrides in asked:
        setting, played = play(path, overrides, options, select_devices())
        scores = [row for row in played if row["metric"] == "score"] or played
        timed = seconds_per_decision(load_run(path, overrides=overrides), options)
        rows = [
            {"setting": setting, "method": method, **row} for row in [*scores, timed]
        ]
        write_rows(
            "classifier-vs-free", rows, command=_command(options), directory=directory
        )
        shown = ", ".join(f"{row['metric']} {row['value']:.4g}" for row in rows)
        print(f"{setting}, {method}: {shown}", flush=True)


def _suited(method: str, path: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    """Check that a run is of the kind of its method; give its options.

    Raises:
      UserError: it is not.
    """
    config = load_run(path).config
    guided = getattr(config, "return_model", False)
    actions = getattr(config, "actions", None)
    wanted = {
        "classifier": (guided, "a Diffuser with a model of returns"),
        "classifier-clean": (
            guided and not config.noised_returns,
            "a Diffuser whose model of returns saw clean windows (--no-noised-returns)",
        ),
        "classifier-free": (actions == "diffused", "trained with --actions diffused"),
        "decision-diffuser": (actions == "inverse", "a Decision Diffuser of states"),
    }
    fits, words = wanted[method]
    if not fits:
        raise UserError(f"for {method}, {path} must be {words}; name another run")
    return overrides


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
    """Time the compiled agent of one environment where it plans: a row."""
    env = make_env(run)
    observation = np.asarray(env.reset(seed=options.seed)[0], np.float32)[None]
    env.close()
    act, carry = jax.jit(run.algorithm.act), run.algorithm.init_carry(1)
    begins, seconds = np.ones(1, bool), []
    for call in range(options.calls + 1):
        key = jax.block_until_ready(jax.random.key(call))
        started = time.perf_counter()
        jax.block_until_ready(act(run.states, carry, key, observation, begins))
        seconds.append(time.perf_counter() - started)
    seconds = seconds[1:]  # the first call compiles
    low, high = bootstrap_interval(seconds, statistic=np.median)
    return {
        "metric": "seconds_per_decision",
        "value": float(np.median(seconds)),
        "low": low,
        "high": high,
        "n": options.calls,
        "seeds": 1,
    }


def _command(options: Options) -> str:
    """Write the command that measures the same again."""
    parts = ["python -m benchmarks.classifier_free CLASSIFIER_RUN FREE_RUN"]
    for name in ("clean", "decision"):
        if getattr(options, name) is not None:
            parts.append(f"--{name} {name.upper()}_RUN")
    if options.sampling_steps is not None:
        parts.append(f"--sampling-steps {options.sampling_steps}")
    return " ".join(
        [
            *parts,
            f"--episodes {options.episodes} --calls {options.calls}",
            f"--seed {options.seed}",
        ]
    )


if __name__ == "__main__":
    run_command(main, Options, cpu_devices=2)
