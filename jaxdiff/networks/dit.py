"""A transformer over the rows of a trajectory, modulated by the noise level: DiT.

Peebles & Xie, "Scalable diffusion models with transformers", 2023 (arXiv:2212.09748),
in one dimension. A row, or `patch` rows, is a token; sinusoids of its index are added.
With e = [embedding of the noise level | embedding of the condition] and LN a layer norm
without parameters, a block is

    (s1, b1, g1, s2, b2, g2) = W silu(e)                                             (1)
    x <- x + g1 attention((1 + s1) LN(x) + b1)
    x <- x + g2 mlp((1 + s2) LN(x) + b2)                                             (2)
    output = V ((1 + s) LN(x) + b),   (s, b) = W' silu(e)                            (3)

W, W' and V start at zero (adaLN-zero): every block starts as the identity, and the
network starts with an output of zero. The horizon may be of any length.

The block and the last layer are those of Peebles & Xie. Around them four things differ:
e joins its two parts, which they add; the embedding of the noise level is the U-Net's,
`dim` numbers with Mish; GELU is exact, and theirs is by tanh; no variance is predicted.
The sizes are those that CleanDiffuser (Dong et al., 2024) gives Decision Diffuser. Its
block adds to LN(x) and not to x, so that its weights mean something else here.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdiff.networks.layers import (
    MLP,
    Attention,
    Linear,
    Precision,
    TimeEmbedding,
    sinusoidal_embedding,
)
from jaxdiff.networks.lengths import rows_counted


class ZeroLinear(nn.Module):
    """An affine map of the last axis that starts at zero.

    Attributes:
      features: outputs.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [..., C] to [..., features]."""
        zeros = nn.initializers.zeros
        kernel = self.param("kernel", zeros, (x.shape[-1], self.features))
        return x @ kernel + self.param("bias", zeros, (self.features,))


class DiTBlock(nn.Module):
    """Attention and an MLP, modulated by an embedding, equations (1) and (2).

    Attributes:
      heads: heads of the attention; must divide the channels of x.
      precision: of the factors of products in the attention and the MLP.
    """

    heads: int
    precision: Precision = "float32"

    @nn.compact
    def __call__(
        self, x: jax.Array, embedding: jax.Array, seen: jax.Array | None = None
    ) -> jax.Array:
        """Map x [B, S, C] and an embedding [B, E] to [B, S, C].

        `seen` [B, S] marks the tokens that count; None for all.
        """
        width = x.shape[-1]
        modulation = ZeroLinear(6 * width)(jax.nn.silu(embedding))[:, None]
        s1, b1, g1, s2, b2, g2 = jnp.split(modulation, 6, axis=-1)
        attention = Attention(
            heads=self.heads, width=width // self.heads, precision=self.precision
        )
        x = x + g1 * attention((1 + s1) * _normalized(x) + b1, seen)
        mlp = MLP(width, widths=(4 * width,), precision=self.precision)
        return x + g2 * mlp((1 + s2) * _normalized(x) + b2)


class DiT(nn.Module):
    """Denoise a trajectory with a transformer; takes the place of `TemporalUNet`.

    Attributes:
      dim: width of the time embedding.
      width: channels of a token.
      depth: number of blocks.
      heads: heads of the attention; must divide `width`.
      patch: rows that make one token; must divide the horizon.
      precision: of the factors of products in the blocks, "float32" or "bfloat16";
        sums, norms, embeddings and the first and last layer are in float32.
    """

    dim: int = 128
    width: int = 320
    depth: int = 2
    heads: int = 10
    patch: int = 1
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
          x: [B, H, D] noised trajectories; H divisible by `patch`.
          time: [B] integers or floats.
          condition: [B, E] embedded condition or None.
          length: [B] rows that count, multiples of `patch`; None for all. See
            `jaxdiff.networks.lengths`.

        Returns:
          [B, H, D].

        Raises:
          ValueError: `patch` does not divide H.
        """
        batch, horizon, dim = x.shape
        if horizon % self.patch:
            raise ValueError(f"horizon {horizon} is not divisible by {self.patch}")
        tokens, size = horizon // self.patch, self.patch * dim
        embedding, seen = TimeEmbedding(self.dim)(time, condition), None
        if length is not None:
            seen = rows_counted(tokens, length // self.patch)[..., 0]
        h = Linear(self.width)(x.reshape(batch, tokens, size))
        h = h + sinusoidal_embedding(jnp.arange(tokens), self.width)
        for _ in range(self.depth):
            h = DiTBlock(self.heads, self.precision)(h, embedding, seen)
        modulation = ZeroLinear(2 * self.width)(jax.nn.silu(embedding))[:, None]
        scale, shift = jnp.split(modulation, 2, axis=-1)
        out = ZeroLinear(size)((1 + scale) * _normalized(h) + shift)
        return out.reshape(batch, horizon, dim)


def _normalized(x: jax.Array) -> jax.Array:
    """Normalize the last axis; no learned scale or shift."""
    centred = x - x.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + 1e-6)
