"""A variational autoencoder of actions, given the state (Kingma & Welling, 2014)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdiff.networks.layers import ReLUNet


class ActionVAE(nn.Module):
    """Encoder and decoder of actions, with a code of 2 A numbers.

    Attributes:
      features: A.
      widths: widths of the hidden layers of encoder and decoder.
      min_log_std: lower bound of the logarithm of the code's standard deviation.
      max_log_std: upper bound of the logarithm of the code's standard deviation.
    """

    features: int
    widths: Sequence[int] = (750, 750)
    min_log_std: float = -4.0
    max_log_std: float = 15.0

    def setup(self) -> None:
        """Make the encoder and the decoder."""
        self.encoder = ReLUNet(4 * self.features, self.widths)
        self.decoder = ReLUNet(self.features, self.widths)

    def encode(
        self, inputs: jax.Array, actions: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Map states [B, S] and actions [B, A] to the code's mean and std [B, 2 A]."""
        both = self.encoder(jnp.concatenate([inputs, actions], axis=-1))
        mean, log_std = jnp.split(both, 2, axis=-1)
        return mean, jnp.exp(jnp.clip(log_std, self.min_log_std, self.max_log_std))

    def decode(self, inputs: jax.Array, code: jax.Array) -> jax.Array:
        """Map states [B, S] and codes [B, 2 A] to actions [B, A], before tanh."""
        return self.decoder(jnp.concatenate([inputs, code], axis=-1))

    def __call__(self, inputs: jax.Array, actions: jax.Array) -> jax.Array:
        """Encode and decode; creates all parameters."""
        return self.decode(inputs, self.encode(inputs, actions)[0])
