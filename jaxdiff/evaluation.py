"""Closed-loop evaluation: a run plays the task of its dataset and is scored."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np

from jaxdiff import run_folder
from jaxdiff.data.spec import Environment
from jaxdiff.devices import Device
from jaxdiff.errors import UserError, writing
from jaxdiff.files import refuse_link, write_whole
from jaxdiff.options import override, to_plain
from jaxdiff.run import Run
from jaxdiff.tasks.base import Task
from jaxdiff.tasks.lookup import task_of


def evaluate(
    run: Run,
    *,
    episodes: int = 100,
    seed: int = 1_000,
    num_envs: int = 100,
    options: Any = None,
    devices: Sequence[Device] | None = None,
    environment: str | None = None,
    trust: bool = False,
    guidance: Any = None,
) -> tuple[dict[str, Any], Any]:
    """Score a run in the environment of its dataset.

    The environment is the one that the dataset names for evaluation, else the one that
    it was recorded in.

    Args:
      run: a trained planner or policy.
      episodes: how many; a task may count something else, such as minutes.
      seed: of the first episode, and of the policy's noise in it.
      num_envs: environments side by side; one program acts in all of them.
      options: options of the task, an instance of its class or a mapping.
      devices: the batch of environments is split over them.
      environment: another Gymnasium id, `Id` or `module:Id`, to play instead.
      trust: import the module that the run's own environment `module:Id` names.
      guidance: arrays that take the place of acting options.

    Returns:
      A record of the scores, JSON values, and what was played. Its entry "repeat" holds
      what else an equal score needs: the environment, the options of the task, which
      checkpoint, the updates of each learner, device and versions.

    Raises:
      UserError: the environment is unknown, is not installed, asks for trust, or does
        not fit the run.
    """
    played_in = environment_of(run, environment, trust=trust)
    task = task_of(played_in)
    options = options_of(task, run, options)
    _check_fit(run, task, played_in, options)
    started = time.monotonic()
    played = task.play(
        task,
        lambda count, seeds: run.policy(
            count, seeds=seeds, devices=devices, guidance=guidance
        ),
        played_in,
        options,
        episodes=episodes,
        seed=seed,
        num_envs=num_envs,
        label=run.name,
    )
    record = {
        "setting": run.dataset["name"],
        "environment": played_in.id,
        "episodes": episodes,
        "seed": seed,
        "num_envs": num_envs,
        **task.score(played, options, run.dataset["references"]),
        "acting": to_plain(run.acting),
        "repeat": {
            "environment": played_in._asdict(),
            "options": to_plain(options),
            "checkpoint": "best" if run.best else "newest",
            "updates": {name: int(state.step) for name, state in run.states.items()},
            "device": (devices or jax.devices())[0].device_kind,
            "versions": run_folder.versions(),
        },
        "seconds": time.monotonic() - started,
    }
    return record, played


def environment_of(
    run: Run, environment: str | None = None, *, trust: bool = False
) -> Environment:
    """Return the environment to score a run in.

    Args:
      run: the run.
      environment: another Gymnasium id to use instead of the run's.
      trust: accept an id `module:Id` that is stored in the run, whose module is code.

    Raises:
      UserError: the run knows no environment, or one that asks for trust.
    """
    if environment is not None:
        return Environment(environment)
    stored = run.environment()
    if stored is None:
        raise UserError(
            f"{run.path} was trained on {run.dataset['name']}, which does not say the "
            "environment it was recorded in; name one with `environment`"
        )
    if ":" in stored.id and not trust:
        raise UserError(
            f"{run.path} asks for the environment {stored.id}, whose module is code; "
            f"name it again with `environment={stored.id}`, or accept it with "
            "`trust=True`"
        )
    return stored


def options_of(task: Task, run: Run, options: Any = None) -> Any:
    """Complete options of a task from what the dataset of a run says.

    Args:
      task: the task.
      run: the run.
      options: an instance of `task.options`, a mapping of some of them, or None.
    """
    if options is None or isinstance(options, Mapping):
        options = override(task.options(), options or {}, f"the task {task.name}")
    return task.settle(options, run.dataset["metadata"])


def make_env(
    run: Run,
    *,
    options: Any = None,
    environment: str | None = None,
    trust: bool = False,
) -> gymnasium.Env:
    """Make one environment of a run as its policies see it; see `evaluate`.

    Use it for a loop of your own:

        env = jaxdiff.make_env(run)
    """
    played_in = environment_of(run, environment, trust=trust)
    task = task_of(played_in)
    return task.make_env(played_in, options_of(task, run, options))


def _check_fit(run: Run, task: Task, environment: Environment, options: Any) -> None:
    """Check that observations and actions have the sizes that the run was built for."""
    env = task.make_env(environment, options)
    try:
        spaces = env.observation_space, env.action_space
    finally:
        env.close()
    seen, actions = spaces
    if isinstance(seen, gymnasium.spaces.Dict):
        seen = seen["observation"]
    sizes = {
        "actions": (int(np.prod(actions.shape or ())), run.spec.action_dim),
        "observations": (int(np.prod(seen.shape or ())), run.spec.observation_dim),
    }
    for what, (found, wanted) in sizes.items():
        if found != wanted:
            raise UserError(
                f"the environment {environment.id} has {what} of {found} numbers, and "
                f"{run.path} was trained on {what} of {wanted}; name the environment "
                "of the dataset with `environment`"
            )


def save_evaluation(run: Run, record: Mapping[str, Any]) -> Path:
    """Write a record into the run folder as `evaluations/NNN.json`.

    Raises:
      UserError: the folder cannot be written.
      ValueError: the record holds a NaN or an infinity, which JSON does not have.
    """
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    folder = run.path / "evaluations"
    refuse_link(folder)
    taken = [int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal()]
    path = folder / f"{max(taken, default=-1) + 1:03d}.json"
    with writing(path, "check the permissions of the run folder or free some space"):
        write_whole(path, lambda file: file.write(text.encode()))
    return path
