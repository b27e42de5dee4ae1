"""A variational autoencoder of the behaviour, from which BCQ and BEAR draw actions.

With an encoder e and a decoder d of the actions a that the data hold in states s,

(1) min E [|tanh d(s, z) - a|^2 / A + weight KL(e(s, a) || N(0, I)) / Z],   z ~ e(s, a),

where z has Z entries (Kingma & Welling, 2014, arXiv:1312.6114; Fujimoto et al., 2019,
arXiv:1812.02900, with a weight of 1/2). Actions are drawn by decoding z ~ N(0, I),
clipped to [-1/2, 1/2].
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import ArrayTree, Averaging, Learner, supervised
from jaxdiff.algorithms.offline.common import zeros
from jaxdiff.data.transitions import Transitions, draw_transition
from jaxdiff.diffusion import normal

WEIGHT = 0.5
# Codes are clipped because the decoder sees few large ones in training.
CLIP = 0.5


def divergence(mean: jax.Array, std: jax.Array) -> jax.Array:
    """Return KL(N(mean, std^2) || N(0, I)) of `[..., Z]`, averaged over Z: `[...]`."""
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
        code = mean + std * normal(keys, mean.shape)
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
    network: Any, params: ArrayTree, inputs: jax.Array, noise: jax.Array
) -> jax.Array:
    """Decode standard normal noise `[B, 2 A]` to actions `[B, A]`, before tanh."""
    code = jnp.clip(noise, -CLIP, CLIP)
    return network.apply(params, inputs, code, method="decode")
