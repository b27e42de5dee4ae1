"""Readers of stored datasets: a folder or a file becomes a list of episodes."""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.errors import UserError, reason
from jaxdiff.tasks.kitchen import world as kitchen

_D4RL_FIELDS = ("observations", "actions", "rewards", "terminals", "timeouts")


class Recording(NamedTuple):
    """E episodes as they were stored; episode e has T_e transitions.

    Attributes:
      observations: E arrays `[T + 1, O]`, or of pictures `[T + 1, ...]`.
      actions: E arrays `[T, A]`.
      rewards: E arrays `[T]`.
      terminated: E flags; False where a time limit ended the episode.
      goals: E arrays `[T + 1, G]`, or empty.
      environment: Gymnasium id, if known.
      references: mean returns `random` and `expert`, if known.
    """

    observations: list[np.ndarray]
    actions: list[np.ndarray]
    rewards: list[np.ndarray]
    terminated: list[bool]
    goals: list[np.ndarray]
    environment: str | None = None
    references: Mapping[str, float] = {}


def read_minari(folder: pathlib.Path) -> Recording:
    """Read a Minari dataset folder of any of its storage formats.

    Of dict observations, "observation" is used and "desired_goal" becomes the goals.
    Of a kitchen only what policies see there is, see `jaxdiff.tasks.kitchen.world`.

    Raises:
      UserError: the folder cannot be read, is empty, or has other dict observations.
    """
    import minari

    try:
        metadata = json.loads((folder / "data" / "metadata.json").read_text())
        records = list(minari.MinariDataset(folder / "data").iterate_episodes())
        spec, dataset_id = metadata.get("env_spec"), metadata["dataset_id"]
        environment = json.loads(spec)["id"] if spec else None
    except Exception as error:
        # h5py, pyarrow and Minari itself raise a dozen types for a damaged folder.
        raise UserError(
            f"{folder} cannot be read as a Minari dataset ({reason(error)}); make or "
            "download it again"
        ) from error
    if not records:
        raise UserError(f"{folder} holds no episodes; make or download it again")
    observations = [record.observations for record in records]
    goals: list[np.ndarray] = []
    if isinstance(observations[0], dict):
        if "observation" not in observations[0]:
            raise UserError(
                f"{folder}: observations are a dict without the key 'observation'; "
                f"its keys are {', '.join(observations[0])}"
            )
        if environment in kitchen.ENVIRONMENTS:
            observations = [kitchen.seen(x["observation"]) for x in observations]
        else:
            if "desired_goal" in observations[0]:
                goals = [np.array(x["desired_goal"]) for x in observations]
            observations = [x["observation"] for x in observations]
    if dataset_id.startswith("D4RL/pointmaze/"):
        # These episodes were cut where a goal was reached, by an environment that
        # announces the next goal one step late: their first row has the old goal.
        for rows in goals:
            rows[0] = rows[min(1, len(rows) - 1)]
    return Recording(
        observations=[np.asarray(x) for x in observations],
        actions=[np.asarray(record.actions) for record in records],
        rewards=[np.asarray(record.rewards) for record in records],
        terminated=[bool(np.any(record.terminations)) for record in records],
        goals=goals,
        environment=environment,
        references=_references(metadata),
    )


def _references(metadata: Mapping[str, Any]) -> dict[str, float]:
    if "ref_min_score" not in metadata or "ref_max_score" not in metadata:
        return {}
    return {
        "random": float(metadata["ref_min_score"]),
        "expert": float(metadata["ref_max_score"]),
    }


