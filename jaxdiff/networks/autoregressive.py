"""Actions by bins, one dimension after the other.

Dimension i is told what those before it are, so that actions of several modes stay
whole where bins of independent dimensions would mix them (Ajay et al., 2023, appendix).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdiff.networks.critic import ReLUNet


class AutoregressiveBins(nn.Module):
    """Logits of the bins of each dimension, given the dimensions before it.

    Attributes:
      bins: of each dimension.
      hidden: width.
      depth: hidden layers that read the inputs; each dimension has one of its own.
    """

    bins: int = 80
    hidden: int = 256
    depth: int = 3

    @nn.compact
    def __call__(self, inputs: jax.Array, actions: jax.Array) -> jax.Array:
        """Map inputs [B, C] and actions [B, A] to logits [B, A, bins].

        The logits of dimension i depend on `actions[:, :i]` alone.
        """
        h = ReLUNet(self.hidden, (self.hidden,) * self.depth)(inputs)
        logits = [
            ReLUNet(self.bins, (self.hidden,))(
                jnp.concatenate([jax.nn.relu(h), actions[:, :i]], axis=-1)
            )
            for i in range(actions.shape[-1])
        ]
        return jnp.stack(logits, axis=1)
