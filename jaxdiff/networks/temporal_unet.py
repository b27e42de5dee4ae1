"""The temporal U-Net that denoises trajectories, and the return model beside it.

Both are built from residual temporal blocks (Janner et al., "Planning with diffusion
for flexible behavior synthesis", 2022, appendix C and the released network). With
block(x) = mish(group_norm(conv_5(x))) and the time embedding e,

    h = block_1(x) + W mish(e),   y = block_2(h) + skip(x)                           (1)
    e = W_2 mish(W_1 s(t)),   s(t) = [sin(t f), cos(t f)],
    f_j = 10^(-4 j / (dim / 2 - 1)),   j = 0 .. dim / 2 - 1                          (2)

where skip is the identity, or a 1x1 convolution where the widths differ. Linear
attention (Katharopoulos et al., 2020; Shen et al., 2021) mixes time in O(H), per head,

    y[t] = q[t] sum_u softmax_u(k)[u] v[u]^T                                         (3)

A `condition` vector, already embedded, is concatenated to e.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdiff.networks.temporal_conv import (
    GroupNorm,
    Linear,
    TemporalConv,
    TemporalUpConv,
    mish,
)


def horizon_multiple(dim_mults: Sequence[int], patch: int = 1) -> int:
    """Return the number that must divide the horizon of a `TemporalUNet`."""
    return patch * 2 ** (len(dim_mults) - 1)


def sinusoidal_embedding(time: jax.Array, dim: int) -> jax.Array:
    """Embed times [B], any unit, as [B, dim] sines then cosines, equation (2)."""
    half = dim // 2
    if dim % 2 or half < 2:
        raise ValueError(f"the time embedding needs an even dim >= 4, got {dim}")
    frequencies = 10.0 ** (-4.0 * jnp.arange(half) / (half - 1))
    angles = time.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class TimeEmbedding(nn.Module):
    """Embed the noise level and join the condition, equation (2)."""

    dim: int

    @nn.compact
    def __call__(self, time: jax.Array, condition: jax.Array | None) -> jax.Array:
        """Map times [B] and a condition [B, E] to [B, dim + E]."""
        hidden = mish(Linear(4 * self.dim)(sinusoidal_embedding(time, self.dim)))
        embedding = Linear(self.dim)(hidden)
        if condition is None:
            return embedding
        return jnp.concatenate([embedding, condition], axis=-1)


class ConvBlock(nn.Module):
    """Convolution over time, GroupNorm over time or LayerNorm of each row, Mish."""

    features: int
    kernel_size: int = 5
    norm_by_row: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, H, C] to [B, H, features]."""
        x = TemporalConv(self.features, self.kernel_size)(x)
        if self.norm_by_row:
            return mish(nn.LayerNorm(epsilon=1e-5, use_fast_variance=False)(x))
        return mish(GroupNorm()(x))


class ResidualBlock(nn.Module):
    """The residual temporal block, equation (1)."""

    features: int
    kernel_size: int = 5
    norm_by_row: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array) -> jax.Array:
        """Map x [B, H, C] and an embedding [B, E] to [B, H, features]."""
        shift = Linear(self.features)(mish(embedding))
        first, second = (
            ConvBlock(self.features, self.kernel_size, self.norm_by_row)
            for _ in range(2)
        )
        h = second(first(x) + shift[:, None])
        skip = x if x.shape[-1] == self.features else Linear(self.features)(x)
        return h + skip


