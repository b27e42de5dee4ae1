"""The run folder: what is written, in which order, and how it is trusted again.

    run/
      config.json               what was asked for: resolved options, versions, dataset
      statistics.npz            what was measured on the dataset (normalizer, ...)
      metrics.jsonl             one line a report: learner, step, loss, ...
      checkpoints/<learner>/<step>/
        state/                  the TrainState, written by Orbax
        manifest.json           SHA-256 of every file of state/, written last
      checkpoints/<learner>/best.json
      figures/  evaluations/

Orbax loads an array with a flipped bit without a word, so each checkpoint carries its
own digests. A checkpoint is written under a temporary name and renamed when complete:
a killed process leaves either the whole of it or nothing that is mistaken for it.

States are saved as host arrays, without a device layout, so that a run may continue on
another number of devices. This is the only module that knows Orbax.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxdiff.algorithms.base import TrainState
from jaxdiff.errors import UserError
from jaxdiff.progress import note

FORMAT = 1
_VERSIONS = ("jaxdiff", "jax", "flax", "optax", "orbax-checkpoint", "numpy")


def versions() -> dict[str, str]:
    """Return the versions a result depends on, by package name."""
    found = {}
    for name in _VERSIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


# --------------------------------------------------------------------------- the run


def create_run(
    path: Path, config: dict[str, Any], statistics: dict[str, np.ndarray]
) -> None:
    """Make a run folder from its resolved configuration and dataset statistics."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        _write(path / "statistics.npz", lambda file: np.savez(file, **statistics))
        digest = _sha256(path / "statistics.npz")
        document = {
            "format": FORMAT,
            **config,
            "versions": versions(),
            "statistics": digest,
        }
        text = json.dumps(document, indent=2) + "\n"
        _write(path / "config.json", lambda file: file.write(text.encode()))
    except OSError as error:
        raise UserError(
            f"The run folder {path} cannot be written ({error.strerror}): "
            "name another folder with --run or free some space."
        ) from error


def read_run(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read back what `create_run` wrote: configuration and statistics."""
    config_file = path / "config.json"
    if not path.is_dir():
        raise UserError(
            f"There is no run folder {path}: check the path, or make the run with "
            "`jaxdiff train`."
        )
    if not config_file.is_file():
        raise UserError(
            f"{path} is not a run folder of jaxdiff (it holds no config.json): "
            "name a folder that `jaxdiff train --run` made."
        )
    try:
        config = json.loads(config_file.read_text())
        found = config["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{config_file} cannot be read as the configuration of a run ({error}): "
            "restore the file or train again."
        ) from error
    if found != FORMAT:
        made_by = config.get("versions", {}).get("jaxdiff", "unknown")
        raise UserError(
            f"{path} was made by jaxdiff {made_by} in run format {found}, and this "
            f"version reads format {FORMAT}: use that version, or train again."
        )
    statistics_file = path / "statistics.npz"
    if not statistics_file.is_file() or (
        _sha256(statistics_file) != config.get("statistics")
    ):
        raise UserError(
            f"{statistics_file} is missing or damaged (its SHA-256 differs from the "
            "one in config.json): restore the file or train again."
        )
    with np.load(statistics_file, allow_pickle=False) as arrays:
        return config, dict(arrays)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the run folder, so that no second process trains into it.

    The lock belongs to the process: it is gone with it, however it ends.
    """
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"Another process is training in {path}: wait for it to end or name "
                "another folder with --run."
            ) from error
        yield


def append_metrics(path: Path, record: dict[str, Any]) -> None:
    """Add one line to `metrics.jsonl`."""
    with (path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


# ---------------------------------------------------------------------- checkpoints


def save_state(
    run: Path, learner: str, state: TrainState, *, step: int, keep: int = 2
) -> Path:
    """Save `state` (host arrays) as the checkpoint of `learner` at `step`.

    Keeps the newest `keep` checkpoints and the best one; removes older ones only after
    the new one is complete.
    """
    folder = run / "checkpoints" / learner
    final = folder / f"{step:09d}"
    partial = folder / f".{step:09d}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        with _checkpointer() as checkpointer:
            checkpointer.save(
                (partial / "state").absolute(),
                args=ocp.args.StandardSave(_as_dict(state)),
            )
        text = _manifest_text(partial)
        _write(partial / "manifest.json", lambda file: file.write(text.encode()))
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
    except OSError as error:
        raise UserError(
            f"The checkpoint {final} cannot be written ({error.strerror}): free some "
            "space or mend the folder's permissions, then resume with --resume."
        ) from error
    kept = set(_steps(run, learner)[-keep:]) | {_best(run, learner).get("step")}
    for old in _steps(run, learner):
        if old not in kept:
            shutil.rmtree(folder / f"{old:09d}", ignore_errors=True)
    return final


def mark_best(run: Path, learner: str, *, step: int, metric: str, value: float) -> bool:
    """Record the checkpoint at `step` as the best if `value` beats the record's.

    Returns whether it did. Call it before the checkpoint is saved, so that the one
    recorded is never removed.
    """
    best = _best(run, learner)
    if best and best["value"] >= value:
        return False
    text = json.dumps({"step": step, "metric": metric, "value": value})
    folder = run / "checkpoints" / learner
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "best.json", lambda file: file.write(text.encode()))
    return True


