"""A policy of the toy kitchen that does one task."""

import jax.numpy as jnp
import numpy as np

from jaxdiff.algorithms.base import ActOutput
from jaxdiff.tasks.kitchen import toy


def straight(states, carry, keys, observation, reset, goal=None, guidance=None):
    """Do one task of the toy kitchen: the first of `TASKS`."""
    handle = jnp.asarray(toy.HANDLES[0])
    end = jnp.asarray(toy.grips(np.full(7, 1.05))[0])
    # Whether the handle has been reached is carried along.
    near = jnp.linalg.norm(observation[:, :9] - handle, axis=-1) < 0.1
    carry = jnp.where(reset, 0.0, jnp.maximum(carry, near))
    target = jnp.where(carry[:, None] > 0, end, handle)
    move = (target - observation[:, :9]) / toy.STEP
    size = jnp.linalg.norm(move, axis=-1, keepdims=True)
    return ActOutput(action=move / jnp.maximum(size, 1)), carry
