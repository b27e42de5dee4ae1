"""Flags and checks that several commands share."""

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax

from jaxdiff.cli.parsing import Flag
from jaxdiff.devices import request_cpu_devices, select_devices
from jaxdiff.errors import UserError

HELP = ("--help", "-h")
RUN = Flag("run", Path, "The run folder.", positional=True)
ROOT = Flag(
    "root", str | None,
    "Folder of datasets; MINARI_DATASETS_PATH or Minari's own by default.", None,
)  # fmt: skip
SEED = Flag("seed", int, "Seed of everything random.", 0)
BEST = Flag("best", bool, "Use the best checkpoint instead of the newest.", False)
DEVICES = Flag(
    "devices", int | None,
    "Number of devices to use; on a CPU, virtual ones, by default one a core.", None,
)  # fmt: skip
PLATFORM = Flag(
    "platform", Literal["cpu", "gpu", "tpu"] | None,
    "Kind of device; by default the one that JAX prefers.", None,
)  # fmt: skip
ENVIRONMENT = Flag(
    "environment", str | None,
    "Gymnasium id to play, `Id` or `module:Id`; by default that of the dataset.", None,
)  # fmt: skip
TRUST = Flag(
    "trust", bool,
    "Import the module that the run's own environment `module:Id` names.", False,
)  # fmt: skip


def replaced(options: Any, asked: Mapping[str, Any], without: Any = ()) -> Any:
    """Give options the values that were asked for."""
    names = [field.name for field in dataclasses.fields(options)]
    return dataclasses.replace(
        options, **{name: asked[name] for name in names if name not in without}
    )


def sentence(text: str) -> str:
    """Begin a text with a capital letter and end it with one full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def devices_of(
    count: int | None, platform: str | None = None, *, batch: int | None = None
) -> list[Any]:
    """Choose devices before JAX touches any: on a CPU, one virtual device a core.

    Without a count, as many are taken as divide a batch of `batch` examples.
    """
    if platform == "cpu":
        jax.config.update("jax_platforms", "cpu")  # leave an accelerator alone
    request_cpu_devices(count or _cores())
    devices = select_devices(count, platform=platform)
    if platform is not None:
        jax.config.update("jax_default_device", devices[0])
    if count is None and batch is not None:
        devices = devices[: math.gcd(len(devices), batch)]
    return devices


def _cores() -> int:
    """Return the cores this process may use, at most 8: more devices gain nothing."""
    if hasattr(os, "sched_getaffinity"):
        return min(8, len(os.sched_getaffinity(0)))
    return min(8, os.cpu_count() or 1)


def require_seed(seed: int) -> None:
    """Refuse a seed that JAX does not take."""
    if not 0 <= seed < 2**31:
        raise UserError(f"`seed` is {seed}; it must be between 0 and {2**31 - 1}")
