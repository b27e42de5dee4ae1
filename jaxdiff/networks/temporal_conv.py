"""Convolution over time.

Arrays are [B, H, C]: batch, time steps (the horizon), channels. For a kernel w of k
taps, C inputs and O outputs, with p = k // 2 zeros on both sides of x:

    y[t]  = sum_i x[s t + i - p] w[i]                          convolution, stride s (1)
    y[2t] = x[t] w[1] + x[t-1] w[3],  y[2t+1] = x[t] w[2] + x[t+1] w[0]   up by two  (2)

(2) is the transposed convolution with k = 4, s = 2, padding 1.

XLA's own convolution is slow on a CPU: 20 to 100 times slower where the kernel is
longer than the horizon, and in gradients inside a scan at any horizon. So a CPU
computes (1) with fewer products (`jaxdiff.networks.toom_cook`), about twice as fast as
a direct sum. With a stride, or with so few rows that transforming the kernel costs more
than it saves, it computes one matrix product with the patches (x[t-p], .., x[t+p])
gathered. Accelerators use XLA's convolution. `benchmarks/conv.py` measures all of them.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdiff.networks.layers import fan_in_uniform
from jaxdiff.networks.toom_cook import toom_cook_conv

# With fewer rows than this a CPU does not gain from transforming the kernel.
_ENOUGH_ROWS = 128


def temporal_conv(x: jax.Array, kernel: jax.Array, *, stride: int = 1) -> jax.Array:
    """Convolve over time with symmetric zero padding, equation (1).

    Args:
      x: [B, H, C].
      kernel: [k, C, O] with k odd.
      stride: time steps between outputs.

    Returns:
      [B, ceil(H / stride), O].

    Raises:
      ValueError: k is even.
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


class TemporalConv(nn.Module):
    """`temporal_conv` with a bias, both from `fan_in_uniform`.

    Attributes:
      features: outputs.
      kernel_size: taps of the kernel, an odd number.
      stride: time steps between outputs.
    """

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
    """`temporal_up_conv` with a bias, both from `fan_in_uniform`.

    Attributes:
      features: outputs.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, H, C] to [B, 2 * H, features]."""
        init = fan_in_uniform(4 * self.features)
        kernel = self.param("kernel", init, (4, x.shape[-1], self.features))
        bias = self.param("bias", init, (self.features,))
        return temporal_up_conv(x, kernel) + bias
