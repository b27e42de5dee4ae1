"""Neural networks as Flax linen modules; nothing here knows diffusion or data."""

from jaxdiff.networks.images import ImageEncoder
from jaxdiff.networks.imitation import BasicMLP, Sieve, Transformer
from jaxdiff.networks.mlp import MLP
from jaxdiff.networks.temporal_unet import (
    TemporalUNet,
    TemporalValue,
    horizon_multiple,
    sinusoidal_embedding,
)

__all__ = [
    "MLP",
    "BasicMLP",
    "ImageEncoder",
    "Sieve",
    "TemporalUNet",
    "TemporalValue",
    "Transformer",
    "horizon_multiple",
    "sinusoidal_embedding",
]
