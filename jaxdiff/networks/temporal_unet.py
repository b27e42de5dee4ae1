"""Diffuser's U-Net, which denoises trajectories, and its model of returns.

Both consist of residual temporal blocks (Janner et al., "Planning with diffusion for
flexible behavior synthesis", 2022, appendix C and the released network). With
block(x) = mish(group_norm(conv_5(x))) and the time embedding e,

    h = block_1(x) + W mish(e),   y = block_2(h) + skip(x)                           (1)
    e = W_2 mish(W_1 s(t)),   s the sinusoids of `layers`, equation (2) there        (2)

where skip is the identity, or a 1x1 convolution where the widths differ. Linear
attention (Katharopoulos et al., 2020; Shen et al., 2021) mixes time in O(H), per head,

    y[t] = q[t] sum_u softmax_u(k)[u] v[u]^T                                         (3)

A `condition`, already embedded, is appended to e.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdiff.networks.layers import Linear, Precision, TimeEmbedding, mish
from jaxdiff.networks.lengths import rows_counted, shortened
from jaxdiff.networks.norm_mish import NormMish
from jaxdiff.networks.temporal_conv import TemporalConv, TemporalUpConv


def horizon_multiple(dim_mults: Sequence[int], patch: int = 1) -> int:
    """Return the number that must divide the horizon of a `TemporalUNet`."""
    return patch * 2 ** (len(dim_mults) - 1)


class ConvBlock(nn.Module):
    """Convolution over time, GroupNorm or a LayerNorm of each row, Mish.

    Attributes:
      features: outputs.
      kernel_size: taps of the convolution.
      norm_by_row: LayerNorm of each row instead of GroupNorm.
      precision: of the factors of products.
    """

    features: int
    kernel_size: int = 5
    norm_by_row: bool = False
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, length: jax.Array | None = None) -> jax.Array:
        """Map [B, H, C], of `length` [B] rows, to [B, H, features]."""
        conv = TemporalConv(self.features, self.kernel_size, precision=self.precision)
        x = conv(x, length)
        if self.norm_by_row:
            return mish(nn.LayerNorm(epsilon=1e-5, use_fast_variance=False)(x))
        return NormMish(name="GroupNorm_0")(x, length)  # as saved parameters name it


class ResidualBlock(nn.Module):
    """The residual temporal block, equation (1).

    Attributes:
      features: outputs.
      kernel_size: taps of the convolutions.
      norm_by_row: LayerNorm of each row instead of GroupNorm.
      precision: of the factors of products.
    """

    features: int
    kernel_size: int = 5
    norm_by_row: bool = False
    precision: Precision = "float32"

    @nn.compact
    def __call__(
        self, x: jax.Array, embedding: jax.Array, length: jax.Array | None = None
    ) -> jax.Array:
        """Map x [B, H, C], of `length` [B] rows, and [B, E] to [B, H, features]."""
        shift = Linear(self.features)(mish(embedding))
        first, second = (
            ConvBlock(self.features, self.kernel_size, self.norm_by_row, self.precision)
            for _ in range(2)
        )
        h = second(first(x, length) + shift[:, None], length)
        if x.shape[-1] != self.features:
            x = Linear(self.features, precision=self.precision)(x)
        return h + x


class LinearAttention(nn.Module):
    """Linear attention over time, equation (3), with LayerNorm and a residual.

    Attributes:
      heads: number of heads.
      head_dim: channels of a head.
    """

    heads: int = 4
    head_dim: int = 32

    @nn.compact
    def __call__(self, x: jax.Array, length: jax.Array | None = None) -> jax.Array:
        """Map [B, H, C], of `length` [B] rows, to the same shape."""
        batch, horizon, channels = x.shape
        width = self.heads * self.head_dim
        normalized = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False)(x)
        qkv = Linear(3 * width, use_bias=False)(normalized)
        q, k, v = jnp.moveaxis(
            qkv.reshape(batch, horizon, 3, self.heads, self.head_dim), 2, 0
        )
        seen = None
        if length is not None:
            seen = rows_counted(horizon, length)[..., None]
        k = jax.nn.softmax(k, axis=1, where=seen)
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
      show_ends: append the first and the last row of x to the embedding, so that every
        block sees both ends of the plan. In the paper that information must travel
        along the convolutions.
      patch: rows that enter and leave as one. The widest arrays are those of single
        rows, and neighbouring rows of a long trajectory are similar, so patches save
        time (images: Dosovitskiy et al., 2021). The paper uses single rows.
      norm_by_row: normalize each row on its own. The GroupNorm of the paper takes its
        statistics over all rows, so that every row depends on the whole trajectory
        and on its length; without it a row depends on the reach of its convolutions.
      kernel_size: taps of the convolutions in the residual blocks.
      precision: of the factors of products over time, "float32" or "bfloat16"; sums,
        norms, embeddings and the last layer are in float32.
    """

    dim: int = 32
    dim_mults: Sequence[int] = (1, 2, 4, 8)
    attention: bool = False
    show_ends: bool = False
    patch: int = 1
    norm_by_row: bool = False
    kernel_size: int = 5
    precision: Precision = "float32"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        condition: jax.Array | None = None,
        length: jax.Array | None = None,
    ) -> jax.Array:
        """Predict the target it was trained for: clean trajectory, noise or v.

        Args:
          x: [B, H, D] noised trajectories; H divisible by `horizon_multiple`.
          time: [B] integers or floats.
          condition: [B, E] embedded condition or None.
          length: [B] rows that count, each divisible as H is; None for all. See
            `jaxdiff.networks.lengths`.

        Returns:
          [B, H, D].

        Raises:
          ValueError: H is not a multiple of `horizon_multiple`.
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
            last = -1 if length is None else length - 1
            ends = [x[:, 0], x[jnp.arange(batch), last]]
            ends = jnp.concatenate(ends, axis=-1)
            hidden = mish(Linear(4 * self.dim)(ends))
            shown = Linear(2 * self.dim)(hidden)
            embedding = jnp.concatenate([embedding, shown], axis=-1)

        sizes = self.kernel_size, self.norm_by_row, self.precision

        def block(x: jax.Array, features: int) -> jax.Array:
            made = ResidualBlock(features, *sizes)
            return made(x, embedding, length)

        def level(x: jax.Array, features: int, count: int = 2) -> jax.Array:
            for _ in range(count):
                x = block(x, features)
            return LinearAttention()(x, length) if self.attention else x

        x = x.reshape(batch, horizon // self.patch, self.patch * dim)
        length = shortened(length, self.patch)
        skips, lengths = [], []
        for width in widths[:-1]:
            x = level(x, width)
            skips.append(x)
            lengths.append(length)
            x = TemporalConv(width, 3, stride=2, precision=self.precision)(x, length)
            length = shortened(length, 2)
        x = level(x, widths[-1])
        skips.append(x)
        x = level(x, widths[-1], count=1)
        x = block(x, widths[-1])
        for width in reversed(widths[:-1]):
            x = level(jnp.concatenate([x, skips.pop()], axis=-1), width)
            x = TemporalUpConv(width, self.precision)(x, length)
            length = lengths.pop()
        x = ConvBlock(widths[0], *sizes)(x, length)
        return Linear(self.patch * dim)(x).reshape(batch, horizon, dim)


class TemporalValue(nn.Module):
    """Predict the return of a noised trajectory: the value network of Diffuser.

    The last layers read the flattened trajectory, so parameters belong to the horizon
    that they were created with.

    Attributes:
      dim: width of the first level and of the time embedding.
      dim_mults: width of each level in units of dim.
      kernel_size: taps of the convolutions in the residual blocks.
      precision: of the factors of products over time, as in `TemporalUNet`.
    """

    dim: int = 32
    dim_mults: Sequence[int] = (1, 2, 4, 8)
    kernel_size: int = 5
    precision: Precision = "float32"

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
                x = ResidualBlock(width, self.kernel_size, precision=self.precision)(
                    x, embedding
                )
            x = TemporalConv(width, 3, stride=2, precision=self.precision)(x)
        flat = x.reshape(x.shape[0], -1)
        hidden = Linear(flat.shape[-1] // 2)(
            jnp.concatenate([flat, embedding], axis=-1)
        )
        return Linear(1)(mish(hidden))[:, 0]
