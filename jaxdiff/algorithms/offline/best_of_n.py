"""Acting by choice: of several actions that a model draws, one that a critic prefers.

Of N actions a_i drawn in one state, with logits l_i of what a critic says of them,

(1) "best":   argmax_i l_i
(2) otherwise one drawn with the probabilities softmax(l)_i.

With l = beta Q, (2) draws from mu(a|s) exp(beta Q(s, a)) / Z as N grows, mu being the
model: importance resampling, the way to act of SfBC (Chen et al., 2023,
arXiv:2209.14548), Diffusion-QL and, with (1), of IDQL and BCQ.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.algorithms.base import ActOutput
from jaxdiff.algorithms.offline.common import Statistics
from jaxdiff.data.normalizer import normalize, unnormalize
from jaxdiff.data.transitions import beside


def choose(
    key: jax.Array, actions: jax.Array, logits: jax.Array, *, best: bool
) -> jax.Array:
    """Choose an action in each state, equations (1) and (2).

    Args:
      key: consumed.
      actions: `[B, N, A]`.
      logits: `[B, N]`.
      best: take the action of the highest logit; the first of equals wins.

    Returns:
      `[B, A]`.
    """
    picked = logits.argmax(-1) if best else jax.random.categorical(key, logits)
    return jax.vmap(lambda row, i: row[i])(actions, picked)


def choosing(
    draw: Callable[..., jax.Array],
    value: Callable[..., jax.Array],
    statistics: Statistics,
    *,
    candidates: int,
    best: bool,
) -> Callable[..., tuple[ActOutput, Any]]:
    """Build an `act` that draws candidates and chooses among them.

    Args:
      draw: `(states, key, inputs [B, S]) -> actions [B, A]`, normalised, `states` being
        those of the learners.
      value: `(states, inputs [B, S], actions [B, A]) -> logits [B]`.
      statistics: of the dataset.
      candidates: N.
      best: as in `choose`.
    """

    def act(states, carry, key, observation, reset, goal=None):
        del reset
        inputs = beside(observation, goal, statistics.inputs.low.shape[-1])
        inputs = normalize(statistics.inputs, inputs)
        draw_key, key = jax.random.split(key)
        many = jnp.repeat(inputs, candidates, axis=0)
        actions = draw(states, draw_key, many)
        shape = (len(inputs), candidates)
        logits = value(states, many, actions).reshape(shape)
        chosen = choose(key, actions.reshape(*shape, -1), logits, best=best)
        return ActOutput(action=unnormalize(statistics.actions, chosen)), carry

    return act
