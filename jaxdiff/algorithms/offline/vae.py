"""A behaviour model by a variational autoencoder, which BCQ and BEAR draw from.

With an encoder e and a decoder d, of actions a of the data in states s,

(1) min E [|tanh d(s, z) - a|^2 / A + weight KL(e(s, a) || N(0, I)) / Z],   z ~ e(s, a),

Z being the entries of z (Kingma & Welling, 2014, arXiv:1312.6114; Fujimoto et al. 2019,
arXiv:1812.02900, whose weight is 1/2). Draws decode z ~ N(0, I), clipped.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import ArrayTree, Averaging, Learner, supervised
from jaxdiff.algorithms.offline.common import zeros
from jaxdiff.data.transitions import Transitions, draw_transition

WEIGHT = 0.5
# Codes are drawn no further out, where the decoder has seen little.
CLIP = 0.5


def divergence(mean: jax.Array, std: jax.Array) -> jax.Array:
    """KL of normals `[..., Z]` to N(0, I), a mean over entries: `[...]`."""
    return (mean**2 + std**2 - 1 - 2 * jnp.log(std)).mean(-1) / 2


def vae_learner(
    network: Any,
    prepare: Callable[..., Transitions],
    optimizer: optax.GradientTransformation,
) -> Learner:
    """Build the learner of equation (1).

    Args:
      network: such as `ActionVAE`.
      prepare: as in a `Learner`.
      optimizer: of the parameters.
    """

    def loss(params, keys, batch):
        mean, std = network.apply(params, batch.inputs, batch.actions, method="encode")
        noise = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
        code = mean + std * noise
        found = jnp.tanh(network.apply(params, batch.inputs, code, method="decode"))
        error = jnp.square(found - batch.actions).mean()
        apart = divergence(mean, std).mean()
        total = error + WEIGHT * apart
        return total, {"loss": total, "error": error, "divergence": apart}

    return supervised(
        prepare,
        draw_transition,
        lambda key, batch: network.init(key, *zeros(batch)),
        [loss],
        optimizer,
        averaging=Averaging(0.0),
    )


def decode(
    network: Any, params: ArrayTree, inputs: jax.Array, normals: jax.Array
) -> jax.Array:
    """Draw actions `[B, A]`, before tanh, by standard normal numbers `[B, 2 A]`."""
    code = jnp.clip(normals, -CLIP, CLIP)
    return network.apply(params, inputs, code, method="decode")
