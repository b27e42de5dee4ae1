"""The plain network of imitation: dense layers with GELU between them.

Pearce et al., "Imitating human behaviour with diffusion models", 2023, call it the
basic MLP: three hidden layers of 512. GELU: Hendrycks & Gimpel, 2016.
"""

from collections.abc import Sequence

import jax
from flax import linen as nn

from jaxdiff.networks.temporal_conv import Linear


class MLP(nn.Module):
    """Dense layers with GELU between them.

    Attributes:
      features: outputs.
      widths: of the hidden layers.
    """

    features: int
    widths: Sequence[int] = (512, 512, 512)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [..., C] to [..., features]."""
        for width in self.widths:
            x = jax.nn.gelu(Linear(width)(x), approximate=False)
        return Linear(self.features)(x)
