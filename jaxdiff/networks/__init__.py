"""Neural networks as Flax linen modules; nothing here knows diffusion or data."""

from jaxdiff.networks.mlp import MLP
from jaxdiff.networks.temporal_unet import (
    TemporalUNet,
    TemporalValue,
    horizon_multiple,
    sinusoidal_embedding,
)

__all__ = [
    "MLP",
    "TemporalUNet",
    "TemporalValue",
    "horizon_multiple",
    "sinusoidal_embedding",
]
