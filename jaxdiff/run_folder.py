"""The run folder: what was asked for, what was measured, and a lock on it.

    run/
      config.json               what was asked for: resolved options, versions, dataset
      statistics.npz            what was measured on the dataset (normalizer, ...)
      metrics.jsonl             one line a report: learner, step, loss, ...
      checkpoints/              see `jaxdiff.checkpoint`
      figures/  evaluations/

Documents carry digests of themselves, and nothing that is read can hold code. One
process writes a run: training over several processes (`jax.distributed`) is not
supported.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import jaxdiff
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
NO_ROOM = "free some space or name another folder with `run`"


def versions() -> dict[str, str]:
    """Return the versions a result depends on, by package name."""
    found = {"jaxdiff": jaxdiff.__version__}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


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


def taken(path: Path) -> UserError:
    """Return the error of a run that would be trained into the folder of another."""
    return UserError(
        f"{path} already holds a run; go on with it by `resume=True`, or name another "
        "folder with `run`"
    )


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
    with writing(path / "config.json", NO_ROOM):
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
        with writing(path / "config.json", NO_ROOM):
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
        with writing(path / ".lock", NO_ROOM):
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


def place(run: Path) -> Path:
    """Return where a run folder lies now.

    Raises:
      UserError: it was removed while it was trained into.
    """
    held = _HELD.get(run)
    if held is None:
        return run
    now = os.fstat(held)
    link = Path(f"/proc/self/fd/{held}")
    for found in (run, link.resolve() if link.exists() else run):
        with contextlib.suppress(OSError):
            if os.path.samestat(found.stat(), now):
                return found
    raise UserError(
        f"{run} was removed while training, so that nothing of it is left; train again"
    )


def append_metrics(run: Path, record: Mapping[str, Any]) -> None:
    """Add one line to `metrics.jsonl`."""
    path = place(run) / "metrics.jsonl"
    refuse_link(path)
    with writing(path, NO_ROOM), path.open("a") as file:
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
    with writing(path, NO_ROOM):
        if damaged:
            aside = path.with_name("metrics.damaged")
            refuse_link(aside)
            with aside.open("ab") as file:
                file.writelines(damaged)
            note(f"{len(damaged)} lines of {path} are damaged and lie in {aside} now")
        write_whole(path, lambda file: file.write(b"".join(kept)))


def _identity(config: Mapping[str, Any]) -> str:
    """Return a name for what was asked for; the same again gives the same bytes."""
    text = json.dumps(config, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
