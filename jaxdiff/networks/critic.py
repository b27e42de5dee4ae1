"""Critics and actors of offline reinforcement learning: dense layers with ReLU.

The defaults, two hidden layers of 256, are those of IQL, TD3+BC and SRPO. LayerNorm
before each ReLU keeps values from diverging on small data sets (Ball et al., 2023,
arXiv:2302.02948); the algorithms named above do not use it. FQL's critics are of GELU.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdiff.networks.layers import ReLUNet


class TwinQ(nn.Module):
    """Two critics of the same kind; their minimum is a cautious estimate.

    Fujimoto et al., 2018, arXiv:1802.09477.

    Attributes:
      widths: widths of the hidden layers.
      layer_norm: normalize each hidden layer.
      layers: `(features, widths, layer_norm) -> module`, such as `MLP`.
    """

    widths: Sequence[int] = (256, 256)
    layer_norm: bool = False
    layers: Callable[..., nn.Module] = ReLUNet

    @nn.compact
    def __call__(self, inputs: jax.Array, actions: jax.Array) -> jax.Array:
        """Map states [..., S] and actions [..., A] to two values [2, ...]."""
        x = jnp.concatenate([inputs, actions], axis=-1)
        twins = [self.layers(1, self.widths, self.layer_norm)(x) for _ in range(2)]
        return jnp.stack(twins)[..., 0]


class Value(nn.Module):
    """The value of a state.

    Attributes:
      widths: widths of the hidden layers.
      layer_norm: normalize each hidden layer before its ReLU.
    """

    widths: Sequence[int] = (256, 256)
    layer_norm: bool = False

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map states [..., S] to values [...]."""
        return ReLUNet(1, self.widths, self.layer_norm)(inputs)[..., 0]


class Actor(nn.Module):
    """A policy: an action in (-1, 1), or a Gaussian around it.

    The mean passes through tanh; samples do not (Kostrikov et al., 2021). The standard
    deviation is the same in every state.

    Attributes:
      features: A.
      widths: widths of the hidden layers.
      gaussian: learn a standard deviation.
      min_log_std: lower bound of the logarithm of the standard deviation.
      max_log_std: upper bound of the logarithm of the standard deviation.
    """

    features: int
    widths: Sequence[int] = (256, 256)
    gaussian: bool = False
    min_log_std: float = -5.0
    max_log_std: float = 2.0

    @nn.compact
    def __call__(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """Map states [..., S] to means [..., A] and a standard deviation [A].

        The standard deviation is None for a deterministic policy.
        """
        mean = jnp.tanh(ReLUNet(self.features, self.widths)(inputs))
        if not self.gaussian:
            return mean, None
        log_std = self.param("log_std", nn.initializers.zeros, (self.features,))
        return mean, jnp.exp(jnp.clip(log_std, self.min_log_std, self.max_log_std))


class SquashedActor(nn.Module):
    """A Gaussian policy whose samples pass through tanh.

    The standard deviation depends on the state.

    Attributes:
      features: A.
      widths: widths of the hidden layers.
      min_log_std: lower bound of the logarithm of the standard deviation.
      max_log_std: upper bound of the logarithm of the standard deviation.
    """

    features: int
    widths: Sequence[int] = (256, 256)
    min_log_std: float = -5.0
    max_log_std: float = 2.0

    @nn.compact
    def __call__(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Map states [..., S] to means and deviations [..., A], both before tanh."""
        both = ReLUNet(2 * self.features, self.widths)(inputs)
        mean, log_std = jnp.split(both, 2, axis=-1)
        return mean, jnp.exp(jnp.clip(log_std, self.min_log_std, self.max_log_std))
