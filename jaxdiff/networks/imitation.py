"""Networks of imitation: encode the observations once, denoise the action many times.

Each network maps a history of observations o, a noisy action a and a time tau in [0, 1]
to an output, in two halves that can be called separately:

(1) e = encode(o), one embedding for each observation of the history,
(2) output = denoise(e, a, tau).

A sampler runs the first half, which reads the pictures, only once. Histories are
[B, k, ...], the newest observation first. The networks are those of Pearce et al.,
"Imitating human behaviour with diffusion models", 2023 (arXiv:2301.10677), section 4
and the released code:

(3) basic MLP: three hidden layers on [a, o, tau]; it encodes nothing but pictures;
(4) sieve: h1 = f1([e.., e_a, e_t]), h_i = f_i([h', a, tau]) + h' with
    h' = h_{i-1} / sqrt 2, output = linear([h3, a, tau]), f = linear, norm, GELU.
    Every layer sees the raw action and time again, not their embeddings;
(5) transformer: tokens [t, a, o, o_before, ..], plus an embedding of the position
    1, 2, .., then four times
    x <- norm((attention(x) + x) / sqrt 2), x <- norm((mlp(x) + x) / sqrt 2);
    the output layer reads all tokens.

The authors use batch norm. The default here is layer norm, which has as many parameters
and does not depend on the other examples of the batch.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdiff.networks.layers import (
    MLP,
    Attention,
    Embedding,
    Linear,
    Norm,
    SineEmbedding,
)

_HALF = math.sqrt(0.5)


class BasicMLP(nn.Module):
    """Three hidden layers with GELU, equation (3).

    Attributes:
      features: outputs.
      hidden: width of the hidden layers.
      images: encoder of pictures, see `jaxdiff.networks.images`; None for vectors.
    """

    features: int
    hidden: int = 512
    images: Any = None

    def setup(self) -> None:
        """Make the layers."""
        self.layers = MLP(self.features, widths=(self.hidden,) * 3)

    def encode(self, observations: jax.Array) -> jax.Array:
        """Map [B, k, O] to embeddings [B, k, E]; vectors stay as they are."""
        return observations if self.images is None else self.images(observations)

    def denoise(
        self, embedding: jax.Array, action: jax.Array, time: jax.Array
    ) -> jax.Array:
        """Map [B, k, E], [B, A] and [B] to [B, features]."""
        flat = embedding.reshape(len(embedding), -1)
        return self.layers(jnp.concatenate([action, flat, time[:, None]], axis=-1))

    def __call__(
        self, observations: jax.Array, action: jax.Array, time: jax.Array
    ) -> jax.Array:
        """Map [B, k, O], [B, A] and [B] to [B, features]."""
        return self.denoise(self.encode(observations), action, time)


class Sieve(nn.Module):
    """A residual MLP that sees the action and the time at every layer, equation (4).

    Attributes:
      features: outputs.
      hidden: width of the hidden layers.
      embed: width of the embeddings.
      norm: makes the norm of a hidden layer.
      images: encoder of pictures; None for vectors.
    """

    features: int
    hidden: int = 512
    embed: int = 128
    norm: Callable[[], nn.Module] = Norm
    images: Any = None

    def setup(self) -> None:
        """Make the layers."""
        self.observation_embedding = Embedding(self.embed)
        self.action_embedding = Embedding(self.embed)
        self.time_embedding = SineEmbedding(self.embed)
        self.layers = [Linear(self.hidden) for _ in range(3)]
        self.norms = [self.norm() for _ in range(3)]
        self.out = Linear(self.features)

    def encode(self, observations: jax.Array) -> jax.Array:
        """Map [B, k, O] to [B, k, embed]."""
        if self.images is not None:
            observations = self.images(observations)
        return self.observation_embedding(observations)

    def denoise(
        self, embedding: jax.Array, action: jax.Array, time: jax.Array
    ) -> jax.Array:
        """Map [B, k, embed], [B, A] and [B] to [B, features]."""
        raw = [action, time[:, None]]
        embedded = [self.action_embedding(action), self.time_embedding(time)]
        flat = embedding.reshape(len(embedding), -1)
        h = self._layer(0, jnp.concatenate([flat, *embedded], axis=-1))
        for i in (1, 2):
            h = _HALF * h
            h = self._layer(i, jnp.concatenate([h, *raw], axis=-1)) + h
        return self.out(jnp.concatenate([h, *raw], axis=-1))

    def _layer(self, i: int, x: jax.Array) -> jax.Array:
        return jax.nn.gelu(self.norms[i](self.layers[i](x)), approximate=False)

    def __call__(
        self, observations: jax.Array, action: jax.Array, time: jax.Array
    ) -> jax.Array:
        """Map [B, k, O], [B, A] and [B] to [B, features]."""
        return self.denoise(self.encode(observations), action, time)


class Transformer(nn.Module):
    """A transformer over the tokens time, action and observations, equation (5).

    Attributes:
      features: outputs.
      embed: width of the embeddings.
      norm: makes the norm after each half of a block.
      lean: as in `Attention`; False gives the released network.
      images: encoder of pictures; None for vectors.
      width: channels of a token.
      depth: number of blocks.
    """

    features: int
    embed: int = 128
    norm: Callable[[], nn.Module] = Norm
    lean: bool = True
    images: Any = None
    width: int = 64
    depth: int = 4

    def setup(self) -> None:
        """Make the layers."""
        self.observation_embedding = Embedding(self.embed)
        self.action_embedding = Embedding(self.embed)
        self.time_embedding = SineEmbedding(self.embed)
        self.observation_token = Linear(self.width)
        self.action_token = Linear(self.width)
        self.time_token = Linear(self.width)
        self.place = SineEmbedding(self.width)
        blocks = range(self.depth)
        self.attentions = [Attention(lean=self.lean) for _ in blocks]
        self.mlps = [MLP(self.width, widths=(4 * self.width,)) for _ in blocks]
        self.norms = [self.norm() for _ in range(2 * self.depth)]
        self.out = Linear(self.features)

    def encode(self, observations: jax.Array) -> jax.Array:
        """Map [B, k, O] to [B, k, embed]."""
        if self.images is not None:
            observations = self.images(observations)
        return self.observation_embedding(observations)

    def denoise(
        self, embedding: jax.Array, action: jax.Array, time: jax.Array
    ) -> jax.Array:
        """Map [B, k, embed], [B, A] and [B] to [B, features]."""
        tokens = [
            self.time_token(self.time_embedding(time))[:, None],
            self.action_token(self.action_embedding(action))[:, None],
            self.observation_token(embedding),
        ]
        x = jnp.concatenate(tokens, axis=1)
        x = x + self.place(1.0 + jnp.arange(x.shape[1]))
        for i in range(self.depth):
            x = self.norms[2 * i](_HALF * (self.attentions[i](x) + x))
            x = self.norms[2 * i + 1](_HALF * (self.mlps[i](x) + x))
        return self.out(x.reshape(len(x), -1))

    def __call__(
        self, observations: jax.Array, action: jax.Array, time: jax.Array
    ) -> jax.Array:
        """Map [B, k, O], [B, A] and [B] to [B, features]."""
        return self.denoise(self.encode(observations), action, time)
