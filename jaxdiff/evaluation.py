"""Closed-loop evaluation: a run plays the task of its dataset and is scored."""

import hashlib
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
from jaxdiff.episode_log import EpisodeLog
from jaxdiff.errors import UserError, writing
from jaxdiff.files import refuse_link, write_text
from jaxdiff.options import override, to_plain
from jaxdiff.progress import note
from jaxdiff.rollouts import Session
from jaxdiff.run import Run
from jaxdiff.simulation import Simulator, simulate
from jaxdiff.tasks.base import Task
from jaxdiff.tasks.control import score as score_returns
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
    timeout: float | None = None,
    save: bool = False,
    resume: bool = False,
    on_device: bool = False,
) -> tuple[dict[str, Any], Any]:
    """Score a run in the environment of its dataset.

    The environment is the one that the dataset names for evaluation, else the one that
    it was recorded in. An episode whose environment goes wrong is left out of the
    scores, see `jaxdiff.rollouts`; what happened is said and recorded under "failed".

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
      timeout: seconds that the environment may take for one episode.
      save: write the record into the run folder, as `evaluations/NNN.json`. Until then
        episodes are kept there as they end.
      resume: go on with an evaluation that was cut off while it was saved.
      on_device: play in the library's own simulator of the task, policy and physics in
        one program, see `jaxdiff.simulation`. The record names the simulator, and has
        returns and their rates but no score, because scores are of the environment.

    Returns:
      A record of the scores, JSON values, and what was played. Its entry "repeat" holds
      what else an equal score needs: the environment, the options of the task, which
      checkpoint, the updates of each learner, device and versions; "overrides" the
      acting options that differ from those of training; "path" where it was written.

    Raises:
      UserError: the environment is unknown, is not installed, asks for trust, or does
        not fit the run; every episode went wrong; there is nothing to resume; or the
        task has no simulator.
    """
    if timeout is not None and not timeout > 0:
        raise UserError(f"`timeout` is {timeout}; it must be above 0 seconds")
    if on_device and (timeout is not None or resume):
        raise UserError(
            "`timeout` and `resume` have no effect with `on_device`, which plays all "
            "episodes in one program; leave them out"
        )
    played_in = environment_of(run, environment, trust=trust)
    task = task_of(played_in)
    options = options_of(task, run, options)
    simulator = _simulator(task, played_in, options) if on_device else None
    check_fit(run, task, played_in, options)
    repeat = {
        "environment": played_in._asdict(),
        "on_device": on_device,
        "options": to_plain(options),
        "checkpoint": "best" if run.best else "newest",
        "updates": {name: int(state.step) for name, state in run.states.items()},
        "device": (devices or jax.devices())[0].device_kind,
        "versions": run_folder.versions(),
    }
    acting = to_plain(run.acting)
    trained = run.document["acting"]
    asked = {
        "seed": seed,
        "acting": acting,
        "overrides": {k: v for k, v in acting.items() if v != trained.get(k, v)},
        "repeat": repeat,
    }
    if guidance is not None:
        leaves = jax.tree.leaves(guidance)
        asked["guidance"] = [np.asarray(leaf).tolist() for leaf in leaves]
    log = _log(run, asked, resume=resume) if save and not on_device else None
    started = time.monotonic()
    if simulator is not None:
        played = simulate(
            run,
            simulator,
            episodes=episodes,
            num_envs=num_envs,
            seed=seed,
            devices=devices,
            guidance=guidance,
        )
        scores = {
            "environment": f"jaxdiff's simulator, not {played_in.id}",
            **score_returns(played, options, {}),
            "episodes_per_second": len(played.returns) / played.seconds,
            "steps_per_second": int(played.lengths.sum()) / played.seconds,
        }
    else:
        session = Session(
            lambda count, seeds: run.policy(
                count, seeds=seeds, devices=devices, guidance=guidance
            ),
            episodes=episodes,
            num_envs=num_envs,
            seed=seed,
            label=run.name,
            timeout=timeout,
            log=log,
        )
        try:
            played = task.play(task, played_in, options, session)
        except BaseException:
            if log and (count := len(log.read())):
                note(f"{count} finished episodes are kept; `resume` goes on with them")
            raise
        scores = task.score(played, options, run.dataset["references"])
    record = {
        "setting": run.dataset["name"],
        "environment": played_in.id,
        "episodes": episodes,
        "num_envs": num_envs,
        **scores,
        **_failures(played, episodes),
        **asked,
        "seconds": time.monotonic() - started,
    }
    if save:
        record["path"] = str(save_evaluation(run, record))
    if log:
        log.remove()
    return record, played


def _simulator(task: Task, environment: Environment, options: Any) -> Simulator:
    """Return the simulator of a task's environment.

    Raises:
      UserError: the task has none.
    """
    if task.simulate is None:
        raise UserError(
            f"the task {task.name} has no simulator to play {environment.id} on a "
            "device; leave out `on_device`"
        )
    return task.simulate(environment, options)


def _log(run: Run, asked: Mapping[str, Any], *, resume: bool) -> EpisodeLog:
    """Return where finished episodes of an evaluation are kept.

    What is asked for names the folder, so that episodes of other options, parameters or
    versions are never taken for those of this evaluation.

    Raises:
      UserError: there is nothing to resume, or the folder is a link.
    """
    text = json.dumps(asked, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    folder = run.path / "evaluations" / f"unfinished-{digest}"
    for path in (folder.parent, folder):
        refuse_link(path)
    log = EpisodeLog(folder)
    count = len(log.read())
    if resume and not count:
        raise UserError(
            f"{folder.parent} holds no episodes of an unfinished evaluation with these "
            "options and parameters; leave out `resume`"
        )
    if resume:
        note(f"{count} episodes were played before")
    elif count:
        note(
            f"{count} episodes of this evaluation, which was cut off, are played "
            "again; `resume` would go on with them"
        )
        log.remove()
    return log


_NAMED = 3  # failed episodes that are named on the screen; the record has all


def _failures(played: Any, episodes: int) -> dict[str, Any]:
    """Say which episodes went wrong, and return what the record says of it."""
    failed = getattr(played, "failed", ())
    if not failed:
        return {}
    named = "; ".join(f"seed {seed}: {what}" for seed, what in failed[:_NAMED])
    more = f"; {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    note(
        f"{len(failed)} of {episodes} episodes went wrong and are not scored "
        f"({named}{more})"
    )
    return {"failed": [each._asdict() for each in failed]}


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


def check_fit(run: Run, task: Task, environment: Environment, options: Any) -> None:
    """Check that observations and actions have the sizes that a run was built for.

    Raises:
      UserError: they have not.
    """
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
        write_text(path, text)
    return path
