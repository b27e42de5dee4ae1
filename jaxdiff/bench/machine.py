"""What a measurement was made on."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from jaxdiff import run_folder


def processor() -> str:
    """Return the name of the device that JAX prefers; of a CPU, its model."""
    kind = jax.devices()[0].device_kind
    if kind != "cpu":
        return f"{jax.device_count()} x {kind}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return models[0] if models else platform.machine()


def cores() -> int:
    """Return the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> list[float]:
    """Return the load averages of 1, 5 and 15 minutes."""
    return [round(each, 2) for each in os.getloadavg()]


def commit(folder: Path = Path(__file__).parent) -> str | None:
    """Return the commit that a folder of code is at, with "-dirty" if it was changed.

    None where git does not know the folder, as of an installed package.
    """
    git = ["git", "-C", str(folder)]
    tracked = [*git, "ls-files", "--error-unmatch", "__init__.py"]
    describe = [*git, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        for words in (tracked, describe):
            done = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def machine(devices: int) -> dict[str, Any]:
    """Describe the machine and the process; equal for measurements to be compared.

    Args:
      devices: number of devices in use.
    """
    return {
        "processor": processor(),
        "cores": cores(),
        "devices": devices,
        "platform": jax.default_backend(),
        "system": f"{platform.system()} {platform.machine()}",
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def versions() -> dict[str, str]:
    """Return the versions that timings depend on."""
    return {
        "python": platform.python_version(),
        "jaxlib": metadata.version("jaxlib"),
        **run_folder.versions(),
    }
