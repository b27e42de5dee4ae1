"""Presets in PushT.

Two observations tell how fast the agent moves. Learning rate, batch and averaging of
`released` are CleanDiffuser's. Actions are places on a table of 512 pixels, about 38
pixels from the agent, so `demo` learns their offset from the agent.
"""

from jaxdiff.algorithms.base import TrainConfig
from jaxdiff.tasks.imitation import Presets, imitation_presets

_DEMO = {
    "network": "sieve",
    "history": 2,
    "norm": "layer",
    "lean": True,
    "relative": True,
    "learning_rate_decay": 1.0,
    "ema_decay": 0.995,
}
_RELEASED = {
    **_DEMO,
    "norm": "batch",
    "lean": False,
    "relative": False,
    "ema_decay": 0.9999,
}

PRESETS: Presets = {
    **imitation_presets(
        "demo",
        lambda spec: _DEMO,
        TrainConfig(num_steps=30_000, batch_size=256, log_every=100),
    ),
    **imitation_presets(
        "released",
        lambda spec: _RELEASED,
        TrainConfig(
            num_steps=1_000_000, batch_size=512, log_every=100, save_every=10_000
        ),
    ),
}
