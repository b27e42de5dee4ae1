"""The run folder: what is written, in which order, and how it is trusted again.

    run/
      config.json               what was asked for: resolved options, versions, dataset
      statistics.npz            what was measured on the dataset (normalizer, ...)
      metrics.jsonl             one line a report: learner, step, loss, ...
      checkpoints/<learner>/<step>/
        state/                  the TrainState, written by Orbax
        manifest.json           whose it is, and SHA-256 of every file; written last
      checkpoints/<learner>/best.json
      figures/  evaluations/

Orbax loads an array with a flipped bit without a word, so each checkpoint carries its
own digests, and each JSON document here carries its own. A manifest also names the run,
the learner, the step and the dataset, so that a folder that was swapped, copied or
renamed is no checkpoint. A checkpoint is written under
a temporary name and renamed when complete: a killed process leaves either the whole of
it or nothing that is mistaken for it. Nothing that is read can hold code.

A loss of power is another matter: documents are flushed to the disk, but the arrays
that Orbax writes and the names of new files are not, so that the newest checkpoints may
be lost or damaged. Their digests show it, and the newest whole one is used; with
`keep=1` there may be none.

States are saved as host arrays, without a device layout, so that a run may continue on
another number of devices. One process writes a run: training over several processes
(`jax.distributed`) is not supported. This is the only module that knows Orbax.
"""

import contextlib
import fcntl
import gc
import hashlib
import json
import logging
import math
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import orbax.checkpoint as ocp

import jaxdiff
from jaxdiff.algorithms.base import TrainState
from jaxdiff.errors import UserError, reason, writing
from jaxdiff.files import (
    parse,
    read_sealed,
    refuse_link,
    require,
    sha256,
    write_sealed,
    write_whole,
)
from jaxdiff.progress import note

FORMAT = 3
_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
# What a configuration of this format holds.
_DOCUMENT = {
    "algorithm": str,
    "config": dict,
    "acting": dict,
    "spec": dict,
    "training": dict,
    "seed": int,
    "dataset": dict,
    "versions": dict,
    "statistics": str,
    "id": str,
}
_DATASET = {
    "name": str,
    "environment": (dict, type(None)),
    "evaluation": (dict, type(None)),
    "fingerprint": str,
    "references": dict,
    "metadata": dict,
    "stream": bool,
}
# What a folder may hold before it has its config.json.
_BEFORE_CONFIG = {
    ".lock",
    ".statistics.npz.partial",
    "statistics.npz",
    ".config.json.partial",
}
_NO_ROOM = "free some space or name another folder with `run`"


def versions() -> dict[str, str]:
    """Return the versions a result depends on, by package name."""
    found = {"jaxdiff": jaxdiff.__version__}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


# --------------------------------------------------------------------------- the run


def is_fresh(path: Path) -> bool:
    """Tell whether a folder is free for a new run: nothing was trained into it yet.

    It is missing or empty, or holds no more than what comes before the first
    checkpoint.

    Raises:
      UserError: what it holds is not a run's, or checkpoints of a lost run.
    """
    found = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    if "config.json" in found:
        _read_config(path, path / "config.json")
    elif "checkpoints" in found:
        raise UserError(
            f"{path} holds checkpoints without the config.json they belong to; "
            "name another folder with `run`"
        )
    elif found - _BEFORE_CONFIG:
        raise UserError(
            f"{path} holds files that are not of a run, such as "
            f"{min(found - _BEFORE_CONFIG)}; name a new or empty folder with `run`"
        )
    return "checkpoints" not in found


