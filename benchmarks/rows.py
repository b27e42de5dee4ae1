"""Benchmark results as rows of JSON, one file an experiment."""

import json
import platform
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.bench.machine import processor
from jaxdiff.errors import writing
from jaxdiff.files import write_text
from jaxdiff.scoring import bootstrap

RESULTS = Path(__file__).parent / "results"
REQUIRED = ("setting", "method", "metric", "value")
_NO_PLACE = "results go there, so make the folder writable or free some space"
OPTIONAL = ("low", "high", "n", "seeds", "seconds", "load")
PACKAGES = (
    *("jaxdiff", "jax", "jaxlib", "flax", "optax", "numpy"),
    *("gymnasium", "gymnasium-robotics", "mujoco", "minari", "torch"),
)


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    *,
    statistic: Callable[..., Any] = np.mean,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a statistic of `values` [n].

    Args:
      values: what was measured.
      statistic: maps values to a number.
      confidence: of the interval.
      seed: of the bootstrap.

    Raises:
      ValueError: `values` is empty, or has more than one axis.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"expected a non-empty list of values, got {array.shape}")
    return bootstrap(array, statistic, confidence=confidence, seed=seed)


def measured(
    values: Sequence[float] | np.ndarray, *, statistic: Callable[..., Any] = np.mean
) -> dict[str, Any]:
    """Return the value, low, high and n of a row that summarises `values` [n].

    Args:
      values: what was measured.
      statistic: the value, and the statistic of its interval: medians for timings,
        means for the rest.

    Raises:
      ValueError: as in `bootstrap_interval`.
    """
    interval = bootstrap_interval(values, statistic=statistic)
    return {**bounded([statistic(values), *interval]), "n": len(values)}


def bounded(bounds: Iterable[Any]) -> dict[str, float]:
    """Name a value and the bounds of its interval as rows do."""
    return dict(zip(("value", "low", "high"), map(float, bounds), strict=True))


def write_rows(
    experiment: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    command: str,
    directory: Path = RESULTS,
) -> Path:
    """Merge rows into `<directory>/<experiment>.json` and return its path.

    A row has setting, method, metric, value and, where they exist, low, high, n, seeds,
    seconds and load. It replaces the stored row of the same setting, method and metric;
    other stored rows stay as they are, with the commit and device they were made on.

    Args:
      experiment: name of the experiment, also of the file.
      rows: the results.
      command: what to run to get them again.
      directory: where the files lie.

    Raises:
      ValueError: a row lacks a field that it must have, or has one of another name.
      UserError: the file cannot be written.
    """
    stamp = {
        "command": command,
        "commit": commit(),
        "device": processor(),
        "versions": _versions(),
    }
    empty = dict.fromkeys(OPTIONAL)
    path = directory / f"{experiment}.json"
    merged = {_name(row): row for row in read_rows(experiment, directory)}
    for row in rows:
        wrong = {*REQUIRED} - {*row} or {*row} - {*REQUIRED, *OPTIONAL}
        if wrong:
            raise ValueError(f"a row lacks, or has too much: {sorted(wrong)}")
        full = {"experiment": experiment, **empty, **row, **stamp}
        merged[_name(full)] = full
    text = json.dumps(list(merged.values()), indent=1) + "\n"
    with writing(path, _NO_PLACE):
        write_text(path, text)
    return path


def read_rows(experiment: str, directory: Path = RESULTS) -> list[dict[str, Any]]:
    """Read the rows of an experiment; none if it was never measured."""
    path = directory / f"{experiment}.json"
    return json.loads(path.read_text()) if path.exists() else []


def require_place(directory: Path = RESULTS) -> None:
    """Find out before anything is measured that results can be written.

    Raises:
      UserError: no file can be made in the folder.
    """
    with writing(directory / "results", _NO_PLACE):
        tempfile.TemporaryFile(dir=directory).close()


def _name(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["setting"], row["method"], row["metric"]


def commit() -> str:
    """Return the commit of this tree, or "unknown"."""
    git = ["git", "rev-parse", "--short=12", "HEAD"]
    here = Path(__file__).parent
    try:
        done = subprocess.run(git, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
