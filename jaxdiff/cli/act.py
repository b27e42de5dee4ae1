"""`jaxdiff evaluate`, `plan`, `tune-guidance`: flags come from a run and its task."""

import dataclasses
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.cli.flags import (
    BEST,
    DEVICES,
    ENVIRONMENT,
    HELP,
    PLATFORM,
    RUN,
    SEED,
    TRUST,
    devices_of,
    require_seed,
)
from jaxdiff.cli.parsing import Flag, flags_of, parse, table, value_of
from jaxdiff.errors import UserError, writing
from jaxdiff.options import NoOptions


def evaluate_command(prog: str, args: list[str]) -> None:
    """Play episodes with a run and score them."""
    from jaxdiff.evaluation import evaluate, options_of
    from jaxdiff.run import load_run

    common = [
        RUN,
        Flag("episodes", int, "How many; a task may count something else.", 100),
        SEED._replace(default=1_000, text="Seed of the first episode."),
        BEST,
        Flag("num_envs", int, "Environments to play side by side.", 100),
        Flag("timeout", float | None,
             "Seconds that an environment may take for one episode.", None),
        Flag("resume", bool, "Go on with an evaluation that was cut off.", False),
        Flag("on_device", bool,
             "Play in jaxdiff's own simulator of the task, policy and physics in one "
             "program. The record has returns and their rates, and no score.", False),
        ENVIRONMENT, TRUST, DEVICES, PLATFORM,
    ]  # fmt: skip
    summary = "Play episodes with a trained run and score them."
    found = _asked(prog, args, common, summary, lambda task: task.options)
    if found is None:
        return
    task, asked, options, overrides = found
    devices = devices_of(asked["devices"], asked["platform"])
    run = load_run(asked["run"], best=asked["best"], overrides=overrides)
    record, _ = evaluate(
        run, episodes=asked["episodes"], seed=asked["seed"],
        num_envs=asked["num_envs"], options=options_of(task, run, options),
        devices=devices, environment=asked["environment"], trust=asked["trust"],
        timeout=asked["timeout"], save=True, resume=asked["resume"],
        on_device=asked["on_device"],
    )  # fmt: skip
    path = record.pop("path")
    table(record)
    print(f"written to {path}")


def _opened(
    prog: str, args: list[str], common: list[Flag], summary: str
) -> tuple[Any, Any] | None:
    """Return the task and the acting options of the run that the arguments name.

    Without a run there is only help, which lists what runs may add.
    """
    from jaxdiff.data.spec import Environment
    from jaxdiff.run import open_run
    from jaxdiff.tasks.lookup import TASKS, task_of

    words = [arg for arg in args if not arg.startswith("-")]
    runs = [word for word in words if (Path(word) / "config.json").is_file()]
    if not runs and (set(args) & set(HELP) or not words):
        if not set(args) & set(HELP):
            parse(prog, args, common, summary)
        print(f"usage: {prog} RUN [OPTIONS]\n\n{summary}\n")
        _print_flags("options", common)
        for name, task in TASKS.items():
            _print_flags(f"options in the task {name}", flags_of(task.options))
        for name, entry in ALGORITHMS.items():
            _print_flags(f"options of runs of {name}", flags_of(entry.acting))
        return None
    opened = open_run(Path(runs[0] if runs else words[0]))
    name = value_of(args, "--environment")
    environment = opened.environment() if name is None else Environment(name)
    return task_of(environment), opened.acting


class _Asked(NamedTuple):
    """What a command that acts with a run was asked.

    Attributes:
      task: the task of the run.
      flags: values of all flags, by name.
      options: those of the task, by name.
      overrides: acting options that differ from the run's.
    """

    task: Any
    flags: dict[str, Any]
    options: dict[str, Any]
    overrides: dict[str, Any]


def _asked(
    prog: str,
    args: list[str],
    common: list[Flag],
    summary: str,
    options_of_task: Callable[[Any], type],
) -> _Asked | None:
    """Read flags: common ones, those of the task, and acting options of the run."""
    opened = _opened(prog, args, common, summary)
    if opened is None:
        return None
    task, acting = opened
    own = flags_of(options_of_task(task))
    taken = tuple(each.name for each in (*common, *own))
    flags = [*common, *own, *flags_of(acting, without=taken)]
    asked = parse(prog, args, flags, summary)
    require_seed(asked["seed"])
    options = {each.name: asked[each.name] for each in own}
    return _Asked(task, asked, options, _overrides(acting, asked))


def _print_flags(title: str, flags: list[Flag]) -> None:
    if not flags:
        return
    print(f"{title}:")
    for each in flags:
        name = each.name.upper() if each.positional else f"--{each.name}"
        print(f"  {name.replace('_', '-'):<24} {each.text}")
    print()


