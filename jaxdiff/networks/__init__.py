"""Neural networks as Flax linen modules; nothing here knows diffusion or data.

`layers` holds what all networks share.
"""

from jaxdiff.networks.autoregressive import AutoregressiveBins
from jaxdiff.networks.conditioned import Conditioned
from jaxdiff.networks.critic import Actor, SquashedActor, TwinQ, Value
from jaxdiff.networks.dit import DiT
from jaxdiff.networks.images import EncoderKind, ImageEncoder
from jaxdiff.networks.imitation import BasicMLP, Sieve, Transformer
from jaxdiff.networks.layers import MLP, Norm, NormKind, ReLUNet, sinusoidal_embedding
from jaxdiff.networks.score_mlp import ScoreMLP
from jaxdiff.networks.temporal_unet import (
    TemporalUNet,
    TemporalValue,
    horizon_multiple,
)
from jaxdiff.networks.vae import ActionVAE

__all__ = [
    "MLP",
    "ActionVAE",
    "Actor",
    "AutoregressiveBins",
    "BasicMLP",
    "Conditioned",
    "DiT",
    "EncoderKind",
    "ImageEncoder",
    "Norm",
    "NormKind",
    "ReLUNet",
    "ScoreMLP",
    "Sieve",
    "SquashedActor",
    "TemporalUNet",
    "TemporalValue",
    "Transformer",
    "TwinQ",
    "Value",
    "horizon_multiple",
    "sinusoidal_embedding",
]
