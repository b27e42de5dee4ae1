"""Networks that read images: convolutions, then a few numbers for each image.

Observations are flat vectors, `[B, k, H W C]`, so that all that carries, stores and
draws them needs no other kind; here they become images again.

(1) block: c1 = f1(x), c2 = f2(c1), x <- (x + c2) / sqrt 2, or (c1 + c2) / sqrt 2 where
    the number of channels changes; f = 3x3 convolution, norm, GELU.

The residual network is that of Pearce et al., 2023 (arXiv:2301.10677) for the claw
machine, which works at full resolution. The strided one is ours, for a camera in real
time: its first convolution already leaves a sixteenth of the places.
"""

import math
from typing import Literal

import jax
from flax import linen as nn

from jaxdiff.networks.imitation import Norm, NormKind
from jaxdiff.networks.temporal_conv import fan_in_uniform

_HALF = math.sqrt(0.5)


class ImageEncoder(nn.Module):
    """Two residual blocks with pooling.

    Attributes:
      image_shape: (H, W, C).
      kind: "residual", averaged over windows of 8 by 8 places, or "strided", which has
        an 8 by 8 convolution of stride 4 first and 64 channels at most, averaged to no
        more than 4 by 4 places.
      norm: after each convolution.
    """

    image_shape: tuple[int, ...]
    kind: Literal["residual", "strided"] = "residual"
    norm: NormKind = "layer"

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        """Map flat images [B, k, H * W * C] in [0, 1] to [B, k, features]."""
        batch, history, _ = observations.shape
        x = observations.reshape(batch * history, *self.image_shape)
        if self.kind == "strided":
            x = _Convolution(32, 8, 4, norm=self.norm)(x)
            x = _max_pool(_Block(64, norm=self.norm)(x))
            x = _Block(64, norm=self.norm)(x)
            window = [max(1, -(-size // 4)) for size in x.shape[1:3]]
        else:
            x = _max_pool(_Block(64, norm=self.norm)(x))
            x = _max_pool(_Block(128, norm=self.norm)(x))
            window = [min(8, size) for size in x.shape[1:3]]
        x = nn.avg_pool(x, tuple(window), tuple(window))
        return x.reshape(batch, history, -1)


class _Convolution(nn.Module):
    """Convolution, norm and GELU."""

    features: int
    size: int = 3
    stride: int = 1
    norm: NormKind = "layer"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = fan_in_uniform(self.size**2 * x.shape[-1])
        x = nn.Conv(
            self.features,
            (self.size, self.size),
            strides=self.stride,
            kernel_init=init,
            bias_init=init,
        )(x)
        return jax.nn.gelu(Norm(self.norm)(x), approximate=False)


class _Block(nn.Module):
    """Equation (1)."""

    features: int
    norm: NormKind = "layer"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        first = _Convolution(self.features, norm=self.norm)(x)
        second = _Convolution(self.features, norm=self.norm)(first)
        same = x.shape[-1] == self.features
        return _HALF * ((x if same else first) + second)


def _max_pool(x: jax.Array) -> jax.Array:
    """Halve both sides, where they can be halved."""
    window = tuple(min(2, size) for size in x.shape[1:3])
    return nn.max_pool(x, window, window)