def _overrides(acting: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the acting options that were asked for and differ from the run's."""
    return {
        field.name: asked[field.name]
        for field in dataclasses.fields(acting)
        if field.name in asked and asked[field.name] != getattr(acting, field.name)
    }


def tune_command(prog: str, args: list[str]) -> None:
    """Try settings of guidance side by side."""
    from jaxdiff.run import load_run
    from jaxdiff.tune import default_stops, tune_guidance

    common = [
        RUN,
        Flag("scales", tuple[float, ...], "Values of --guide-scale to try.",
             (0.0, 1e-4, 1e-3, 1e-2, 1e-1)),
        Flag("stops", tuple[int, ...] | None, 
             "Values of --guide-stop; by default 0, half of all levels and 3/4.", None),
        Flag("steps", tuple[int, ...], "Values of --guide-steps.", (1, 2)),
        Flag("episodes", int, "Episodes to play with every setting.", 4),
        Flag("max_steps", int, "Steps after which an episode is cut.", 200),
        SEED, BEST, ENVIRONMENT, TRUST, PLATFORM,
    ]  # fmt: skip
    summary = "Try settings of guidance side by side in the run's environment."
    found = _asked(prog, args, common, summary, lambda task: NoOptions)
    if found is None:
        return
    _, asked, _, overrides = found
    devices_of(1, asked["platform"])
    run = load_run(asked["run"], best=asked["best"], overrides=overrides)
    record = tune_guidance(
        run,
        scales=asked["scales"],
        stops=default_stops(run) if asked["stops"] is None else asked["stops"],
        steps=asked["steps"],
        episodes=asked["episodes"],
        max_steps=asked["max_steps"],
        seed=asked["seed"],
        environment=asked["environment"],
        trust=asked["trust"],
    )
    print(f"drawn in {run.path / 'figures' / 'guidance.png'}")
    if record["best"] is None:
        raise UserError(
            f"every setting failed ({record['failed'][0]}); try smaller numbers with "
            "`scales`, or train for longer"
        )
    table(record["best"])
    tuned = {name: record["best"][name] for name in _TUNED}
    flags = [_written(name, value) for name, value in {**overrides, **tuned}.items()]
    same = ("environment", "best", "trust")
    flags += [_written(name, asked[name]) for name in same if asked[name]]
    command = ["jaxdiff evaluate", shlex.quote(str(run.path)), *flags]
    print(f"score it with: {' '.join(command)}")


_TUNED = ("guide_scale", "guide_stop", "guide_steps")


def _written(name: str, value: Any) -> str:
    """Write a flag as a command takes it."""
    spelled = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{spelled}" if value else f"--no-{spelled}"
    words = value if isinstance(value, tuple | list) else [value]
    return " ".join([f"--{spelled}", *(shlex.quote(str(word)) for word in words)])


def _question(task: Any) -> Any:
    if task.question is None:
        raise UserError(f"nothing can be planned in the task {task.name}")
    return task.question


def plan_command(prog: str, args: list[str]) -> None:
    """Plan from a start, perhaps to a goal."""
    from jaxdiff import figures
    from jaxdiff.plans import plan, save_plans
    from jaxdiff.run import load_run

    common = [
        RUN,
        Flag("horizon", int | None, "Steps of the plan, one the run declares.", None),
        Flag("candidates", int, "Plans to make; the best is shown.", 8),
        SEED, BEST, PLATFORM,
        Flag("figure", Path | None, "Draw the plans into this file.", None),
        Flag("out", Path | None, "Write the plans into this NPZ file.", None),
    ]  # fmt: skip
    summary = "Plan from a start, perhaps to a goal."
    found = _asked(prog, args, common, summary, lambda task: _question(task).options)
    if found is None:
        return
    task, asked, options, overrides = found
    devices_of(None, asked["platform"])
    overrides.pop("candidates", None)
    run = load_run(asked["run"], best=asked["best"], overrides=overrides)
    question = _question(task)
    request = question.read(question.options(**options), run)
    plans = plan(
        run, request.start, request.goal,
        horizon=asked["horizon"], candidates=asked["candidates"], seed=asked["seed"],
        **request.options,
    )  # fmt: skip
    if asked["out"] is not None:
        save_plans(plans, asked["out"])
    if asked["figure"] is not None:
        if request.draw is None:
            raise UserError(
                f"plans in the task {task.name} cannot be drawn; leave out `figure`"
            )
        with writing(asked["figure"], "name another file with `figure`"):
            figures.save(request.draw(plans), asked["figure"])
    record: dict[str, Any] = {
        "horizon": len(plans.observations[0]),
        "candidates": asked["candidates"],
        "dynamics_error": float(plans.dynamics_error[0]),
    }
    position = list(run.spec.layout.position)
    if position:
        steps = np.diff(plans.observations[0][:, position], axis=0)
        record["path_length"] = float(np.linalg.norm(steps, axis=-1).sum())
    if plans.expected_return is not None:
        record["expected_return"] = float(plans.expected_return[0])
    table(record)
