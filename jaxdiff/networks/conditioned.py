"""A denoiser of trajectories that may be told what to make: conditions, and dropping.

A condition y, a vector (a return, a one-hot skill or constraint), is embedded,

    e = W_3 mish(W_2 mish(W_1 y)),   widths d, 4 d, d,                               (1)

and joins the noise level's embedding in any network of trajectories. What is dropped in
training, and left out in sampling without the condition, is e and not y (Ajay et al.,
"Is conditional generative modeling all you need for decision making?", 2023, and their
released code): no condition is the embedding 0, so that a return of 0 is still one.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdiff.networks.temporal_conv import Linear, mish


class Conditioned(nn.Module):
    """A network of trajectories with a condition beside the noise level.

    Attributes:
      network: `(x [B, H, D], time [B], embedding [B, dim]) -> [B, H, D]`, such as
        `TemporalUNet` or `DiT`.
      dim: d of equation (1).
    """

    network: Any
    dim: int

    @nn.compact
    def __call__(
        self, x: jax.Array, time: jax.Array, condition: jax.Array, keep: jax.Array
    ) -> jax.Array:
        """Denoise with a condition, or without.

        Args:
          x: [B, H, D] noised trajectories.
          time: [B] integers or floats.
          condition: [B, C].
          keep: [B] boolean, false where the condition is dropped.

        Returns:
          [B, H, D].
        """
        hidden = mish(Linear(self.dim)(condition))
        embedding = Linear(self.dim)(mish(Linear(4 * self.dim)(hidden)))
        return self.network(x, time, jnp.where(keep[:, None], embedding, 0.0))
