"""K-means: K centres with a small squared distance to many points.

Lloyd's algorithm repeats (1) and (2). k-means++ (Arthur & Vassilvitskii, 2007) draws
the first centres from the points, one after another, by (3):

(1) each point belongs to its nearest centre;
(2) each centre moves to the mean of its points (one without points stays);
(3) p(x) is proportional to the squared distance of x to the nearest centre so far.
"""

import jax
import jax.numpy as jnp


def kmeans(
    key: jax.Array, points: jax.Array, num_centers: int, *, iterations: int = 100
) -> jax.Array:
    """Find K centres.

    Args:
      key: PRNG key of the first centres; consumed.
      points: `[N, D]`, with N at least K.
      num_centers: K.
      iterations: of (1) and (2).

    Returns:
      `[K, D]`.
    """

    def move(_, centers):
        member = jax.nn.one_hot(nearest(points, centers), num_centers)
        count = member.sum(0)[:, None]
        return jnp.where(count > 0, member.T @ points / jnp.maximum(count, 1), centers)

    return jax.lax.fori_loop(0, iterations, move, seed(key, points, num_centers))


def nearest(points: jax.Array, centers: jax.Array) -> jax.Array:
    """Return the index of the centre nearest to each point.

    Args:
      points: `[N, D]`.
      centers: `[K, D]`.

    Returns:
      `[N]`.
    """
    offsets = points[:, None] - centers
    return jnp.argmin(jnp.square(offsets).sum(-1), axis=-1)


def seed(key: jax.Array, points: jax.Array, num_centers: int) -> jax.Array:
    """Draw the first centres among the points, equation (3): `[K, D]`."""
    first, key = jax.random.split(key)

    def draw(i, carry):
        centers, distances = carry
        # If all distances are 0, all points are equally likely.
        logits = jnp.where(distances.max() > 0, jnp.log(distances), 0.0)
        point = points[jax.random.categorical(jax.random.fold_in(key, i), logits)]
        closer = jnp.minimum(distances, jnp.square(points - point).sum(-1))
        return centers.at[i].set(point), closer

    start = points[jax.random.randint(first, (), 0, len(points))]
    centers = jnp.zeros((num_centers, points.shape[-1])).at[0].set(start)
    distances = jnp.square(points - start).sum(-1)
    return jax.lax.fori_loop(1, num_centers, draw, (centers, distances))[0]
