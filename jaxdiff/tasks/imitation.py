"""Presets of bc and diffusion-bc, which share most of their options.

The two algorithms get the same networks and the same training, so that they can be
compared.
"""

from collections.abc import Callable, Mapping
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


_STATES = {"network": "sieve", "history": 2, "learning_rate_decay": 1.0}
_DEMO = {**_STATES, "norm": "layer", "lean": True, "ema_decay": 0.995}
_RELEASED = {**_STATES, "norm": "batch", "lean": False, "ema_decay": 0.9999}


def state_presets(
    num_steps: int,
    *,
    demo: Mapping[str, Any] | None = None,
    released: Mapping[str, Any] | None = None,
) -> Presets:
    """Return the presets "demo" and "released" of a task that shows positions.

    Two observations tell velocities. Learning rate, batch and averaging of "released"
    are CleanDiffuser's.

    Args:
      num_steps: updates of "demo".
      demo: further options of "demo".
      released: further options of "released".
    """
    small = TrainConfig(num_steps=num_steps, batch_size=256, log_every=100)
    large = TrainConfig(
        num_steps=1_000_000, batch_size=512, log_every=100, save_every=10_000
    )
    return {
        **imitation_presets("demo", lambda spec: {**_DEMO, **(demo or {})}, small),
        **imitation_presets(
            "released", lambda spec: {**_RELEASED, **(released or {})}, large
        ),
    }
