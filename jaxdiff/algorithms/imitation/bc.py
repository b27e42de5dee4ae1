"""Behaviour cloning without diffusion: what a network can say in one go.

The baselines that every planner and every diffusion policy has to beat, on the same
networks (Pearce et al., 2023, arXiv:2301.10677): the noisy action and the time that
those take are zero here (except the action in (6)), and only outputs f and loss differ.
With actions in [-1, 1]:

(1) mse: |f - a|^2, whose answer is the mean action, between two ways where people
    take either;
(2) discretised: each dimension falls into one of 20 bins, softmax and cross-entropy
    over them; dimensions are drawn on their own, so that ways get mixed;
(3) gaussian: mean and variance of each dimension, by likelihood;
(4) kmeans: softmax over the K centres of the dataset's actions;
(5) kmeans-residual: also an offset to each centre, 100 |f - (a - centre)|^2 for the
    one that is nearest to a (after Shafiullah et al., "Behavior transformers", 2022);
(6) energy: f(a) is an energy, low where people act. It is learned by telling a from N
    actions a_j drawn uniformly (Florence et al., "Implicit behavioral cloning", 2021),

    -log [exp(-f(a)) / (exp(-f(a)) + sum_j exp(-f(a_j)))],

    whose least is f = -log p(a|o) + c(o). In acting, candidates are drawn uniformly,
    and again, in rounds, by softmax(-f) with ever smaller noise, after that paper's
    search without derivatives; the one of least energy acts.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm
from jaxdiff.algorithms.imitation import policy as cloning
from jaxdiff.algorithms.imitation.policy import (
    CloningConfig,
    DenoiseHalf,
    Head,
    decided,
)
from jaxdiff.algorithms.offline.best_of_n import choose
from jaxdiff.data.episodes import Episodes
from jaxdiff.data.kmeans import kmeans, nearest
from jaxdiff.data.normalizer import normalize
from jaxdiff.errors import UserError
from jaxdiff.options import check_options
from jaxdiff.pytree import pytree_dataclass

# Of more actions than this the centres are found from an even selection.
_ENOUGH_ACTIONS = 50_000

# Of equation (6): deviations of the noise that candidates move by, one a round, 0.33
# and then half of it as published, where the last round adds none.
_ROUNDS = (0.33, 0.165, 0.0825)


@dataclasses.dataclass(frozen=True)
class BCConfig(CloningConfig):
    """Options of behaviour cloning, beside those of all that imitate.

    Attributes:
      kind: "mse", "discretised", "gaussian", "kmeans", "kmeans-residual" or "energy".
      bins: of each dimension, for "discretised".
      clusters: K.
      residual_weight: of the squared error of the offset, for "kmeans-residual".
      negatives: N, uniform actions beside each of the data, for "energy"; an update
        reads N + 1 times as many actions as those of the other kinds.
      candidates: actions that are searched among, for "energy".
    """

    network: Literal["mlp", "sieve", "transformer"] = "mlp"
    kind: Literal[
        "mse", "discretised", "gaussian", "kmeans", "kmeans-residual", "energy"
    ] = "mse"
    bins: int = 20
    clusters: int = 10
    residual_weight: float = 100.0
    negatives: int = 256
    candidates: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one = dict.fromkeys(("bins", "clusters", "negatives", "candidates"), 1)
        check_options(self, **at_least_one, residual_weight=0)


@pytree_dataclass
class Statistics(cloning.Statistics):
    """What acting must know of the dataset.

    Attributes:
      centers: `[K, A]` of its actions, normalised; K is 0 for kinds without.
    """

    centers: jax.Array


def measure(config: BCConfig, train: Episodes) -> Statistics:
    """Measure a dataset: its normalizers, and the centres of its actions.

    Raises:
      UserError: as in `cloning.measure`, or fewer actions than centres.
    """
    found = cloning.measure(config, train)
    actions = normalize(found.actions, decided(config, train))
    centers = actions[:0]
    if config.kind in ("kmeans", "kmeans-residual"):
        if len(actions) < config.clusters:
            raise UserError(
                f"--clusters is {config.clusters} and the dataset has {len(actions)} "
                "actions; ask for no more clusters than actions"
            )
        chosen = actions[:: -(-len(actions) // _ENOUGH_ACTIONS)]
        centers = kmeans(jax.random.key(0), chosen, config.clusters)
    return Statistics(inputs=found.inputs, actions=found.actions, centers=centers)


def bc(config: BCConfig, statistics: Statistics, *, action_dim: int) -> Algorithm:
    """Build behaviour cloning for a dataset.

    Args:
      config: options.
      statistics: of the dataset, from `measure`.
      action_dim: A.

    Returns:
      An algorithm with the learner "policy".
    """
    head = {
        "mse": lambda: squared_error(action_dim),
        "discretised": lambda: discretised(action_dim, config.bins),
        "gaussian": lambda: gaussian(action_dim),
        "kmeans": lambda: clustered(statistics.centers),
        "kmeans-residual": lambda: clustered(
            statistics.centers, residual_weight=config.residual_weight
        ),
        "energy": lambda: energy(
            action_dim, negatives=config.negatives, candidates=config.candidates
        ),
    }[config.kind]()
    return cloning.cloning(config, statistics, head)


def squared_error(action_dim: int) -> Head:
    """Build equation (1)."""
    return _direct(
        action_dim,
        action_dim,
        lambda output, actions: jnp.square(output - actions).mean(-1),
        lambda key, output: output,
    )


def discretised(action_dim: int, bins: int) -> Head:
    """Build equation (2)."""

    def loss(output, actions):
        index = jnp.floor((actions + 1) / 2 * bins).astype(jnp.int32)
        logits = output.reshape(*actions.shape, bins)
        # The upper end of [-1, 1] belongs to the last bin.
        return _cross_entropy(logits, jnp.clip(index, 0, bins - 1)).sum(-1)

    def act(key, output):
        logits = output.reshape(len(output), action_dim, bins)
        chosen = jax.random.categorical(key, logits)
        return (chosen + 0.5) * 2 / bins - 1

    return _direct(action_dim, action_dim * bins, loss, act)


def gaussian(action_dim: int) -> Head:
    """Build equation (3)."""

    def moments(output):
        mean, spread = jnp.split(output, 2, axis=-1)
        # The floor prevents log 0 where a dimension never changes.
        return mean, jax.nn.softplus(spread) + 1e-6

    def loss(output, actions):
        mean, variance = moments(output)
        return (jnp.log(variance) + jnp.square(actions - mean) / variance).sum(-1) / 2

    def act(key, output):
        mean, variance = moments(output)
        return mean + jnp.sqrt(variance) * jax.random.normal(key, mean.shape)

    return _direct(action_dim, 2 * action_dim, loss, act)


def clustered(centers: jax.Array, *, residual_weight: float | None = None) -> Head:
    """Build equation (4), or (5) with the weight of the offsets' error.

    Args:
      centers: `[K, A]`.
      residual_weight: None for centres alone.
    """
    centers = jnp.asarray(centers)
    count, action_dim = centers.shape
    features = count if residual_weight is None else count * (1 + action_dim)

    def offset(output, chosen):
        offsets = output[:, count:].reshape(-1, count, action_dim)
        return jnp.take_along_axis(offsets, chosen[:, None, None], axis=1)[:, 0]

    def loss(output, actions):
        cluster = nearest(actions, centers)
        cost = _cross_entropy(output[:, :count], cluster)
        if residual_weight is None:
            return cost
        error = offset(output, cluster) - (actions - centers[cluster])
        return cost + residual_weight * jnp.square(error).mean(-1)

    def act(key, output):
        chosen = jax.random.categorical(key, output[:, :count])
        found = centers[chosen]
        return found if residual_weight is None else found + offset(output, chosen)

    return _direct(action_dim, features, loss, act)


def energy(action_dim: int, *, negatives: int, candidates: int) -> Head:
    """Build equation (6).

    Args:
      action_dim: A.
      negatives: N.
      candidates: actions that are searched among.
    """

    def energies(denoise: DenoiseHalf, embedding: jax.Array, actions: jax.Array):
        """Give those of actions `[B, M, A]`, `[B, M]`."""
        batch, many, _ = actions.shape
        seen = jnp.repeat(embedding, many, axis=0)
        flat = actions.reshape(batch * many, action_dim)
        return denoise(seen, flat, jnp.zeros(len(flat))).reshape(batch, many)

    def loss(keys, denoise, embedding, actions):
        def uniform(key):
            return jax.random.uniform(key, (negatives, action_dim), minval=-1)

        many = jnp.concatenate([actions[:, None], jax.vmap(uniform)(keys)], axis=1)
        found = energies(denoise, embedding, many)
        return _cross_entropy(-found, jnp.zeros(len(actions), jnp.int32))

    def act(key, denoise, embedding):
        batch = len(embedding)
        shape = (batch, candidates, action_dim)
        first, key = jax.random.split(key)

        def search(tried, given):
            key, std = given
            key, noise_key = jax.random.split(key)
            logits = -energies(denoise, embedding, tried)
            chosen = jax.random.categorical(key, logits, shape=(candidates, batch))
            kept = jnp.take_along_axis(tried, chosen.T[..., None], axis=1)
            moved = kept + std * jax.random.normal(noise_key, shape)
            return jnp.clip(moved, -1, 1), None

        tried = jax.random.uniform(first, shape, minval=-1)
        rounds = jax.random.split(key, len(_ROUNDS)), jnp.array(_ROUNDS)
        tried, _ = jax.lax.scan(search, tried, rounds)
        return choose(key, tried, -energies(denoise, embedding, tried), best=True)

    return Head(1, loss, act)


def _direct(
    action_dim: int,
    features: int,
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    act: Callable[[jax.Array, jax.Array], jax.Array],
) -> Head:
    """Build the head of one output, whose action and time are zero."""

    def read(denoise, embedding):
        batch = len(embedding)
        return denoise(embedding, jnp.zeros((batch, action_dim)), jnp.zeros(batch))

    return Head(
        features,
        lambda keys, denoise, embedding, actions: loss(
            read(denoise, embedding), actions
        ),
        lambda key, denoise, embedding: act(key, read(denoise, embedding)),
    )


def _cross_entropy(logits: jax.Array, index: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, index)