class LinearAttention(nn.Module):
    """Pre-normalised residual linear attention over time, equation (3)."""

    heads: int = 4
    head_dim: int = 32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, H, C] to the same shape."""
        batch, horizon, channels = x.shape
        width = self.heads * self.head_dim
        normalised = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False)(x)
        qkv = Linear(3 * width, use_bias=False)(normalised)
        q, k, v = jnp.moveaxis(
            qkv.reshape(batch, horizon, 3, self.heads, self.head_dim), 2, 0
        )
        k = jax.nn.softmax(k, axis=1)
        context = jnp.einsum("bhnk,bhnv->bnkv", k, v)
        mixed = jnp.einsum("bhnk,bnkv->bhnv", q * self.head_dim**-0.5, context)
        return x + Linear(channels)(mixed.reshape(batch, horizon, width))


class TemporalUNet(nn.Module):
    """Denoise a trajectory: the U-Net of Diffuser.

    Attributes:
      dim: width of the first level and of the time embedding.
      dim_mults: width of each level in units of dim; each level but the last halves
        the horizon.
      attention: add linear attention at every level.
      show_ends: join the first and last row of x to the embedding, so that every block
        knows where a plan begins and ends; not of the paper, where that must travel
        step by step along the convolutions.
      patch: rows that enter and leave as one. Neighbouring rows of a long trajectory
        say nearly the same, and the widest arrays are those of single rows; not of
        the paper, whose rows enter one by one (Dosovitskiy et al., 2021, do so with
        images).
      norm_by_row: normalise each row by itself. The GroupNorm of the paper takes its
        statistics over all rows, which tell every row of the whole trajectory and of
        its length; without them a row knows what its convolutions reach.
      kernel_size: taps of the convolutions in the residual blocks.
    """

    dim: int = 32
    dim_mults: Sequence[int] = (1, 2, 4, 8)
    attention: bool = False
    show_ends: bool = False
    patch: int = 1
    norm_by_row: bool = False
    kernel_size: int = 5

    @nn.compact
    def __call__(
        self, x: jax.Array, time: jax.Array, condition: jax.Array | None = None
    ) -> jax.Array:
        """Predict the clean trajectory, the noise, or whatever it is trained for.

        Args:
          x: [B, H, D] noised trajectories; H divisible by `horizon_multiple`.
          time: [B] integers or floats.
          condition: [B, E] embedded condition or None.

        Returns:
          [B, H, D].
        """
        batch, horizon, dim = x.shape
        multiple = horizon_multiple(self.dim_mults, self.patch)
        if horizon % multiple:
            raise ValueError(
                f"horizon {horizon} is not divisible by {multiple} = "
                f"patch * 2 ** (len(dim_mults) - 1), the U-Net's total downsampling"
            )
        widths = [self.dim * m for m in self.dim_mults]
        embedding = TimeEmbedding(self.dim)(time, condition)
        if self.show_ends:
            ends = x[:, jnp.array([0, -1])].reshape(batch, -1)
            hidden = mish(Linear(4 * self.dim)(ends))
            shown = Linear(2 * self.dim)(hidden)
            embedding = jnp.concatenate([embedding, shown], axis=-1)

        def block(x: jax.Array, features: int) -> jax.Array:
            made = ResidualBlock(features, self.kernel_size, self.norm_by_row)
            return made(x, embedding)

        def level(x: jax.Array, features: int, count: int = 2) -> jax.Array:
            for _ in range(count):
                x = block(x, features)
            return LinearAttention()(x) if self.attention else x

        x = x.reshape(batch, horizon // self.patch, self.patch * dim)
        skips = []
        for width in widths[:-1]:
            x = level(x, width)
            skips.append(x)
            x = TemporalConv(width, 3, stride=2)(x)
        x = level(x, widths[-1])
        skips.append(x)
        x = level(x, widths[-1], count=1)
        x = block(x, widths[-1])
        for width in reversed(widths[:-1]):
            x = level(jnp.concatenate([x, skips.pop()], axis=-1), width)
            x = TemporalUpConv(width)(x)
        x = ConvBlock(widths[0], self.kernel_size, self.norm_by_row)(x)
        return Linear(self.patch * dim)(x).reshape(batch, horizon, dim)


class TemporalValue(nn.Module):
    """Predict the return of a noised trajectory: the value network of Diffuser.

    The last layers see the flattened trajectory, so parameters belong to the horizon
    they were made with; any horizon can be chosen when they are made.

    Attributes:
      dim: width of the first level and of the time embedding.
      dim_mults: width of each level in units of dim.
      kernel_size: taps of the convolutions in the residual blocks.
    """

    dim: int = 32
    dim_mults: Sequence[int] = (1, 2, 4, 8)
    kernel_size: int = 5

    @nn.compact
    def __call__(
        self, x: jax.Array, time: jax.Array, condition: jax.Array | None = None
    ) -> jax.Array:
        """Predict one return per trajectory.

        Args:
          x: [B, H, D] noised trajectories.
          time: [B] integers or floats.
          condition: [B, E] embedded condition or None.

        Returns:
          [B].
        """
        embedding = TimeEmbedding(self.dim)(time, condition)
        widths = [self.dim * m for m in self.dim_mults]
        blocks = [(width, 2) for width in widths]
        blocks += [(widths[-1] // 2, 1), (widths[-1] // 4, 1)]
        for width, count in blocks:
            for _ in range(count):
                x = ResidualBlock(width, self.kernel_size)(x, embedding)
            x = TemporalConv(width, 3, stride=2)(x)
        flat = x.reshape(x.shape[0], -1)
        hidden = Linear(flat.shape[-1] // 2)(
            jnp.concatenate([flat, embedding], axis=-1)
        )
        return Linear(1)(mish(hidden))[:, 0]
