"""Networks of imitation: encode the observations once, denoise the action many times.

Each network maps a history of observations o, a noisy action a and a time tau in [0, 1]
to an output, in three parts that can be called separately:

(1) e = encode(o), one embedding for each observation of the history,
(2) decision, told = prepare(e, tau), what no action changes,
(3) output = denoise(decision, a, told).

An observation is encoded once, when it arrives. A sampler prepares all levels of noise
once for each decision, and repeats only (3). The first layer of the sieve is linear in
what it joins, so that the shares of e and of tau in it are a part of (2). Histories are
[B, k, ...], the newest observation first. The networks are those of Pearce et al.,
"Imitating human behaviour with diffusion models", 2023 (arXiv:2301.10677), section 4
and the released code:

(4) basic MLP: three hidden layers on [a, o, tau]; it encodes nothing but pictures;
(5) sieve: h1 = f1([e.., e_a, e_t]), h_i = f_i([h', a, tau]) + h' with
    h' = h_{i-1} / sqrt 2, output = linear([h3, a, tau]), f = linear, norm, GELU.
    Every layer sees the raw action and time again, not their embeddings;
(6) transformer: tokens [t, a, o, o_before, ..], plus an embedding of the position
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
    SummedLinear,
)

_HALF = math.sqrt(0.5)


class BasicMLP(nn.Module):
    """Three hidden layers with GELU, equation (4).

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

    def prepare(self, embedding: jax.Array, time: jax.Array) -> tuple[Any, Any]:
        """Map [B, k, E] and times [S] to [B, k E] and [S, 1]."""
        return embedding.reshape(len(embedding), -1), time[:, None]

    def denoise(self, decision: Any, action: jax.Array, told: Any) -> jax.Array:
        """Map a decision of B, [B, A] and what B times tell to [B, features]."""
        return self.layers(jnp.concatenate([action, decision, told], axis=-1))

    def __call__(
        self, observations: jax.Array, action: jax.Array, time: jax.Array
    ) -> jax.Array:
        """Map [B, k, O], [B, A] and [B] to [B, features]."""
        decision, told = self.prepare(self.encode(observations), time)
        return self.denoise(decision, action, told)


class Sieve(nn.Module):
    """A residual MLP that sees the action and the time at every layer, equation (5).

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
        hidden = [Linear(self.hidden) for _ in range(2)]
        self.layers = [SummedLinear(self.hidden), *hidden]
        self.norms = [self.norm() for _ in range(3)]
        self.out = Linear(self.features)

    def encode(self, observations: jax.Array) -> jax.Array:
        """Map [B, k, O] to [B, k, embed]."""
        if self.images is not None:
            observations = self.images(observations)
        return self.observation_embedding(observations)

    def prepare(self, embedding: jax.Array, time: jax.Array) -> tuple[Any, Any]:
        """Map [B, k, embed] and times [S] to their shares in the first hidden layer.

        Returns:
          The decision, [B, hidden] and the weights [embed, hidden] of the embedding of
          an action; and [S, hidden] with [S, 1].
        """
        flat = embedding.reshape(len(embedding), -1)
        sizes = (flat.shape[-1], self.embed, self.embed)
        (seen, acted, timed), bias = self.layers[0](sizes)
        told = self.time_embedding(time) @ timed, time[:, None]
        return (flat @ seen + bias, acted), told

    def denoise(self, decision: Any, action: jax.Array, told: Any) -> jax.Array:
        """Map a decision of B, [B, A] and what B times tell to [B, features]."""
        (seen, acted), (timed, time) = decision, told
        h = self._activate(0, seen + timed + self.action_embedding(action) @ acted)
        for i in (1, 2):
            h = _HALF * h
            joined = jnp.concatenate([h, action, time], axis=-1)
            h = self._activate(i, self.layers[i](joined)) + h
        return self.out(jnp.concatenate([h, action, time], axis=-1))

    def _activate(self, i: int, x: jax.Array) -> jax.Array:
        return jax.nn.gelu(self.norms[i](x), approximate=False)

    def __call__(
        self, observations: jax.Array, action: jax.Array, time: jax.Array
    ) -> jax.Array:
        """Map [B, k, O], [B, A] and [B] to [B, features]."""
        decision, told = self.prepare(self.encode(observations), time)
        return self.denoise(decision, action, told)


class Transformer(nn.Module):
    """A transformer over the tokens time, action and observations, equation (6).

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

    def prepare(self, embedding: jax.Array, time: jax.Array) -> tuple[Any, Any]:
        """Map [B, k, embed] and times [S] to tokens [B, k, width] and [S, width]."""
        return self.observation_token(embedding), self.time_token(
            self.time_embedding(time)
        )

    def denoise(self, decision: Any, action: jax.Array, told: Any) -> jax.Array:
        """Map a decision of B, [B, A] and what B times tell to [B, features]."""
        acted = self.action_token(self.action_embedding(action))
        x = jnp.concatenate([told[:, None], acted[:, None], decision], axis=1)
        x = x + self.place(1.0 + jnp.arange(x.shape[1]))
        for i in range(self.depth):
            x = self.norms[2 * i](_HALF * (self.attentions[i](x) + x))
            x = self.norms[2 * i + 1](_HALF * (self.mlps[i](x) + x))
        return self.out(x.reshape(len(x), -1))

    def __call__(
        self, observations: jax.Array, action: jax.Array, time: jax.Array
    ) -> jax.Array:
        """Map [B, k, O], [B, A] and [B] to [B, features]."""
        decision, told = self.prepare(self.encode(observations), time)
        return self.denoise(decision, action, told)
