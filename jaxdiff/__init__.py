"""Diffusion models for decision making, as pure JAX functions.

    import jaxdiff

    run = jaxdiff.load_run("runs/umaze")
    plans = jaxdiff.plans.plan(run, start=(1.0, 1.0), goal=(-1.0, -1.0))

The diffusion core is here under its own names; algorithms, networks and datasets are in
the packages of those names. Importing this loads no environment library and starts no
device.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

from jaxdiff.diffusion import (
    Clamp,
    NoiseLevels,
    SampleOutput,
    Steps,
    add_noise,
    cosine_schedule,
    ddim,
    ddpm,
    denoiser,
    denoising_loss,
    dpm_solver_pp,
    from_x0,
    linear_schedule,
    sample,
    to_x0,
    value_guide,
    vp_schedule,
)
from jaxdiff.errors import UserError

if TYPE_CHECKING:
    from jaxdiff import evaluation as evaluate
    from jaxdiff import figures
    from jaxdiff import plans as plan
    from jaxdiff.data.episodes import load_dataset
    from jaxdiff.run import load_run, train_run

# Loaded when first asked for: what reads data, saves, draws or simulates.
_FUNCTIONS = {
    "load_dataset": "jaxdiff.data.episodes",
    "load_run": "jaxdiff.run",
    "train_run": "jaxdiff.run",
}
_MODULES = ("evaluate", "figures", "plan")


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"jaxdiff.{name}")
    raise AttributeError(f"module 'jaxdiff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "Clamp",
    "NoiseLevels",
    "SampleOutput",
    "Steps",
    "UserError",
    "__version__",
    "add_noise",
    "cosine_schedule",
    "ddim",
    "ddpm",
    "denoiser",
    "denoising_loss",
    "dpm_solver_pp",
    "evaluate",
    "figures",
    "from_x0",
    "linear_schedule",
    "load_dataset",
    "load_run",
    "plan",
    "sample",
    "to_x0",
    "train_run",
    "value_guide",
    "vp_schedule",
]
