"""Discretized actions, one dimension after the other.

The network predicts dimension i from the state and the dimensions before it. So it can
represent actions with several modes, which independent dimensions would mix (Ajay et
al., 2023, appendix).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdiff.networks.layers import ReLUNet


class AutoregressiveBins(nn.Module):
    """Logits of the bins of each dimension, given the dimensions before it.

    Attributes:
      bins: bins of each dimension.
      hidden: width of the hidden layers.
      depth: hidden layers that read the inputs; each dimension adds one.
    """

    bins: int = 80
    hidden: int = 256
    depth: int = 3

    @nn.compact
    def __call__(self, inputs: jax.Array, actions: jax.Array) -> jax.Array:
        """Map inputs [B, C] and actions [B, A] to logits [B, A, bins].

        The logits of dimension i depend on `inputs` and `actions[:, :i]` only.
        """
        h = ReLUNet(self.hidden, (self.hidden,) * self.depth)(inputs)
        logits = [
            ReLUNet(self.bins, (self.hidden,))(
                jnp.concatenate([jax.nn.relu(h), actions[:, :i]], axis=-1)
            )
            for i in range(actions.shape[-1])
        ]
        return jnp.stack(logits, axis=1)
