"""The score network of actions: residual dense blocks on [x_t | condition | time].

(1) features(t) = [sin(2 pi w t) | cos(2 pi w t)],   w ~ N(0, 30^2), never trained
    [Tancik et al. 2020, arXiv:2006.10739; Song et al. 2021, arXiv:2011.13456]
(2) time(t) = W2 mish(W1 features(t))
(3) x <- x + V2 mish(V1 LayerNorm(dropout(x)))
    [Hansen-Estruch et al. 2023, arXiv:2304.10573: the LN-ResNet of IDQL]

The defaults give the network of SRPO (Chen et al., 2024, arXiv:2310.07297). A block
widens its layers fourfold.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxdiff.networks.layers import Linear, fourier_features, mish

# Constants, not parameters: every run uses the same frequencies.
FREQUENCIES: tuple[float, ...] = tuple(
    (30 * np.random.default_rng(0).standard_normal(32)).tolist()
)


class ScoreMLP(nn.Module):
    """Residual score network for vectors, such as actions.

    Attributes:
      features: entries of x_t and of the output.
      width: width of the residual stream.
      blocks: residual blocks, equation (3).
      time_width: width of the two layers of equation (2).
      dropout: share of the stream that training hides from each block.
      frequencies: w of equation (1).
    """

    features: int
    width: int = 256
    blocks: int = 3
    time_width: int = 128
    dropout: float = 0.1
    frequencies: Sequence[float] = FREQUENCIES

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        condition: jax.Array,
        keys: jax.Array | None = None,
    ) -> jax.Array:
        """Predict the target it was trained for, such as the noise.

        Args:
          x: `[B, features]`, x_t.
          time: `[B]`.
          condition: `[B, C]`.
          keys: `[B]` keys of dropout, one for each example, so that the mask does not
            depend on how devices split the batch; None for no dropout.

        Returns:
          `[B, features]`.
        """
        waves = fourier_features(time, self.frequencies)
        time = Linear(self.time_width)(mish(Linear(self.time_width)(waves)))
        h = Linear(self.width)(jnp.concatenate([x, condition, time], axis=-1))
        kept = self._kept(keys)
        for i in range(self.blocks):
            # No rescaling by 1 / (1 - dropout): LayerNorm removes the scale.
            inner = h if kept is None else h * kept[:, i]
            inner = nn.LayerNorm(epsilon=1e-5)(inner)
            h = h + Linear(self.width)(mish(Linear(4 * self.width)(inner)))
        return Linear(self.features)(mish(h))

    def _kept(self, keys: jax.Array | None) -> jax.Array | None:
        """Draw the mask of dropout, `[B, blocks, width]`; None keeps everything."""
        if keys is None or not self.dropout:
            return None
        shape = (self.blocks, self.width)
        return jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.dropout, shape))(
            keys
        )