def create_run(
    path: Path, config: Mapping[str, Any], statistics: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Make a run folder from its resolved configuration and dataset statistics.

    Returns the whole configuration. What a try that trained nothing left is replaced.

    Raises:
      UserError: the folder cannot be written, or is not fresh.
    """
    if not is_fresh(path):
        raise UserError(f"{path} already holds a run; name another folder with `run`")
    arrays: dict[str, Any] = dict(statistics)
    with writing(path / "config.json", _NO_ROOM):
        path.mkdir(exist_ok=True)
        (path / "metrics.jsonl").unlink(missing_ok=True)
        write_whole(path / "statistics.npz", lambda file: np.savez(file, **arrays))
        document = {
            "format": FORMAT,
            **config,
            "id": _identity(config),
            "versions": versions(),
            "statistics": sha256(path / "statistics.npz"),
        }
        write_sealed(path / "config.json", document)
    return document


def read_run(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read back what `create_run` wrote: configuration and statistics.

    Raises:
      UserError: the folder is missing, foreign, damaged or of another format.
    """
    if not path.is_dir():
        raise UserError(
            f"there is no run folder {path}; check the path, or make the run with "
            "`jaxdiff train`"
        )
    config_file = path / "config.json"
    if not config_file.is_file():
        raise UserError(
            f"{path} is not a run folder of jaxdiff (it holds no config.json); "
            "name a folder that `jaxdiff train --run` made"
        )
    config = _read_config(path, config_file)
    statistics_file = path / "statistics.npz"
    if not statistics_file.is_file() or (
        sha256(statistics_file) != config["statistics"]
    ):
        raise UserError(
            f"{statistics_file} is missing or damaged (its SHA-256 differs from the "
            "one in config.json); restore the file or train again"
        )
    try:
        with np.load(statistics_file, allow_pickle=False) as arrays:
            return config, dict(arrays)
    except ValueError as error:
        # Its digest is right, so that someone wrote it so: pickled objects.
        raise UserError(
            f"{statistics_file} is no file of arrays ({reason(error)}); train again"
        ) from error


def update_run(path: Path, **parts: Any) -> dict[str, Any]:
    """Replace parts of a run's configuration; return the whole of it."""
    before = read_sealed(path / "config.json")
    document = {**before, **parts}
    if document != before:
        with writing(path / "config.json", _NO_ROOM):
            write_sealed(path / "config.json", document)
    return document


def _read_config(path: Path, config_file: Path) -> dict[str, Any]:
    try:
        found = parse(config_file)
        if "format" in found and found["format"] != FORMAT:
            made_by = found.get("versions")
            made_by = made_by.get("jaxdiff") if isinstance(made_by, dict) else None
            raise UserError(
                f"{path} was made by jaxdiff {made_by} in run format "
                f"{found['format']}, and this version reads format {FORMAT}; use that "
                "version or train again"
            )
        config = read_sealed(config_file)
        require(config, _DOCUMENT)
        require(config["dataset"], _DATASET)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{config_file} cannot be read as the configuration of a run "
            f"({reason(error)}); restore the file or train again"
        ) from error
    return config


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the run folder, so that no second process trains into it.

    The lock belongs to the process: it is gone with it, however it ends. A folder that
    is moved or removed meanwhile is noticed by what writes into it.

    Raises:
      UserError: another process holds it, or its lock is a link to another file.
    """
    with contextlib.ExitStack() as stack:
        with writing(path / ".lock", _NO_ROOM):
            refuse_link(path / ".lock")
            file = stack.enter_context((path / ".lock").open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"another process is training in {path}; wait for it to end or "
                    "name another folder with `run`"
                ) from error
        # An open folder is found again wherever it is moved.
        _HELD[path] = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(lambda: os.close(_HELD.pop(path)))
        yield


_HELD: dict[Path, int] = {}  # run folder that is trained into -> its file descriptor


def _place(run: Path) -> Path:
    """Return where a run folder lies now.

    Raises:
      UserError: it was removed while it was trained into.
    """
    held = _HELD.get(run)
    if held is None:
        return run
    now = os.fstat(held)
    link = Path(f"/proc/self/fd/{held}")
    for place in (run, link.resolve() if link.exists() else run):
        with contextlib.suppress(OSError):
            if os.path.samestat(place.stat(), now):
                return place
    raise UserError(
        f"{run} was removed while training, so that nothing of it is left; train again"
    )


def append_metrics(run: Path, record: Mapping[str, Any]) -> None:
    """Add one line to `metrics.jsonl`."""
    path = _place(run) / "metrics.jsonl"
    refuse_link(path)
    with writing(path, _NO_ROOM), path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def trim_metrics(run: Path, learner: str, *, step: int) -> None:
    """Drop the lines of a learner after `step`, which a resumed run writes again.

    Lines that cannot be read are kept aside in `metrics.damaged`, with a note; the last
    line may have been cut short by a kill and goes.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        return
    kept, damaged = [], []
    lines = path.read_bytes().splitlines(keepends=True)
    for line in lines:
        try:
            record = json.loads(line)
            if record["learner"] != learner or record["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            if line is not lines[-1] or line.endswith(b"\n"):
                damaged.append(line)
    with writing(path, _NO_ROOM):
        if damaged:
            aside = path.with_name("metrics.damaged")
            refuse_link(aside)
            with aside.open("ab") as file:
                file.writelines(damaged)
            note(f"{len(damaged)} lines of {path} are damaged and lie in {aside} now")
        write_whole(path, lambda file: file.write(b"".join(kept)))


# ---------------------------------------------------------------------- checkpoints


def save_state(
    run: Path, learner: str, state: TrainState, *, step: int, keep: int = 2
) -> Path:
    """Save `state` (host arrays) as the checkpoint of `learner` at `step`.

    Keeps the newest `keep` checkpoints and the best one; removes others only after the
    new one is complete. One of a later step is removed as well, for training goes on
    from the newest whole checkpoint, so that the later one must be damaged; only if it
    is marked as the best does it stay, until training comes to its step again.

    Raises:
      UserError: the folder cannot be written, or was moved; then the state is saved
        where the folder lies now.
    """
    asked, run = run, _place(run)
    folder = run / "checkpoints" / learner
    final = folder / f"{step:09d}"
    partial = folder / f".{step:09d}.partial"
    with writing(final, "free some space, then go on with `resume=True`"):
        for leftover in folder.glob(".*.partial"):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            _require_room(folder, state)
            _save_arrays(partial / "state", state)
            manifest = {**_owner(run, learner, step), "files": _digests(partial)}
            write_sealed(partial / "manifest.json", manifest)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(partial, final)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    steps = saved_steps(run, learner)
    so_far = [old for old in steps if old <= step]
    kept = {*so_far[-keep:], _best(run, learner).get("step")}
    for old in set(steps) - kept:
        shutil.rmtree(folder / f"{old:09d}", ignore_errors=True)
    if run != asked:
        raise UserError(
            f"{asked} was moved to {run} while training, where update {step} of "
            f"{learner} is saved; go on with `run={run}` and `resume=True`"
        )
    return final


def mark_best(run: Path, learner: str, *, step: int, metric: str, value: float) -> bool:
    """Record the checkpoint at `step` as the best if `value` beats the record's.

    Returns whether it did. Call it before the checkpoint is saved, so that the one
    recorded is never removed.
    """
    run = _place(run)
    best = _best(run, learner)
    if math.isnan(value) or (best and best["value"] >= value):
        return False
    path = run / "checkpoints" / learner / "best.json"
    with writing(path, _NO_ROOM):
        write_sealed(path, {"step": step, "metric": metric, "value": float(value)})
    return True


def restore_state(
    run: Path, learner: str, like: TrainState | None = None, *, best: bool = False
) -> tuple[int, TrainState] | None:
    """Restore the newest whole checkpoint of a learner, or its best one.

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

    Raises:
      UserError: no checkpoint is whole, or it does not fit `like`.
    """
    order = saved_steps(run, learner)[::-1]
    marked = _best(run, learner).get("step") if best else None
    # Stable: the others stay in order, newest first.
    order.sort(key=lambda step: step != marked)
    damage = []
    for step in order:
        folder = run / "checkpoints" / learner / f"{step:09d}"
        fault = _fault(folder, _owner(run, learner, step))
        if fault is None:
            if damage:
                note(f"{'; '.join(damage)}; step {step} of {learner} is used instead")
            return step, _restore(folder, like)
        damage.append(f"the checkpoint {folder} is damaged ({fault})")
    if damage:
        raise UserError(
            f"{'; '.join(damage)}; no other is left: restore the folder from a copy or "
            "train again"
        )
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Orbax from printing tracebacks of errors that it also raises."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    before, hook = [logger.disabled for logger in loggers], sys.unraisablehook
    for logger in loggers:
        logger.disabled = True
    sys.unraisablehook = lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def _checkpointer() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.StandardCheckpointHandler())


