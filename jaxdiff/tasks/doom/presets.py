"""Presets at Doom.

Pearce et al. (2023) name pictures of 150 x 280 pixels, the sieve and T = 20, but not
how they trained; learning rate, batch and updates of `released` are ours. `demo` has an
encoder of one convolution that sees two pictures at once.

The paper's schedule, with T = 20, never hides a click: the last level leaves most of it
in sight, so sampling, which begins with noise, follows that noise. `demo` rescales the
schedule to its number of steps. In a kitchen, where T = 50, rescaling makes a policy
worse (benchmarks/README.md).
"""

from typing import Any

from jaxdiff.algorithms.base import TrainConfig
from jaxdiff.data.spec import Spec
from jaxdiff.tasks.doom.world import image_shape
from jaxdiff.tasks.imitation import Presets, imitation_presets

_DEMO = {
    "hidden": 256,
    "encoder": "patches",
    "stacked": True,
    "norm": "layer",
    "learning_rate": 1e-3,
    "ema_decay": 0.995,
}
_RELEASED = {
    "hidden": 512,
    "encoder": "residual",
    "stacked": False,
    "norm": "batch",
    "learning_rate": 1e-4,
    "ema_decay": 0.9999,
}


def _options(own: dict[str, Any], spec: Spec) -> dict[str, Any]:
    return {
        "network": "sieve",
        "history": 2,
        # Pictures of full size do not fit into the memory of a device.
        "host_memory": spec.observation_shape == image_shape(1),
        "learning_rate_decay": 1.0,
        **own,
    }


PRESETS: Presets = {
    **imitation_presets(
        "demo",
        lambda spec: _options(_DEMO, spec),
        TrainConfig(num_steps=7_000, batch_size=64, log_every=50),
        diffusion_steps=20,
        schedule="linear_rescaled",
    ),
    **imitation_presets(
        "released",
        lambda spec: _options(_RELEASED, spec),
        TrainConfig(num_steps=100_000, batch_size=64, log_every=50),
        diffusion_steps=20,
    ),
}
