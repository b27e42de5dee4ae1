import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.data.kmeans import kmeans, nearest, seed


def blobs(count=300, *, std=0.01):
    centers = jnp.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0], [5.0, 5.0]])
    label = jnp.arange(count) % 4
    noise = std * jax.random.normal(jax.random.key(0), (count, 2))
    return centers[label] + noise, label


@pytest.mark.parametrize("key", range(4))
def test_finds_the_means_of_distant_blobs(key):
    points, label = blobs()
    centers = kmeans(jax.random.key(key), points, 4, iterations=5)
    means = jnp.stack([points[label == i].mean(0) for i in range(4)])
    order = nearest(means, centers)
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    np.testing.assert_allclose(centers[order], means, atol=1e-4)


def test_seeds_are_points_drawn_by_squared_distance():
    # From the origin one centre is left to draw: 1 or 3 away, 1 to 9.
    points = jnp.array([[0.0]] * 1000 + [[1.0], [-3.0]])
    keys = jax.random.split(jax.random.key(0), 2000)
    second = jax.vmap(lambda key: seed(key, points, 2)[1, 0])(keys)
    assert float((second == -3).mean()) == pytest.approx(0.9, abs=0.03)
    assert float((second == 1).mean()) == pytest.approx(0.1, abs=0.03)


def test_equal_points_leave_centres_where_they_are():
    centers = kmeans(jax.random.key(0), jnp.full((5, 2), 7.0), 3)
    np.testing.assert_array_equal(centers, 7.0)


def test_the_cost_never_grows():
    points = jax.random.normal(jax.random.key(1), (200, 3))

    def cost(iterations):
        centers = kmeans(jax.random.key(2), points, 6, iterations=iterations)
        return float(jnp.square(points - centers[nearest(points, centers)]).sum())

    costs = [cost(n) for n in (0, 1, 3, 10, 30)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 0.9 * costs[0]
