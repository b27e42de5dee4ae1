"""Diffusion models for decision making, as pure JAX functions.

    import jaxdiff

    run = jaxdiff.load_run("runs/umaze")
    plans = jaxdiff.plan(run, start=[1.0, 1.0, 0.0, 0.0], goal=[-1.0, -1.0])

The diffusion core is here under its own names; algorithms, networks and datasets are in
the packages of those names. Importing this loads no environment library and starts no
device.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

from jaxdiff.errors import UserError

if TYPE_CHECKING:
    from jaxdiff import figures
    from jaxdiff.algorithms import ALGORITHMS
    from jaxdiff.diffusion import (
        SAMPLERS,
        SCHEDULES,
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
    from jaxdiff.evaluation import evaluate, make_env
    from jaxdiff.habit import record_run
    from jaxdiff.plans import plan
    from jaxdiff.run import load_policy, load_run
    from jaxdiff.tasks.lookup import TASKS, load_dataset
    from jaxdiff.training import train_run

# All is loaded when it is first asked for, so that a command can begin at once.
_DIFFUSION = (
    "SAMPLERS",
    "SCHEDULES",
    "Clamp",
    "NoiseLevels",
    "SampleOutput",
    "Steps",
    "add_noise",
    "cosine_schedule",
    "ddim",
    "ddpm",
    "denoiser",
    "denoising_loss",
    "dpm_solver_pp",
    "from_x0",
    "linear_schedule",
    "sample",
    "to_x0",
    "value_guide",
    "vp_schedule",
)
_LATER = {
    "ALGORITHMS": "jaxdiff.algorithms",
    "TASKS": "jaxdiff.tasks.lookup",
    "evaluate": "jaxdiff.evaluation",
    "load_dataset": "jaxdiff.tasks.lookup",
    "load_policy": "jaxdiff.run",
    "load_run": "jaxdiff.run",
    "make_env": "jaxdiff.evaluation",
    "plan": "jaxdiff.plans",
    "record_run": "jaxdiff.habit",
    "train_run": "jaxdiff.training",
    **dict.fromkeys(_DIFFUSION, "jaxdiff.diffusion"),
}
_MODULES = ("algorithms", "data", "diffusion", "figures", "networks", "tasks")


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"jaxdiff.{name}")
    raise AttributeError(f"module 'jaxdiff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "ALGORITHMS",
    "SAMPLERS",
    "SCHEDULES",
    "TASKS",
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
    "load_policy",
    "load_run",
    "make_env",
    "plan",
    "record_run",
    "sample",
    "to_x0",
    "train_run",
    "value_guide",
    "vp_schedule",
]