def _as_dict(state: TrainState) -> dict[str, Any]:
    """One level of field names, so that the files do not depend on a Python class."""
    return {name: getattr(state, name) for name in state.__dataclass_fields__}


def _require_room(folder: Path, state: TrainState) -> None:
    """Meet a full disk here, where it is one error: Orbax writes in many threads."""
    leaves = jax.tree.leaves(state)
    size = 2**16 + sum(np.asarray(leaf).nbytes + 2**9 for leaf in leaves)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        while size > 0:
            size -= file.write(bytes(min(size, 2**24)))


def _save_arrays(folder: Path, state: TrainState) -> None:
    with _quiet():
        try:
            with _checkpointer() as checkpointer:
                checkpointer.save(
                    folder.absolute(), args=ocp.args.StandardSave(_as_dict(state))
                )
        except Exception as error:
            # Orbax and TensorStore raise several types for a folder that takes no more.
            # Writes that are still under way fail within moments, and what is left of
            # them would speak when it is collected.
            said = reason(error)
            traceback.clear_frames(error.__traceback__)
        else:
            return
        time.sleep(1)
        gc.collect()
    raise OSError(said)


def _restore(folder: Path, like: TrainState | None) -> TrainState:
    abstract = None
    if like is not None:
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), _as_dict(like)
        )
    try:
        with _quiet(), _checkpointer() as checkpointer:
            fields = checkpointer.restore(
                (folder / "state").absolute(), args=ocp.args.StandardRestore(abstract)
            )
        if abstract is not None:
            chex.assert_trees_all_equal_shapes_and_dtypes(fields, abstract)
        return TrainState(**fields)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise UserError(
            f"{folder} does not hold the arrays that this configuration asks for "
            f"({reason(error)}); it was made by other options or another version of "
            "jaxdiff, so train into another folder with `run`"
        ) from error


