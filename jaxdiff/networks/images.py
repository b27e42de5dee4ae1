"""Encoders of pictures: convolutions, then a few features for each picture.

Observations arrive as flat vectors, `[B, k, H W C]`, because data, carries and policies
know no other kind. The encoder restores their shape.

(1) block: c1 = f1(x), c2 = f2(c1), x <- (x + c2) / sqrt 2, or (c1 + c2) / sqrt 2 where
    the number of channels changes; f = 3x3 convolution, norm, GELU.

There are three encoders. "residual" works at full resolution; it is that of Pearce et
al., 2023 (arXiv:2301.10677). "strided" starts with a convolution of stride 4 and is
fast enough for a camera in real time. "patches" is that convolution alone, which a CPU
can train on a stream of pictures.
"""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdiff.networks.layers import Norm, fan_in_uniform

EncoderKind = Literal["residual", "strided", "patches"]

_HALF = math.sqrt(0.5)

# A CPU gathers patches for outputs of at most this many places.
_MOST_PLACES = 4096


class ImageEncoder(nn.Module):
    """Encodes pictures by two residual blocks with pooling, or by one convolution.

    Attributes:
      image_shape: (H, W, C).
      kind: "residual": two blocks, averaged over windows of 8 by 8 places; "strided":
        an 8 by 8 convolution of stride 4, then two blocks of 64 channels, averaged to
        at most 4 by 4 places; "patches": that convolution only, with no average.
      places: largest number of places along each side after the average; 0 for that of
        the kind. More places tell more precisely where things are in the picture.
      stacked: encode the pictures of a history as one with k times the channels.
      norm: makes the norm after each convolution.
    """

    image_shape: tuple[int, ...]
    kind: EncoderKind = "residual"
    places: int = 0
    stacked: bool = False
    norm: Callable[[], nn.Module] = Norm

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        """Map flat pictures [B, k, H * W * C] in [0, 1] to [B, k, features].

        Stacked pictures give one row of features, [B, 1, features].
        """
        batch = len(observations)
        x = observations.reshape(batch, -1, *self.image_shape)
        if self.stacked:
            x = jnp.concatenate(jnp.unstack(x, axis=1), axis=-1)[:, None]
        x = x.reshape(-1, *x.shape[2:])
        if self.kind in ("strided", "patches"):
            x = _Convolution(32, 8, 4, norm=self.norm)(x)
            places = self.places or (4 if self.kind == "strided" else max(x.shape[1:3]))
            if self.kind == "strided":
                x = _max_pool(_Block(64, norm=self.norm)(x))
                x = _Block(64, norm=self.norm)(x)
        else:
            x = _max_pool(_Block(64, norm=self.norm)(x))
            x = _max_pool(_Block(128, norm=self.norm)(x))
            places = self.places
        window = [
            -(-size // places) if places else min(8, size) for size in x.shape[1:3]
        ]
        x = nn.avg_pool(x, tuple(window), tuple(window))
        return x.reshape(batch, -1, math.prod(x.shape[1:]))


class _Convolution(nn.Module):
    """Convolution, norm and GELU."""

    features: int
    size: int = 3
    stride: int = 1
    norm: Callable[[], nn.Module] = Norm

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Conv(self.features, self.size, self.stride)(x)
        return jax.nn.gelu(self.norm()(x), approximate=False)


class Conv(nn.Module):
    """`image_conv` with a bias, both from `fan_in_uniform`.

    Attributes:
      features: outputs.
      size: side of the kernel.
      stride: places between outputs, along both sides.
    """

    features: int
    size: int = 3
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        init = fan_in_uniform(math.prod(shape[:3]))
        kernel = self.param("kernel", init, shape)
        return image_conv(x, kernel, stride=self.stride) + self.param(
            "bias", init, (self.features,)
        )


def image_conv(x: jax.Array, kernel: jax.Array, *, stride: int = 1) -> jax.Array:
    """Convolve pictures with zeros around them.

    A CPU computes one matrix product with the patches gathered, as long as they are
    few enough for its caches: inside a loop, where training runs, XLA's own
    convolution is ten times slower there.

    Args:
      x: [B, H, W, C].
      kernel: [k, k, C, O].
      stride: places between outputs, along both sides; must divide k.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), O].
    """
    sizes = [-(-size // stride) for size in x.shape[1:3]]
    if jax.default_backend() != "cpu" or math.prod(sizes) > _MOST_PLACES:
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
    # Each square of s x s places becomes one place of s s C channels; the stride is 1.
    k, features, s = kernel.shape[0] // stride, kernel.shape[-1], stride
    around = []
    for size, out in zip(x.shape[1:3], sizes, strict=True):
        before = max(0, (out - 1) * s + k * s - size) // 2
        around.append((before, (out + k - 1) * s - size - before))
    padded = jnp.pad(x, ((0, 0), *around, (0, 0)))
    height, width = sizes
    split = (len(x), height + k - 1, s, width + k - 1, s, -1)
    squares = padded.reshape(split).swapaxes(2, 3)
    squares = squares.reshape(*squares.shape[:3], -1)
    taps = [
        squares[:, i : i + height, j : j + width] for i in range(k) for j in range(k)
    ]
    weights = kernel.reshape(k, s, k, s, -1, features).swapaxes(1, 2)
    return jnp.concatenate(taps, axis=-1) @ weights.reshape(-1, features)


class _Block(nn.Module):
    """Equation (1)."""

    features: int
    norm: Callable[[], nn.Module] = Norm

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        first = _Convolution(self.features, norm=self.norm)(x)
        second = _Convolution(self.features, norm=self.norm)(first)
        same = x.shape[-1] == self.features
        return _HALF * ((x if same else first) + second)


def _max_pool(x: jax.Array) -> jax.Array:
    """Halve both sides; a side of 1 stays."""
    window = tuple(min(2, size) for size in x.shape[1:3])
    return nn.max_pool(x, window, window)
