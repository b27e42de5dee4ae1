"""Best-of-n acting: draw several actions from a model, and let a critic choose one.

Given N actions a_i drawn in one state, and a logit l_i of each from a critic, choose

(1) the action of the highest logit, or
(2) an action at random with the probabilities softmax(l)_i.

With l = beta Q, (2) draws from mu(a|s) exp(beta Q(s, a)) / Z as N grows, mu being the
model. This importance resampling is how SfBC (Chen et al., 2023, arXiv:2209.14548) and
Diffusion-QL act; IDQL and BCQ act by (1).
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.algorithms.base import ActOutput
from jaxdiff.algorithms.offline.common import Statistics, policy_inputs, with_guidance
from jaxdiff.data.normalizer import unnormalize
from jaxdiff.diffusion import repeat_keys, split_keys
from jaxdiff.options import Options, at_least


@dataclasses.dataclass(frozen=True)
class BestOfN(Options):
    """How candidates are drawn.

    Attributes:
      candidates: actions drawn in each step; a critic chooses one of them.
      noise: factor of all noise; 0 makes all candidates equal.
    """

    candidates: int = 1
    noise: float = 1.0

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 1, "candidates")
        yield from at_least(self, 0, "noise")


def choose(
    keys: jax.Array, actions: jax.Array, logits: jax.Array, *, best: bool
) -> jax.Array:
    """Choose an action in each state, by equation (1) or (2).

    Args:
      keys: `[B]`, consumed.
      actions: `[B, N, A]`.
      logits: `[B, N]`.
      best: take the action of the highest logit, the first of equal ones.

    Returns:
      `[B, A]`.
    """
    draw = jax.vmap(jax.random.categorical)
    picked = logits.argmax(-1) if best else draw(keys, logits)
    return jax.vmap(lambda row, i: row[i])(actions, picked)


def best_of_n(
    sample: Callable[..., jax.Array],
    value: Callable[..., jax.Array],
    statistics: Statistics,
    acting: BestOfN,
    *,
    best: bool = True,
) -> Callable[..., tuple[ActOutput, Any]]:
    """Build the `act` that draws candidates and chooses one.

    Args:
      sample: `(states, keys [B], inputs [B, S], options) -> actions [B, A]`,
        normalised. `states` are those of the learners; `options` has the acting options
        as attributes, with arrays of `guidance` in place of some of them.
      value: `(states, inputs [B, S], actions [B, A], options) -> logits [B]`.
      statistics: of the dataset.
      acting: options; N is `candidates`.
      best: as in `choose`.
    """
    count = acting.candidates

    def act(states, carry, keys, observation, reset, goal=None, guidance=None):
        del reset
        options = with_guidance(acting, guidance)
        sample_keys, choice_keys = split_keys(keys)
        inputs = policy_inputs(statistics, observation, goal)
        many = jnp.repeat(inputs, count, axis=0)
        actions = sample(states, repeat_keys(sample_keys, count), many, options)
        logits = value(states, many, actions, options).reshape(-1, count)
        actions = actions.reshape(*logits.shape, -1)
        chosen = choose(choice_keys, actions, logits, best=best)
        return ActOutput(action=unnormalize(statistics.actions, chosen)), carry

    return act