def saved_steps(run: Path, learner: str) -> list[int]:
    """List the steps of the checkpoints of a learner, in order, whole or not."""
    folder = run / "checkpoints" / learner
    if not folder.is_dir():
        return []
    names = (entry.name for entry in folder.iterdir())
    # Folders of other names, such as 7 or an Arabic-Indic digit, are nobody's.
    return sorted(int(name) for name in names if re.fullmatch(r"[0-9]{9,}", name))


def has_best(run: Path, learner: str) -> bool:
    """Tell whether an evaluation has marked a checkpoint of a learner as the best."""
    return bool(_best(run, learner))


def _best(run: Path, learner: str) -> dict[str, Any]:
    """The record of the best checkpoint, empty where there is none."""
    path = run / "checkpoints" / learner / "best.json"
    if not path.is_file():
        return {}
    try:
        best = read_sealed(path)
        require(best, {"step": int, "value": float})
    except ValueError as error:
        note(f"{path} is damaged ({reason(error)}); no checkpoint counts as the best")
        return {}
    return best if best["step"] in saved_steps(run, learner) else {}


# -------------------------------------------------------------- digests and documents


def _identity(config: Mapping[str, Any]) -> str:
    """Return a name for what was asked for; the same again gives the same bytes."""
    text = json.dumps(config, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _owner(run: Path, learner: str, step: int) -> dict[str, Any]:
    """Whose a checkpoint is, as its manifest says."""
    config = run / "config.json"
    document = read_sealed(config) if config.is_file() else {}
    return {
        "run": document.get("id"),
        "dataset": document.get("dataset", {}).get("fingerprint"),
        "learner": learner,
        "step": step,
    }


def _fault(folder: Path, owner: Mapping[str, Any]) -> str | None:
    """Say what is wrong with a checkpoint, or None where every byte is as written."""
    try:
        manifest = read_sealed(folder / "manifest.json")
        require(manifest, {"files": dict})
        recorded = manifest.pop("files")
    except OSError as error:
        return f"its manifest cannot be read: {reason(error)}"
    except ValueError:
        return "its manifest is damaged"
    for name, value in owner.items():
        if manifest.get(name) != value:
            return f"it is of {name} {manifest.get(name)}, not of {value}"
    found = _digests(folder)
    for name in {**recorded, **found}:
        if name not in found:
            return f"{name} is missing"
        if name not in recorded:
            return f"{name} is not in its manifest"
        if recorded[name] != found[name]:
            return f"{name} differs from its SHA-256"
    return None


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint but its manifest, by relative path."""
    return {
        str(file.relative_to(folder)): sha256(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file != folder / "manifest.json"
    }
