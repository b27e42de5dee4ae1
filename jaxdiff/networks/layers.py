"""Layers that all networks share: affine maps, norms, activations, embeddings.

Weights and biases start uniform in +-1/sqrt(fan_in), as in PyTorch. Numbered forms:

(1) mish(x) = x tanh(log(1 + e^x)) = x n / (n + 2),  n = e^x (e^x + 2)
    [Misra, "Mish: a self regularized non-monotonic activation function", 2019]
(2) sinusoidal embedding: s(t) = [sin(t f), cos(t f)],  f_j = 10^(-4 j / (dim/2 - 1)),
    j = 0 .. dim/2 - 1 [Vaswani et al., "Attention is all you need", 2017]
(3) Fourier features: [sin(2 pi f t), cos(2 pi f t)] with given frequencies f
    [Tancik et al., 2020, arXiv:2006.10739]
(4) attention: y = softmax(q k^T / sqrt(width)) v in each head [Vaswani et al., 2017]
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

Initializer = Callable[..., jax.Array]
NormKind = Literal["layer", "batch", "none"]
Precision = Literal["float32", "bfloat16"]


def fan_in_uniform(fan_in: int) -> Initializer:
    """Make an initializer drawing from U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def product(x: jax.Array, kernel: jax.Array, precision: Precision) -> jax.Array:
    """Multiply x [..., C] by a kernel [C, O], with sums in float32.

    Args:
      x: float32.
      kernel: float32.
      precision: what factors are rounded to, "float32" or "bfloat16", also in the
        backward pass.
    """
    if precision == "float32":
        return x @ kernel
    flat = _rounded_product(x.reshape(-1, x.shape[-1]), kernel)
    return flat.reshape(*x.shape[:-1], kernel.shape[-1])


@jax.custom_vjp
def _rounded_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    factors = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    return jnp.matmul(*factors, preferred_element_type=jnp.float32)


_rounded_product.defvjp(
    lambda x, kernel: (_rounded_product(x, kernel), (x, kernel)),
    lambda factors, g: (
        _rounded_product(g, factors[1].T),
        _rounded_product(factors[0].T, g),
    ),
)


class Linear(nn.Module):
    """An affine map of the last axis, weights and bias from `fan_in_uniform`.

    Attributes:
      features: outputs.
      use_bias: add a bias.
      precision: of the factors of products, see `product`.
    """

    features: int
    use_bias: bool = True
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [..., C] to [..., features]."""
        init = fan_in_uniform(x.shape[-1])
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        y = product(x, kernel, self.precision)
        return y + self.param("bias", init, (self.features,)) if self.use_bias else y


class SummedLinear(nn.Module):
    """The parameters of a `Linear` of parts side by side, part by part.

    [x_1 | x_2 | ..] W + b = x_1 W_1 + x_2 W_2 + .. + b: a part that stays the same need
    not be multiplied again.

    Attributes:
      features: outputs.
    """

    features: int

    @nn.compact
    def __call__(self, sizes: Sequence[int]) -> tuple[list[jax.Array], jax.Array]:
        """Return W_i [sizes[i], features] of parts of these sizes, and b [features]."""
        total = sum(sizes)
        init = fan_in_uniform(total)
        kernel = self.param("kernel", init, (total, self.features))
        bias = self.param("bias", init, (self.features,))
        ends = itertools.accumulate(sizes[:-1])
        return jnp.split(kernel, list(ends)), bias


class MLP(nn.Module):
    """Dense layers with GELU between them (Hendrycks & Gimpel, 2016).

    Attributes:
      features: outputs.
      widths: widths of the hidden layers.
      layer_norm: normalize each hidden layer after its GELU.
      approximate: compute GELU by tanh, which differs from it by up to 5e-4.
      precision: of the factors of products.
    """

    features: int
    widths: Sequence[int] = (512, 512, 512)
    layer_norm: bool = False
    approximate: bool = False
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [..., C] to [..., features]."""
        linear = functools.partial(Linear, precision=self.precision)
        for width in self.widths:
            x = jax.nn.gelu(linear(width)(x), approximate=self.approximate)
            x = nn.LayerNorm(epsilon=1e-6)(x) if self.layer_norm else x
        return linear(self.features)(x)


