"""Group norm and Mish in one, with a backward pass of its own.

For x [B, H, C], with the mean m and r = 1 / standard deviation of each group, taken
over time and over its channels [Wu & He, "Group normalization", 2018], and scale s and
bias b of each channel,

    d = x - m,   z = s r d + b,   y = mish(z) = z n / (n + 2),   n = e^z (e^z + 2).  (1)

The slope of Mish and, for a gradient g of y, that of x are

    mish'(z) = (n + 4 z e^z (1 + e^z) / (n + 2)) / (n + 2),   D = g mish'(z),        (2)
    S1 = sum_h D,   S2 = sum_h D d,                                                  (3)
    dx = s r D - r / N G(s S1) - r^3 / N G(s S2) d,   ds = sum_b r S2,  db = sum_b S1,

where G sums over the channels of a group and N counts the entries of a group. Only S1
and S2 are sums over time. Everything about groups happens on [B, C], so that every pass
over [B, H, C] runs along whole rows. Autodiff of (1) keeps the intermediate results of
Mish and sums over [B, H, 8, C / 8]. Forward and backward take 1.2 to 3 times as long by
it on a CPU, most with few channels, and as long at four time steps
(`python -m benchmarks.conv --layers`).

Of trajectories with a `length` the sums in m, r, S1 and S2 that belong to a mean or a
variance run over the first rows alone, and N counts these. Rows beyond them are
normalized as the others are, and read by nothing.

The variance is taken about the mean (two passes): E[x^2] - E[x]^2 loses its digits
where the mean is large.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdiff.networks.layers import mish_parts
from jaxdiff.networks.lengths import counted


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def norm_mish(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    groups: int = 8,
    epsilon: float = 1e-5,
    length: jax.Array | None = None,
) -> jax.Array:
    """Normalize over time and the channels of each group and apply Mish, equation (1).

    It has a gradient and no forward-mode derivative.

    Args:
      x: [B, H, C].
      scale: [C].
      bias: [C].
      groups: number of channel groups; must divide C.
      epsilon: keeps a constant group from dividing by zero.
      length: [B] rows that count, see `jaxdiff.networks.lengths`.

    Raises:
      ValueError: C does not divide into the groups.
    """
    return _forward(x, scale, bias, groups, epsilon, length)[0]


def _forward(x, scale, bias, groups, epsilon, length):
    channels = x.shape[-1]
    if channels % groups:
        raise ValueError(f"{channels} channels do not split into {groups} groups")
    count = _entries(x, length, groups)
    mean = _group_sums(counted(x, length).sum(1), groups) / count
    squares = counted(jnp.square(x - mean[:, None]), length).sum(1)
    variance = _group_sums(squares, groups) / count
    inverse = jax.lax.rsqrt(variance + epsilon)
    z = (x - mean[:, None]) * (inverse * scale)[:, None] + bias
    _, _, n = mish_parts(z)
    return z * (n / (n + 2.0)), (x, scale, bias, length, mean, inverse)


def _backward(groups, epsilon, residuals, g):
    del epsilon
    x, scale, bias, length, mean, inverse = residuals
    count = _entries(x, length, groups)
    centred, gain = x - mean[:, None], inverse * scale
    z, e, n = mish_parts(centred * gain[:, None] + bias)
    share = 1.0 / (n + 2.0)
    slope = g * share * (n + 4.0 * z * e * (1.0 + e) * share)
    sums, moments = slope.sum(1), (slope * centred).sum(1)
    shift = -inverse * _group_sums(scale * sums, groups) / count
    tilt = -(inverse**3) * _group_sums(scale * moments, groups) / count
    through_group = counted(centred * tilt[:, None] + shift[:, None], length)
    dx = slope * gain[:, None] + through_group
    return dx, (inverse * moments).sum(0), sums.sum(0), None


norm_mish.defvjp(_forward, _backward)


def _entries(x: jax.Array, length: jax.Array | None, groups: int) -> Any:
    """Count the entries of a group, N: a number, or `[B, 1]`."""
    rows = x.shape[1] if length is None else length[:, None]
    return rows * (x.shape[2] // groups)


def _group_sums(x: jax.Array, groups: int) -> jax.Array:
    """Replace each entry of x [B, C] by the sum over its group of channels."""
    sums = x.reshape(len(x), groups, -1).sum(-1)
    return jnp.repeat(sums, x.shape[1] // groups, axis=1)


class NormMish(nn.Module):
    """`norm_mish` with a learned scale and bias.

    Attributes:
      groups: number of channel groups.
    """

    groups: int = 8

    @nn.compact
    def __call__(self, x: jax.Array, length: jax.Array | None = None) -> jax.Array:
        """Map [B, H, C] to the same shape, from `length` [B] rows."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return norm_mish(x, scale, bias, self.groups, length=length)
