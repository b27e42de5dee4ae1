"""Networks of imitation: what was observed is encoded once, actions denoised often.

Each network maps a history of observations o, a noisy action a and a time tau in [0, 1]
to an output, in two halves that may be called on their own:

(1) e = encode(o), one embedding for each observation of the history,
(2) output = denoise(e, a, tau),

so that a sampler of many steps runs the first half, in which images are read, once.
Histories are [B, k, ...], the newest observation first. The networks are those of
Pearce et al., "Imitating human behaviour with diffusion models", 2023
(arXiv:2301.10677), section 4 and its released code:

(3) basic MLP: three hidden layers that see [a, o, tau]; nothing is encoded but images;
(4) sieve: h1 = f1([e.., e_a, e_t]), h_i = f_i([h', a, tau]) + h' with
    h' = h_{i-1} / sqrt 2, output = linear([h3, a, tau]), f = linear, norm, GELU.
    It is the raw action and time, not their embeddings, that every layer sees again;
(5) transformer: tokens [t, a, o, o_before, ..], each with a code of its place 1, 2, ..,
    x <- norm((attention(x) + x) / sqrt 2), x <- norm((mlp(x) + x) / sqrt 2), four
    times; all tokens together are read out.

The authors normalise by statistics of the batch, and in acting by running averages of
them. The default here are those of each example (layer norm), which knows nothing of
its neighbours and has as many parameters. Running averages are variables of the
collection "batch_stats": whoever applies a network with that collection mutable trains
it, and others find the averages fixed.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdiff.networks.mlp import MLP
from jaxdiff.networks.temporal_conv import Linear

NormKind = Literal["layer", "batch", "none"]

_HALF = math.sqrt(0.5)


class Norm(nn.Module):
    """Layer norm of the last axis, batch norm over all others, or nothing.

    Attributes:
      kind: "layer", "batch" or "none".
      axis_name: of the devices that a batch is split over, for "batch"; None for one.
    """

    kind: NormKind = "layer"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [..., C] to the same shape."""
        if self.kind == "none":
            return x
        if self.kind == "layer":
            return nn.LayerNorm(epsilon=1e-5)(x)
        training = self.is_mutable_collection("batch_stats")
        return nn.BatchNorm(
            not training, momentum=0.9, epsilon=1e-5, axis_name=self.axis_name
        )(x)


class Embedding(nn.Module):
    """Linear, leaky ReLU, linear."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [..., C] to [..., features]."""
        return Linear(self.features)(jax.nn.leaky_relu(Linear(self.features)(x)))


class SineEmbedding(nn.Module):
    """Sines of learned frequencies, then a linear layer."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [...] to [..., features]."""
        waves = jnp.sin(Linear(self.features, use_bias=False)(x[..., None]))
        return Linear(self.features)(waves)


class BasicMLP(nn.Module):
    """Three hidden layers with GELU, equation (3).

    Attributes:
      features: outputs.
      hidden: width.
      images: reads images, see `jaxdiff.networks.images`; None for vectors.
    """

    features: int
    hidden: int = 512
    images: Any = None

    def setup(self) -> None:
        """Make the layers."""
        self.layers = MLP(self.features, widths=(self.hidden,) * 3)

    def encode(self, observations: jax.Array) -> jax.Array:
        """Map [B, k, O] to embeddings: of vectors, those vectors."""
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
    """A residual MLP shown the action and the time at every layer, equation (4).

    Attributes:
      features: outputs.
      hidden: width.
      embed: width of the embeddings.
      norm: makes the norm of a hidden layer.
      images: as in `BasicMLP`.
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


class Attention(nn.Module):
    """Every token looks at every token.

    Attributes:
      heads: each of `width` channels.
      width: channels of a head.
      lean: leave out the second projection of queries, keys and values, and of what
        was found, that the released network has from an attention layer within its
        attention layer: no function is lost, and 14 of 15 parameters are.
    """

    heads: int = 16
    width: int = 64
    lean: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, S, C] to the same shape."""
        inner = self.heads * self.width
        parts = jnp.split(Linear(3 * inner)(x), 3, axis=-1)
        if not self.lean:
            parts = [Linear(inner)(part) for part in parts]
        shape = (*x.shape[:2], self.heads, self.width)
        query, key, value = (part.reshape(shape) for part in parts)
        logits = jnp.einsum("bqhc,bkhc->bhqk", query, key) / math.sqrt(self.width)
        found = jnp.einsum("bhqk,bkhc->bqhc", jax.nn.softmax(logits), value)
        found = found.reshape(*x.shape[:2], inner)
        if not self.lean:
            found = Linear(inner)(found)
        return Linear(x.shape[-1])(found)


class Transformer(nn.Module):
    """A transformer over the tokens time, action and observations, equation (5).

    Attributes:
      features: outputs.
      embed: width of the embeddings.
      norm: makes the norm after each half of a block.
      lean: see `Attention`; false is the released network.
      images: as in `BasicMLP`.
      width: channels of a token.
      depth: blocks.
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
