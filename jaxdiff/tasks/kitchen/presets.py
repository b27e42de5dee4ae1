"""Presets in the kitchens.

Two observations tell the velocities of joints. The transformer and T = 50 of `released`
are those of Pearce et al. (2023); its learning rate, batch and averaging are
CleanDiffuser's.
"""

from jaxdiff.algorithms.base import TrainConfig
from jaxdiff.tasks.imitation import Presets, imitation_presets

_DEMO = {
    "network": "sieve",
    "history": 2,
    "norm": "layer",
    "lean": True,
    "learning_rate_decay": 1.0,
    "ema_decay": 0.995,
}
_RELEASED = {
    "network": "transformer",
    "history": 2,
    "norm": "batch",
    "lean": False,
    "learning_rate_decay": 1.0,
    "ema_decay": 0.9999,
}

PRESETS: Presets = {
    **imitation_presets(
        "demo",
        lambda spec: _DEMO,
        TrainConfig(num_steps=20_000, batch_size=256, log_every=100),
    ),
    **imitation_presets(
        "released",
        lambda spec: _RELEASED,
        TrainConfig(
            num_steps=1_000_000, batch_size=512, log_every=100, save_every=10_000
        ),
    ),
}
