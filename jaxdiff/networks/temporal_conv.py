"""Convolution over time.

Arrays are [B, H, C]: batch, time steps (the horizon), channels. For a kernel w of k
taps, C inputs and O outputs, with p = k // 2 zeros on both sides of x:

    y[t]  = sum_i x[s t + i - p] w[i]                          convolution, stride s (1)
    y[2t] = x[t] w[1] + x[t-1] w[3],  y[2t+1] = x[t] w[2] + x[t+1] w[0]   up by two  (2)

(2) is the transposed convolution with k = 4, s = 2, padding 1.

XLA's own convolution is slow on a CPU: 20 to 100 times slower where the kernel is
longer than the horizon, and in gradients inside a scan at any horizon. So a CPU
computes (1) in one of three other ways, by the shapes alone:

    many rows     fewer products (`jaxdiff.networks.toom_cook`), in float32 only;
    bfloat16      all taps of every row in one product, x [w[0] | .. | w[k-1]], and a
                  sum of k shifted slices, because sums must be in float32;
    otherwise     one product with the patches (x[t-p], .., x[t+p]) gathered: with a
                  stride, with a batch of unknown size (`jax.export`), or with so few
                  rows that transforming the kernel costs more than it saves.

Microseconds of one AMD EPYC core (AVX2), medians beside other work, with k = 5, for
[B, H, C] -> O (`python -m benchmarks.conv --layers`):

                           fewer products   gathered   all taps   k products
    [64, 32, 32] -> 32           302           525        426        534
    [64, 8, 128] -> 128          678          1418       1291       1278
    [64, 4, 256] -> 256         2492          3453       3520       3626
    [8, 128, 32] -> 32           244           399        316        411
    [1, 128, 32] -> 32           112           137        134        156
    [8, 4, 256] -> 256           628           726        691        752
    [1, 8, 128] -> 128           190           110        112        130
    [1, 4, 256] -> 256           596           298        346        354

In a scan XLA transforms a kernel once, before the first step, so a prepared kernel
gains nothing there. Accelerators use XLA's convolution.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdiff.networks.layers import Precision, fan_in_uniform, product
from jaxdiff.networks.lengths import counted
from jaxdiff.networks.toom_cook import toom_cook_conv

# With fewer rows than this a CPU does not gain from transforming the kernel.
_ENOUGH_ROWS = 128


def temporal_conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    precision: Precision = "float32",
) -> jax.Array:
    """Convolve over time with symmetric zero padding, equation (1).

    Args:
      x: [B, H, C].
      kernel: [k, C, O] with k odd.
      stride: time steps between outputs.
      precision: of the factors of products; sums are in float32.

    Returns:
      [B, ceil(H / stride), O].

    Raises:
      ValueError: k is even.
    """
    size = kernel.shape[0]
    if size % 2 == 0:
        raise ValueError(f"temporal_conv needs an odd kernel size, got {size}")
    if size == 1:
        return product(x[:, ::stride], kernel[0], precision)
    if jax.default_backend() != "cpu":
        return _library(x, kernel, stride, precision)
    if stride > 1:
        return _gather(x, kernel, stride, precision)
    if precision != "float32":
        return _all_taps(x, kernel, precision)
    return toom_cook_conv(x, kernel) if _many(x, kernel) else _gather(x, kernel)


def _many(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether there are so many rows that transforming the kernel pays."""
    rows: Any = x.shape[0] * x.shape[1]
    # An exported program may leave the size of a batch open.
    return isinstance(rows, int) and rows >= _ENOUGH_ROWS and len(kernel) <= 5


def _gather(
    x: jax.Array, kernel: jax.Array, stride: int = 1, precision: Precision = "float32"
) -> jax.Array:
    """Compute equation (1) as one product of the patches and the flattened kernel."""
    size, _, features = kernel.shape
    padded = _padded(x, size)
    taps = [padded[:, i : i + x.shape[1] : stride] for i in range(size)]
    flat = kernel.reshape(-1, features)
    return product(jnp.concatenate(taps, axis=-1), flat, precision)


def _all_taps(x: jax.Array, kernel: jax.Array, precision: Precision) -> jax.Array:
    """Multiply every row by all taps at once, then add k shifted slices."""
    size, channels, features = kernel.shape
    flat = jnp.moveaxis(kernel, 0, 1).reshape(channels, size * features)
    padded = _padded(product(x, flat, precision), size)
    taps = jnp.split(padded, size, axis=-1)
    shifted = [tap[:, i : i + x.shape[1]] for i, tap in enumerate(taps)]
    return functools.reduce(jnp.add, shifted)


def _padded(x: jax.Array, size: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (size // 2, size // 2), (0, 0)))


def _library(
    x: jax.Array, kernel: jax.Array, stride: int, precision: Precision
) -> jax.Array:
    """Let XLA convolve."""
    convolve = _convolve if precision == "float32" else _rounded_convolve
    return convolve(x, kernel, stride)


def _convolve(
    x: jax.Array, kernel: jax.Array, stride: int, sums: Any = jnp.float32
) -> jax.Array:
    half = len(kernel) // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride,),
        [(half, half)],
        dimension_numbers=("NWC", "WIO", "NWC"),
        preferred_element_type=sums,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _rounded_convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return _convolve(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), stride)


def _rounded_backward(stride, factors, g):
    # The derivative that JAX knows needs one type for factors, sums and gradients.
    rounded = [each.astype(jnp.bfloat16) for each in (*factors, g)]
    _, pull = jax.vjp(lambda x, w: _convolve(x, w, stride, jnp.bfloat16), *rounded[:2])
    return tuple(each.astype(jnp.float32) for each in pull(rounded[2]))


_rounded_convolve.defvjp(
    lambda x, kernel, stride: (_rounded_convolve(x, kernel, stride), (x, kernel)),
    _rounded_backward,
)


def temporal_up_conv(
    x: jax.Array, kernel: jax.Array, *, precision: Precision = "float32"
) -> jax.Array:
    """Double the time resolution by a transposed convolution, equation (2).

    Args:
      x: [B, H, C].
      kernel: [4, C, O].
      precision: of the factors of products; sums are in float32.

    Returns:
      [B, 2 * H, O].
    """
    batch, horizon, channels = x.shape
    features = kernel.shape[-1]
    flat = jnp.moveaxis(kernel, 0, 1).reshape(channels, 4 * features)
    taps = product(x, flat, precision)
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
      precision: of the factors of products.
    """

    features: int
    kernel_size: int
    stride: int = 1
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, length: jax.Array | None = None) -> jax.Array:
        """Map [B, H, C], of `length` [B] rows, to [B, ceil(H / stride), features]."""
        channels = x.shape[-1]
        init = fan_in_uniform(self.kernel_size * channels)
        shape = (self.kernel_size, channels, self.features)
        kernel = self.param("kernel", init, shape)
        bias = self.param("bias", init, (self.features,))
        x = counted(x, length)
        y = temporal_conv(x, kernel, stride=self.stride, precision=self.precision)
        return y + bias


class TemporalUpConv(nn.Module):
    """`temporal_up_conv` with a bias, both from `fan_in_uniform`.

    Attributes:
      features: outputs.
      precision: of the factors of products.
    """

    features: int
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, length: jax.Array | None = None) -> jax.Array:
        """Map [B, H, C], of `length` [B] rows, to [B, 2 * H, features]."""
        init = fan_in_uniform(4 * self.features)
        kernel = self.param("kernel", init, (4, x.shape[-1], self.features))
        bias = self.param("bias", init, (self.features,))
        x = counted(x, length)
        return temporal_up_conv(x, kernel, precision=self.precision) + bias
