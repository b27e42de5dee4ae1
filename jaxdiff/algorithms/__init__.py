"""The algorithms by name; the file of each exports its `ENTRY`."""

import importlib
from collections.abc import Mapping

from jaxdiff.algorithms.base import (
    ActOutput,
    Algorithm,
    Entry,
    Learner,
    Preset,
    TrainConfig,
    TrainState,
)
from jaxdiff.registry import Registry

_MODULES = (
    *("planning.diffuser", "planning.decision_diffuser"),
    *("imitation.diffusion_bc", "imitation.bc"),
    *("offline.iql", "offline.srpo", "offline.td3_bc", "offline.idql"),
    *("offline.diffusion_ql", "offline.fql", "offline.qgpo", "offline.cql"),
    *("offline.bcq", "offline.bear"),
)


def _own_algorithms() -> Mapping[str, Entry]:
    """Import the algorithms, when the table is first read."""
    modules = [importlib.import_module(f"{__name__}.{name}") for name in _MODULES]
    return {module.ENTRY.name: module.ENTRY for module in modules}


ALGORITHMS: Registry[Entry] = Registry(
    "algorithm", group="jaxdiff.algorithms", discover=_own_algorithms
)
"""Name -> `Entry`, the algorithms that runs and commands may name."""

__all__ = [
    "ALGORITHMS",
    "ActOutput",
    "Algorithm",
    "Entry",
    "Learner",
    "Preset",
    "TrainConfig",
    "TrainState",
]
