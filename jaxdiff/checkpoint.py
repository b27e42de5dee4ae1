"""Checkpoints: saved as a whole, and restored only if every byte is as written.

    run/checkpoints/<learner>/<step>/
      state/                  the TrainState, written by Orbax
      manifest.json           whose it is, and SHA-256 of every file; written last
    run/checkpoints/<learner>/best.json

Orbax loads an array with a flipped bit without a word, so each checkpoint carries its
own digests. A manifest also names the run, the learner, the step and the dataset, so
that a folder that was swapped, copied or renamed is no checkpoint. A checkpoint is
written under a temporary name and renamed when complete: a killed process leaves either
the whole of it or nothing that is mistaken for it.

A loss of power is another matter: documents are flushed to the disk, but the arrays
that Orbax writes and the names of new files are not, so that the newest checkpoints may
be lost or damaged. Their digests show it, and the newest whole one is used; with
`keep=1` there may be none.

States are saved as host arrays, without a device layout, so that a run may continue on
another number of devices. This is the only module that knows Orbax.
"""

import contextlib
import gc
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
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxdiff.algorithms.base import TrainState
from jaxdiff.errors import UserError, reason, writing
from jaxdiff.files import read_sealed, require, sha256, write_sealed
from jaxdiff.progress import note
from jaxdiff.run_folder import NO_ROOM, place


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
    asked, run = run, place(run)
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
    run = place(run)
    best = _best(run, learner)
    if math.isnan(value) or (best and best["value"] >= value):
        return False
    path = run / "checkpoints" / learner / "best.json"
    with writing(path, NO_ROOM):
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
    size = 2**16 + sum(leaf.nbytes + 2**9 for leaf in leaves)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)  # writes nothing
            return
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
