"""What behaviour cloning learns and how it acts: six heads without diffusion.

These are the baselines of diffusion policies, with the same networks (Pearce et al.,
2023, arXiv:2301.10677). The networks' noisy action and time are zero here, except the
action in (6); the kinds differ in the output f and in the loss. Actions are in [-1, 1].

(1) mse: |f - a|^2. The best answer is the mean action, also between two modes.
(2) discretised: each dimension falls into one of 20 bins; cross-entropy of their
    softmax. Dimensions are sampled independently, which mixes modes.
(3) gaussian: the mean and the variance of each dimension; log-likelihood.
(4) kmeans: softmax over K cluster centres of the dataset's actions.
(5) kmeans-residual: (4) and an offset for each centre, with the loss
    100 |f - (a - centre)|^2 for the centre nearest to a (after Shafiullah et al.,
    "Behavior transformers", 2022).
(6) energy: f(a) is an energy. The loss tells a from N uniform actions a_j (Florence et
    al., "Implicit behavioral cloning", 2021),

    -log [exp(-f(a)) / (exp(-f(a)) + sum_j exp(-f(a_j)))],

    and is least at f = -log p(a|o) + c(o). Acting draws uniform candidates, resamples
    them by softmax(-f) with shrinking noise for a few rounds, as that paper's search
    without derivatives does, and executes the one of least energy.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.imitation.policy import Head, Prepare
from jaxdiff.data.kmeans import nearest
from jaxdiff.diffusion import normal, split_keys

# Standard deviations of the noise in equation (6), one for each round. The paper
# starts with 0.33 and halves it; its last round adds none.
_ROUNDS = (0.33, 0.165, 0.0825)


def squared_error(action_dim: int) -> Head:
    """Build equation (1)."""
    return _direct(
        action_dim,
        action_dim,
        lambda output, actions: jnp.square(output - actions).mean(-1),
        lambda keys, output: output,
    )


def discretised(action_dim: int, bins: int) -> Head:
    """Build equation (2)."""

    def loss(output, actions):
        index = jnp.floor((actions + 1) / 2 * bins).astype(jnp.int32)
        logits = output.reshape(*actions.shape, bins)
        # The upper end of [-1, 1] belongs to the last bin.
        return _cross_entropy(logits, jnp.clip(index, 0, bins - 1)).sum(-1)

    def act(keys, output):
        logits = output.reshape(len(output), action_dim, bins)
        chosen = jax.vmap(jax.random.categorical)(keys, logits)
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

    def act(keys, output):
        mean, variance = moments(output)
        return mean + jnp.sqrt(variance) * normal(keys, mean.shape)

    return _direct(action_dim, 2 * action_dim, loss, act)


def clustered(centers: jax.Array, *, residual_weight: float | None = None) -> Head:
    """Build equation (4), or (5) where offsets have a weight.

    Args:
      centers: `[K, A]`.
      residual_weight: weight of the squared error of offsets; None for no offsets.
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

    def act(keys, output):
        chosen = jax.vmap(jax.random.categorical)(keys, output[:, :count])
        found = centers[chosen]
        return found if residual_weight is None else found + offset(output, chosen)

    return _direct(action_dim, features, loss, act)


def energy(action_dim: int, *, negatives: int, candidates: int) -> Head:
    """Build equation (6).

    Args:
      action_dim: A.
      negatives: N.
      candidates: actions that the search compares.
    """

    def energies(prepare: Prepare, embedding: jax.Array, actions: jax.Array):
        """Compute the energies `[B, M]` of actions `[B, M, A]`."""
        batch, many, _ = actions.shape
        seen = jnp.repeat(embedding, many, axis=0)
        flat = actions.reshape(batch * many, action_dim)
        network, told = prepare(seen, jnp.zeros(len(flat)))
        return network(flat, told).reshape(batch, many)

    def uniform(keys, count):
        shape = (count, action_dim)
        return jax.vmap(lambda key: jax.random.uniform(key, shape, minval=-1))(keys)

    def loss(keys, prepare, embedding, actions):
        many = jnp.concatenate([actions[:, None], uniform(keys, negatives)], axis=1)
        found = energies(prepare, embedding, many)
        return _cross_entropy(-found, jnp.zeros(len(actions), jnp.int32))

    def act(keys, prepare, embedding):
        first, keys = split_keys(keys)

        def search(tried, given):
            keys, std = given
            keys, noise_keys = split_keys(keys)
            logits = -energies(prepare, embedding, tried)
            chosen = jax.vmap(
                lambda key, row: jax.random.categorical(key, row, shape=(candidates,))
            )(keys, logits)
            kept = jnp.take_along_axis(tried, chosen[..., None], axis=1)
            moved = kept + std * normal(noise_keys, tried.shape)
            return jnp.clip(moved, -1, 1), None

        rounds = split_keys(keys, len(_ROUNDS)), jnp.array(_ROUNDS)
        tried, _ = jax.lax.scan(search, uniform(first, candidates), rounds)
        best = energies(prepare, embedding, tried).argmin(-1)
        return jnp.take_along_axis(tried, best[:, None, None], axis=1)[:, 0]

    return Head(1, loss, act)


def _direct(
    action_dim: int,
    features: int,
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    act: Callable[[jax.Array, jax.Array], jax.Array],
) -> Head:
    """Build a head that reads the network once, with a zero action and time."""

    def read(prepare, embedding):
        batch = len(embedding)
        network, told = prepare(embedding, jnp.zeros(batch))
        return network(jnp.zeros((batch, action_dim)), told)

    return Head(
        features,
        lambda keys, prepare, embedding, actions: loss(
            read(prepare, embedding), actions
        ),
        lambda keys, prepare, embedding: act(keys, read(prepare, embedding)),
    )


def _cross_entropy(logits: jax.Array, index: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, index)
