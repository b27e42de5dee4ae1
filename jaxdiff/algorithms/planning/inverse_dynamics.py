"""Inverse dynamics: the action that leads from one state to the next.

Acting on a plan of states alone needs the action between two of them (Ajay et al., "Is
conditional generative modeling all you need for decision making?", 2023,
arXiv:2211.15657, equation 6). With normalised states and actions in [-1, 1], over the
transitions of a dataset:

(1) direct: min_f E |a - f(s, s')|^2 / A, the mean action where several lead there;
(2) autoregressive: each dimension falls into one of 80 bins, given the dimensions
    before it; cross-entropy in nats, summed over dimensions; drawn uniformly within a
    drawn bin.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import ArrayTree, Learner, supervised
from jaxdiff.data.episodes import Episodes, acted_rows
from jaxdiff.data.normalizer import Normalizer, normalize, unnormalize
from jaxdiff.diffusion import split_keys
from jaxdiff.networks import AutoregressiveBins, ReLUNet
from jaxdiff.pytree import pytree_dataclass


@pytree_dataclass
class Moves:
    """N transitions on the device, normalised.

    Attributes:
      before: `[N, O]`, the states.
      after: `[N, O]`, the states one step later.
      actions: `[N, A]`, in [-1, 1].
    """

    before: jax.Array
    after: jax.Array
    actions: jax.Array


class Inverse(NamedTuple):
    """A model of the action; all functions are pure.

    Attributes:
      init: `(key, pair [B, 2 O]) -> params`.
      loss: `(params, pair [B, 2 O], actions [B, A]) -> [B]`.
      act: `(params, keys [B], pair [B, 2 O]) -> actions [B, A]`, in [-1, 1] up to the
        model's error.
    """

    init: Callable[..., ArrayTree]
    loss: Callable[..., jax.Array]
    act: Callable[..., jax.Array]


def direct(action_dim: int, widths: Sequence[int]) -> Inverse:
    """Build equation (1).

    Args:
      action_dim: A.
      widths: of the hidden layers; none for a linear model.
    """
    network: Any = ReLUNet(action_dim, tuple(widths))

    def loss(params, pair, actions):
        return jnp.square(network.apply(params, pair) - actions).mean(-1)

    return Inverse(
        init=network.init,
        loss=loss,
        act=lambda params, keys, pair: network.apply(params, pair),
    )


def autoregressive(
    action_dim: int, *, hidden: int = 256, depth: int = 3, bins: int = 80
) -> Inverse:
    """Build equation (2).

    Args:
      action_dim: A.
      hidden: width of all hidden layers.
      depth: hidden layers that read the states.
      bins: of each dimension.
    """
    network: Any = AutoregressiveBins(bins=bins, hidden=hidden, depth=depth)

    def init(key, pair):
        return network.init(key, pair, jnp.zeros((len(pair), action_dim)))

    def loss(params, pair, actions):
        index = jnp.floor((actions + 1) / 2 * bins).astype(jnp.int32)
        # The upper end of [-1, 1] belongs to the last bin.
        return optax.softmax_cross_entropy_with_integer_labels(
            network.apply(params, pair, actions), jnp.clip(index, 0, bins - 1)
        ).sum(-1)

    def act(params, keys, pair):
        actions = jnp.zeros((len(pair), action_dim))
        for i, keys_i in enumerate(split_keys(keys, action_dim)):
            bin_keys, place_keys = split_keys(keys_i)
            logits = network.apply(params, pair, actions)[:, i]
            chosen = jax.vmap(jax.random.categorical)(bin_keys, logits)
            place = chosen + jax.vmap(jax.random.uniform)(place_keys)
            actions = actions.at[:, i].set(2 * place / bins - 1)
        return actions

    return Inverse(init=init, loss=loss, act=act)


def cut_moves(episodes: Episodes, states: Normalizer, actions: Normalizer) -> Moves:
    """Cut episodes into normalised transitions.

    Args:
      episodes: the episodes.
      states: normalizer of observations.
      actions: normalizer of actions to [-1, 1].
    """
    rows = acted_rows(episodes)
    before, after = (
        normalize(states, episodes.observations[rows + step]) for step in (0, 1)
    )
    return Moves(
        before=before,
        after=after,
        actions=normalize(actions, episodes.actions[rows]),
    )


def actions_between(
    inverse: Inverse, states: Normalizer, actions: Normalizer
) -> Callable[..., jax.Array]:
    """Build `(learners' states, keys [N], before [N, O], after [N, O]) -> [N, A]`.

    It reads the averaged parameters of the learner "inverse", in environment units.
    Other arguments are those of `cut_moves`.
    """

    def act(learned, keys, before, after):
        pair = [normalize(states, each) for each in (before, after)]
        params = learned["inverse"].slow["ema"]
        found = inverse.act(params, keys, jnp.concatenate(pair, axis=-1))
        return unnormalize(actions, found)

    return act


def inverse_learner(
    inverse: Inverse,
    cut: Callable[[Episodes], Moves],
    optimizer: optax.GradientTransformation,
    **descent: Any,
) -> Learner:
    """Build the learner of a model of the action.

    Args:
      inverse: the model.
      cut: gives the transitions of episodes, normalised.
      optimizer: of the parameters.
      **descent: keywords of `supervised`, such as `averaging`.
    """

    def prepare(data, frozen, key):
        del frozen, key
        return cut(data)

    def draw(data, key):
        index = jax.random.randint(key, (), 0, data.actions.shape[0])
        return jax.tree.map(lambda leaf: leaf[index], data)

    def pair(batch):
        return jnp.concatenate([batch.before, batch.after], axis=-1)

    def loss(params, keys, batch):
        mean = inverse.loss(params, pair(batch), batch.actions).mean()
        return mean, {"loss": mean}

    return supervised(
        prepare,
        draw,
        lambda key, batch: inverse.init(key, pair(batch)[:1]),
        [loss],
        optimizer,
        **descent,
    )
