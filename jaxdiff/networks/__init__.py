"""Neural networks as Flax linen modules; nothing here knows diffusion or data."""

from jaxdiff.networks.critic import Actor, ReLUNet, TwinQ, Value
from jaxdiff.networks.mlp import MLP
from jaxdiff.networks.score_mlp import ScoreMLP
from jaxdiff.networks.temporal_unet import (
    TemporalUNet,
    TemporalValue,
    horizon_multiple,
    sinusoidal_embedding,
)

__all__ = [
    "MLP",
    "Actor",
    "ReLUNet",
    "ScoreMLP",
    "TemporalUNet",
    "TemporalValue",
    "TwinQ",
    "Value",
    "horizon_multiple",
    "sinusoidal_embedding",
]