class ReLUNet(nn.Module):
    """Dense layers with ReLU between them.

    Attributes:
      features: outputs.
      widths: widths of the hidden layers.
      layer_norm: normalize each hidden layer before its ReLU.
    """

    features: int
    widths: Sequence[int] = (256, 256)
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [..., C] to [..., features]."""
        for width in self.widths:
            x = Linear(width)(x)
            x = jax.nn.relu(nn.LayerNorm(epsilon=1e-5)(x) if self.layer_norm else x)
        return Linear(self.features)(x)


def mish(x: jax.Array) -> jax.Array:
    """Apply Mish elementwise, equation (1), with one exponential.

    In the left tail n tends to 2 e^x without cancellation.
    """
    _, _, n = mish_parts(x)
    return x * (n / (n + 2.0))


def mish_parts(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return x, e^x and n of equation (1), with x at most 20.

    From there on mish(x) = x in float32, and inf / inf would follow without the limit.
    """
    x = jnp.minimum(x, 20.0)
    e = jnp.exp(x)
    return x, e, e * (e + 2.0)


class Norm(nn.Module):
    """Layer norm of the last axis, batch norm over all other axes, or nothing.

    Batch norm keeps running averages in the collection "batch_stats". It normalizes
    by the batch and moves the averages where that collection is mutable, and it
    normalizes by the averages elsewhere.

    Attributes:
      kind: "layer", "batch" or "none".
      axis_name: axis of the devices that a batch is split over; read by "batch".
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


def sinusoidal_embedding(time: jax.Array, dim: int) -> jax.Array:
    """Embed times [B], in any unit, as [B, dim] sines then cosines, equation (2).

    Raises:
      ValueError: `dim` is odd or below 4.
    """
    half = dim // 2
    if dim % 2 or half < 2:
        raise ValueError(f"the time embedding needs an even dim >= 4, got {dim}")
    frequencies = 10.0 ** (-4.0 * jnp.arange(half) / (half - 1))
    angles = time.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def fourier_features(time: jax.Array, frequencies: Sequence[float]) -> jax.Array:
    """Embed times [...] as [..., 2 F] sines then cosines, equation (3)."""
    angle = 2 * jnp.pi * time[..., None] * jnp.asarray(frequencies, jnp.float32)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class TimeEmbedding(nn.Module):
    """Embed the noise level, W_2 mish(W_1 s(t)), and append a condition.

    Attributes:
      dim: width of the embedding of the noise level.
    """

    dim: int

    @nn.compact
    def __call__(self, time: jax.Array, condition: jax.Array | None) -> jax.Array:
        """Map times [B] and a condition [B, E] to [B, dim + E]."""
        hidden = mish(Linear(4 * self.dim)(sinusoidal_embedding(time, self.dim)))
        embedding = Linear(self.dim)(hidden)
        if condition is None:
            return embedding
        return jnp.concatenate([embedding, condition], axis=-1)


class Embedding(nn.Module):
    """Linear, leaky ReLU, linear.

    Attributes:
      features: outputs.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [..., C] to [..., features]."""
        return Linear(self.features)(jax.nn.leaky_relu(Linear(self.features)(x)))


class SineEmbedding(nn.Module):
    """Sines of learned frequencies, then a linear layer.

    Attributes:
      features: outputs.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [...] to [..., features]."""
        waves = jnp.sin(Linear(self.features, use_bias=False)(x[..., None]))
        return Linear(self.features)(waves)


class Attention(nn.Module):
    """Attention of every token to every token, equation (4).

    Attributes:
      heads: number of heads.
      width: channels of a head.
      lean: leave out the second projection of queries, keys, values and outputs that
        the network of Pearce et al. (2023) has. The lean layer can compute the same
        functions with one fifteenth of the parameters.
      precision: of the factors of products with weights.
    """

    heads: int = 16
    width: int = 64
    lean: bool = True
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, seen: jax.Array | None = None) -> jax.Array:
        """Map [B, S, C] to the same shape; `seen` [B, S] marks what counts."""
        inner = self.heads * self.width
        linear = functools.partial(Linear, precision=self.precision)
        parts = jnp.split(linear(3 * inner)(x), 3, axis=-1)
        if not self.lean:
            parts = [linear(inner)(part) for part in parts]
        shape = (*x.shape[:2], self.heads, self.width)
        query, key, value = (part.reshape(shape) for part in parts)
        logits = jnp.einsum("bqhc,bkhc->bhqk", query, key) / math.sqrt(self.width)
        where = None if seen is None else seen[:, None, None]
        weights = jax.nn.softmax(logits, where=where)
        found = jnp.einsum("bhqk,bkhc->bqhc", weights, value)
        found = found.reshape(*x.shape[:2], inner)
        if not self.lean:
            found = linear(inner)(found)
        return linear(x.shape[-1])(found)
