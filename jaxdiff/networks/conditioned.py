"""Conditions for denoisers of trajectories, and dropping them.

A condition y is a vector: a return, a one-hot skill or constraint. It is embedded,

    e = W_3 mish(W_2 mish(W_1 y)),   widths d, 4 d, d,                               (1)

and e joins the embedding of the noise level in any network of trajectories. Training
drops the condition now and then, and sampling without a condition does so throughout:
the embedding is then 0. Dropping e instead of y keeps a return of 0 distinct from no
return (Ajay et al., "Is conditional generative modeling all you need for decision
making?", 2023, and their released code).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdiff.networks.layers import Linear, mish


class Conditioned(nn.Module):
    """A network of trajectories that also takes a condition.

    Attributes:
      network: `(x [B, H, D], time [B], embedding [B, dim]) -> [B, H, D]`, such as
        `TemporalUNet` or `DiT`.
      dim: d of equation (1).
    """

    network: Any
    dim: int

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        condition: jax.Array,
        keep: jax.Array,
        **options: Any,
    ) -> jax.Array:
        """Denoise, with the condition where `keep` is true.

        Args:
          x: [B, H, D] noised trajectories.
          time: [B] integers or floats.
          condition: [B, C].
          keep: [B] bool, false where the condition is dropped.
          **options: what else the network takes, such as `length`.

        Returns:
          [B, H, D].
        """
        hidden = mish(Linear(self.dim)(condition))
        embedding = Linear(self.dim)(mish(Linear(4 * self.dim)(hidden)))
        return self.network(
            x, time, jnp.where(keep[:, None], embedding, 0.0), **options
        )
