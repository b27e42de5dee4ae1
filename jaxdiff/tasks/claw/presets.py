"""Presets at the claw machine.

`released` is the full script of Pearce et al. (2023), with batch norm. `demo` follows
their small script, with layer norm and a faster encoder.
"""

from jaxdiff.algorithms.base import TrainConfig
from jaxdiff.tasks.imitation import Presets, imitation_presets

_DEMO = {
    "network": "sieve",
    "hidden": 128,
    "encoder": "strided",
    "norm": "layer",
    "learning_rate": 1e-3,
    "learning_rate_decay": 1.0,
    "ema_decay": 0.995,
    "lean": True,
}
_RELEASED = {
    "network": "transformer",
    "hidden": 512,
    "encoder": "residual",
    "norm": "batch",
    "learning_rate": 1e-4,
    "learning_rate_decay": 1.0,
    "ema_decay": 0.0,
    "lean": False,
}

# Numbers of updates are whole epochs of 18,000 decisions in batches of 32.
PRESETS: Presets = {
    **imitation_presets(
        "demo", lambda spec: _DEMO, TrainConfig(num_steps=22_500, log_every=100)
    ),
    **imitation_presets(
        "released", lambda spec: _RELEASED, TrainConfig(num_steps=56_250, log_every=100)
    ),
}
