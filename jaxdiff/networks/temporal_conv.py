"""The layers of temporal networks: convolution over time, GroupNorm, Mish.

Arrays are [B, H, C]: batch, time steps (the horizon), channels. For a kernel w of k
taps, C inputs and O outputs, with p = k // 2 zeros put on both sides of x:

    y[t]  = sum_i x[s t + i - p] w[i]                          convolution, stride s (1)
    y[2t] = x[t] w[1] + x[t-1] w[3],  y[2t+1] = x[t] w[2] + x[t+1] w[0]   up by two  (2)
    mish(x) = x tanh(log(1 + e^x)) = x n / (n + 2),  n = e^x (e^x + 2)               (3)

(2) is the transposed convolution with k = 4, s = 2, padding 1. Mish: Misra, "Mish: a
self regularized non-monotonic activation function", 2019. GroupNorm: Wu & He, "Group
normalization", 2018.

On a CPU (1) is computed with fewer products (`jaxdiff.networks.toom_cook`), about twice
as fast as a direct sum there; of few rows, where transforming the kernel would cost
more than it saves, and at strides, it is one matrix product with the patches
(x[t-p], .., x[t+p]) gathered. XLA's own convolution is 20 to 100 times slower there
when the kernel is longer than the horizon, and so are its gradients at any horizon
inside a scan; `benchmarks/conv.py` times it. Accelerators keep XLA's convolution.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdiff.networks.toom_cook import toom_cook_conv

Initializer = Callable[..., jax.Array]

# Fewer rows than this are not worth transforming the kernel for, on a CPU.
_ENOUGH_ROWS = 128


def temporal_conv(x: jax.Array, kernel: jax.Array, *, stride: int = 1) -> jax.Array:
    """Convolve over time with symmetric zero padding, equation (1).

    Args:
      x: [B, H, C].
      kernel: [k, C, O] with k odd.
      stride: time steps between outputs.

    Returns:
      [B, ceil(H / stride), O].
    """
    size = kernel.shape[0]
    if size % 2 == 0:
        raise ValueError(f"temporal_conv needs an odd kernel size, got {size}")
    if size == 1:
        return x[:, ::stride] @ kernel[0]
    if jax.default_backend() == "cpu":
        batch, horizon, _ = x.shape
        if stride == 1 and size <= 5 and batch * horizon >= _ENOUGH_ROWS:
            return toom_cook_conv(x, kernel)
        return _gather(x, kernel, stride)
    padding = [(size // 2, size // 2)]
    return jax.lax.conv_general_dilated(
        x, kernel, (stride,), padding, dimension_numbers=("NWC", "WIO", "NWC")
    )


def _gather(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Compute equation (1) as one product of the patches and the flattened kernel."""
    size, _, features = kernel.shape
    horizon = x.shape[1]
    padded = jnp.pad(x, ((0, 0), (size // 2, size // 2), (0, 0)))
    taps = [padded[:, i : i + horizon : stride] for i in range(size)]
    return jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, features)


def temporal_up_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Double the time resolution by a transposed convolution, equation (2).

    Args:
      x: [B, H, C].
      kernel: [4, C, O].

    Returns:
      [B, 2 * H, O].
    """
    batch, horizon, channels = x.shape
    features = kernel.shape[-1]
    taps = x @ jnp.moveaxis(kernel, 0, 1).reshape(channels, 4 * features)
    w0, w1, w2, w3 = jnp.split(taps, 4, axis=-1)
    before = jnp.pad(w3, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    after = jnp.pad(w0, ((0, 0), (0, 1), (0, 0)))[:, 1:]
    pairs = jnp.stack([w1 + before, w2 + after], axis=2)
    return pairs.reshape(batch, 2 * horizon, features)


def mish(x: jax.Array) -> jax.Array:
    """Apply Mish elementwise, equation (3), with one exponential.

    Above 20 the quotient is 1 in float32; capping the exponent there prevents
    inf / inf. In the left tail n tends to 2 e^x without cancellation.
    """
    e = jnp.exp(jnp.minimum(x, 20.0))
    n = e * (e + 2.0)
    return x * (n / (n + 2.0))


def group_norm(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    *,
    groups: int = 8,
    epsilon: float = 1e-5,
) -> jax.Array:
    """Normalise over time and the channels of each group, then scale and shift.

    The variance is taken about the mean (two passes): E[x^2] - E[x]^2 loses its digits
    where the mean is large.

    Args:
      x: [B, H, C].
      scale: [C].
      bias: [C].
      groups: number of channel groups; must divide C.
      epsilon: keeps a constant group from dividing by zero.
    """
    batch, horizon, channels = x.shape
    if channels % groups:
        raise ValueError(f"{channels} channels do not split into {groups} groups")
    grouped = x.reshape(batch, horizon, groups, channels // groups)
    mean = grouped.mean(axis=(1, 3), keepdims=True)
    centred = grouped - mean
    variance = jnp.square(centred).mean(axis=(1, 3), keepdims=True)
    normalised = centred * jax.lax.rsqrt(variance + epsilon)
    return normalised.reshape(x.shape) * scale + bias


def fan_in_uniform(fan_in: int) -> Initializer:
    """Make an initializer drawing from U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Linear(nn.Module):
    """An affine map of the last axis, weights and bias from `fan_in_uniform`."""

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [..., C] to [..., features]."""
        init = fan_in_uniform(x.shape[-1])
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        if not self.use_bias:
            return x @ kernel
        return x @ kernel + self.param("bias", init, (self.features,))


class TemporalConv(nn.Module):
    """`temporal_conv` with a bias, both from `fan_in_uniform`."""

    features: int
    kernel_size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, H, C] to [B, ceil(H / stride), features]."""
        channels = x.shape[-1]
        init = fan_in_uniform(self.kernel_size * channels)
        shape = (self.kernel_size, channels, self.features)
        kernel = self.param("kernel", init, shape)
        bias = self.param("bias", init, (self.features,))
        return temporal_conv(x, kernel, stride=self.stride) + bias


class TemporalUpConv(nn.Module):
    """`temporal_up_conv` with a bias, both from `fan_in_uniform`."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, H, C] to [B, 2 * H, features]."""
        init = fan_in_uniform(4 * self.features)
        kernel = self.param("kernel", init, (4, x.shape[-1], self.features))
        bias = self.param("bias", init, (self.features,))
        return temporal_up_conv(x, kernel) + bias


class GroupNorm(nn.Module):
    """`group_norm` with learned scale and bias."""

    groups: int = 8

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, H, C] to the same shape."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return group_norm(x, scale, bias, groups=self.groups)