def restore_state(
    run: Path, learner: str, like: TrainState | None = None, *, best: bool = False
) -> tuple[int, TrainState] | None:
    """Restores the newest whole checkpoint of a learner, or its best one.

    Args:
      run: the run folder.
      learner: the learner's name.
      like: a state of the shapes and types expected (`jax.eval_shape` makes one), to
        train on from; without it the optimizer's state comes back as plain containers,
        which is enough to act.
      best: prefer the best checkpoint; the newest one stands in where there is none.

    Returns:
      `(step, state)` with NumPy leaves, or None where the learner has no checkpoint. A
      damaged checkpoint is passed over for the one before, with a note.
    """
    steps = _steps(run, learner)
    order = list(reversed(steps))
    marked = _best(run, learner).get("step") if best else None
    if marked in steps:
        order.remove(marked)
        order.insert(0, marked)
    for step in order:
        folder = run / "checkpoints" / learner / f"{step:09d}"
        fault = _fault(folder)
        if fault is None:
            return step, _restore(folder, like)
        note(
            f"The checkpoint {folder} is damaged ({fault}); the one before it is used."
        )
    if steps:
        raise UserError(
            f"Every checkpoint of {learner} in {run} is damaged: restore the folder "
            "from a copy or train again."
        )
    return None


def _checkpointer() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.StandardCheckpointHandler())


def _as_dict(state: TrainState) -> dict[str, Any]:
    """One level of field names, so that the files do not depend on a Python class."""
    return {name: getattr(state, name) for name in state.__dataclass_fields__}


def _restore(folder: Path, like: TrainState | None) -> TrainState:
    abstract = None
    if like is not None:
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), _as_dict(like)
        )
    try:
        with _checkpointer() as checkpointer:
            fields = checkpointer.restore(
                (folder / "state").absolute(), args=ocp.args.StandardRestore(abstract)
            )
        if abstract is not None:
            chex.assert_trees_all_equal_shapes_and_dtypes(fields, abstract)
        return TrainState(**fields)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise UserError(
            f"{folder} does not hold the arrays that this configuration asks for "
            f"({str(error).splitlines()[0]}): it was made by other options or another "
            "version of jaxdiff."
        ) from error


def _steps(run: Path, learner: str) -> list[int]:
    folder = run / "checkpoints" / learner
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit())


def _best(run: Path, learner: str) -> dict[str, Any]:
    try:
        return json.loads((run / "checkpoints" / learner / "best.json").read_text())
    except (OSError, ValueError):
        return {}


# ------------------------------------------------------------------------ manifests


def _manifest_text(folder: Path) -> str:
    files = {
        str(file.relative_to(folder)): _sha256(file)
        for file in sorted((folder / "state").rglob("*"))
        if file.is_file()
    }
    body = json.dumps(files, indent=1, sort_keys=True)
    # The manifest's own digest: a flipped bit in it is damage like any other.
    return f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}\n"


def _fault(folder: Path) -> str | None:
    """Says what is wrong with a checkpoint, or None where every byte is as written."""
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return "it has no manifest"
    if manifest.read_bytes() == _manifest_text(folder).encode():
        return None
    try:
        digest, _, body = manifest.read_text().partition("\n")
        recorded = json.loads(body)
        if hashlib.sha256(body.removesuffix("\n").encode()).hexdigest() != digest:
            return "its manifest is damaged"
    except ValueError:
        return "its manifest is damaged"
    for name, expected in recorded.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if _sha256(folder / name) != expected:
            return f"{name} differs from its SHA-256"
    return "it holds a file that the manifest does not name"


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _write(path: Path, fill: Callable[[Any], Any]) -> None:
    """Write a file under another name and renames it: all of it or nothing."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        fill(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