def read_d4rl(path: str | os.PathLike) -> Recording:
    """Read an HDF5 file in D4RL's layout.

    The file holds flat arrays `observations`, `actions`, `rewards`, `terminals` and
    `timeouts`, and perhaps `next_observations` and goals as `infos/goal`. An episode
    ends where either flag is set, and is terminated only by `terminals`. Its final
    observation is `next_observations` of its last transition. Where that is missing,
    a terminated episode repeats its last observation (no learner bootstraps from
    there), and any other drops its last transition and ends in that observation.
    What follows the last flag is kept as an episode that ran out of time.

    Raises:
      UserError: unreadable file or missing field; `timeouts` is required, since
        episodes that run into one another teach jumps that no environment makes.
    """
    import h5py

    where = os.fspath(path)
    try:
        with h5py.File(path, "r") as file:
            fields = {
                name: np.asarray(file[name])
                for name in (*_D4RL_FIELDS, "next_observations", "infos/goal")
                if name in file
            }
    except (OSError, KeyError, RuntimeError, TypeError) as error:
        raise UserError(
            f"{where} cannot be read as HDF5 ({reason(error)}); it may be truncated: "
            "fetch it again"
        ) from error
    _check_rows(fields, where)
    recording = Recording([], [], [], [], [])
    for start, end in _d4rl_spans(fields):
        terminated = bool(fields["terminals"].ravel()[end - 1])
        rows = fields["observations"][start:end]
        if "next_observations" in fields:
            rows = np.concatenate([rows, fields["next_observations"][end - 1 : end]])
        elif terminated:
            rows = np.concatenate([rows, rows[-1:]])
        else:
            end = end - 1
        if end == start:
            continue
        recording.observations.append(rows)
        recording.actions.append(fields["actions"][start:end])
        recording.rewards.append(fields["rewards"][start:end])
        recording.terminated.append(terminated)
        if "infos/goal" in fields:
            goals = fields["infos/goal"][start:end]
            recording.goals.append(np.concatenate([goals, goals[-1:]]))
    if not recording.actions:
        raise UserError(f"{where} holds no episode with a transition; fetch it again")
    return recording


def _d4rl_spans(fields: Mapping[str, np.ndarray]) -> Iterator[tuple[int, int]]:
    """Yield first and past-the-last transition of each episode."""
    total = len(fields["observations"])
    flags = [fields[name].ravel() != 0 for name in ("terminals", "timeouts")]
    ends = np.flatnonzero(flags[0] | flags[1]) + 1
    if not len(ends) or ends[-1] != total:
        ends = np.append(ends, total)
    yield from zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)


def _check_rows(fields: Mapping[str, np.ndarray], where: str) -> None:
    """Check that a D4RL file has its fields, and as many rows in each."""
    for name in _D4RL_FIELDS:
        if name not in fields:
            raise UserError(
                f"{where} has no field {name!r}; D4RL files need "
                f"{', '.join(_D4RL_FIELDS)}"
            )
    shape = fields["observations"].shape
    for name, value in fields.items():
        fits = shape if name == "next_observations" else shape[:1]
        if value.shape[: len(fits)] != fits or value.ndim < 1:
            raise UserError(
                f"{where}: field {name!r} has shape {list(value.shape)} beside "
                f"{list(shape)} of 'observations'; all need as many rows"
            )
    for name in ("terminals", "timeouts"):
        if fields[name].dtype.kind not in "biuf" or fields[name].size != shape[0]:
            raise UserError(f"{where}: field {name!r} must be one flag per row")
    if shape[0] == 0:
        raise UserError(f"{where} holds no transitions; fetch it again")


def read_npz(path: pathlib.Path, *, required: Sequence[str]) -> dict[str, np.ndarray]:
    """Read the arrays of an NPZ file; pickled objects are refused, not run.

    Raises:
      UserError: the file cannot be read or lacks a required array.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            fields = {name: file[name] for name in file.files}
    except Exception as error:
        # NumPy passes on what zip files and pickles raise.
        raise UserError(
            f"{path} cannot be read as NPZ ({reason(error)}); it may be truncated or "
            "hold Python objects: write it again"
        ) from error
    for name in required:
        if name not in fields:
            raise UserError(
                f"{path} has no field {name!r}; it needs {', '.join(required)}"
            )
    return {
        name: as_float32(x) if np.issubdtype(x.dtype, np.floating) else x
        for name, x in fields.items()
    }


def as_float32(x: np.ndarray) -> np.ndarray:
    """Convert numbers to float32; other types are left for `check_episodes`.

    Bytes, which pictures are made of, stay bytes: they take a quarter of the memory.
    """
    if x.dtype == np.uint8 or not np.issubdtype(x.dtype, np.number):
        return x
    return x.astype(np.float32)
