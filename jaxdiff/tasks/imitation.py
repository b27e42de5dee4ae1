"""Presets of bc and diffusion-bc, which share most of their options.

The two algorithms get the same networks and the same training, so that they can be
compared.
"""

from collections.abc import Callable
from typing import Any

from jaxdiff.algorithms.base import Preset, TrainConfig
from jaxdiff.algorithms.imitation.bc import BCActing, BCConfig
from jaxdiff.algorithms.imitation.diffusion_bc import (
    DiffusionBCActing,
    DiffusionBCConfig,
)
from jaxdiff.data.episodes import Dataset
from jaxdiff.data.spec import Spec

Presets = dict[tuple[str, str], Callable[[Dataset, Spec], Preset]]


def imitation_presets(
    name: str,
    options: Callable[[Spec], dict[str, Any]],
    training: TrainConfig,
    **diffusion: Any,
) -> Presets:
    """Return the presets `name` of both algorithms.

    Args:
      name: name of the preset, such as "demo".
      options: `spec -> options` of both that differ from their defaults.
      training: how both are trained.
      **diffusion: options of diffusion-bc alone.
    """

    def bc(dataset: Dataset, spec: Spec) -> Preset:
        return Preset(BCConfig(**options(spec)), BCActing(), {"policy": training})

    def diffusion_bc(dataset: Dataset, spec: Spec) -> Preset:
        config = DiffusionBCConfig(**options(spec), **diffusion)
        return Preset(config, DiffusionBCActing(), {"policy": training})

    return {("bc", name): bc, ("diffusion-bc", name): diffusion_bc}
