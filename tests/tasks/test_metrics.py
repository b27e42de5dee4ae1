"""Distances between distributions, where the answer is known in closed form."""

import math

import numpy as np
import pytest

from jaxdiff.tasks import metrics

RNG = np.random.default_rng(0)


def gaussian(count, dim, mean=0.0, scale=1.0, seed=0):
    return mean + scale * np.random.default_rng(seed).standard_normal((count, dim))


def mean_distance(delta, scale):
    """E|z| of z ~ N(delta, scale^2), the folded normal distribution."""
    return scale * math.sqrt(2 / math.pi) * math.exp(
        -(delta**2) / (2 * scale**2)
    ) + delta * math.erf(delta / (scale * math.sqrt(2)))


@pytest.mark.parametrize(("delta", "s", "t"), [(0.0, 1.0, 2.0), (1.5, 1.0, 0.5)])
def test_energy_distance_of_two_gaussians(delta, s, t):
    exact = (
        2 * mean_distance(delta, math.hypot(s, t))
        - mean_distance(0, s * math.sqrt(2))
        - mean_distance(0, t * math.sqrt(2))
    )
    x = gaussian(2000, 1, 0.0, s, seed=1)
    y = gaussian(1500, 1, delta, t, seed=2)
    assert metrics.energy_distance(x, y) == pytest.approx(exact, rel=0.15)


def test_energy_distance_has_no_bias():
    found = [
        metrics.energy_distance(
            gaussian(12, 2, seed=2 * i), gaussian(9, 2, seed=2 * i + 1)
        )
        for i in range(600)
    ]
    # With means over all pairs, those of a point with itself too, it would be 0.3.
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(len(found))
    assert min(found) < 0


def test_energy_distance_of_two_points_each():
    x, y = [[0.0], [1.0]], [[3.0], [5.0]]
    # 2 * mean(3, 5, 2, 4) - 1 - 2
    assert metrics.energy_distance(x, y) == pytest.approx(2 * 3.5 - 1 - 2)
    with pytest.raises(ValueError, match=r"\[N, D\]"):
        metrics.energy_distance([1.0, 2.0], y)


def test_w1_of_a_shifted_set_is_the_shift():
    x = RNG.standard_normal(50)
    assert metrics.wasserstein(x, x + 2.5) == pytest.approx(2.5)
    assert metrics.wasserstein(x - 4, x) == pytest.approx(4)
    assert metrics.wasserstein(x, RNG.permutation(x)) == 0


def test_w1_of_sets_of_different_sizes():
    # Half of the mass at 0 goes to 1, a third of all of it on to 4 ...
    assert metrics.wasserstein([0, 0], [0, 1]) == pytest.approx(0.5)
    assert metrics.wasserstein([0.0], [1, 4, 4]) == pytest.approx(3.0)
    assert metrics.wasserstein([0, 2], [0, 1, 2]) == pytest.approx(1 / 3)


def test_w1_of_a_scaled_gaussian():
    # |s - t| E|z| for N(0, s^2) and N(0, t^2); the same z make it exact in the sample.
    z = np.random.default_rng(4).standard_normal(500)
    expected = 1.5 * np.abs(z).mean()
    assert metrics.wasserstein(z, 2.5 * z) == pytest.approx(expected)


def test_sliced_w1_of_a_shift_is_its_mean_projection():
    x = gaussian(40, 2, seed=5)
    shift = np.array([3.0, 4.0])
    # The mean of |cos| over the circle is 2 / pi.
    found = metrics.sliced_wasserstein(x, x + shift, directions=4000)
    assert found == pytest.approx(5 * 2 / math.pi, rel=0.02)
    on_a_line = metrics.sliced_wasserstein(x[:, :1], x[:, :1] + 3)
    assert on_a_line == pytest.approx(3)
    # It sees what the axes do not: the same marginals, another correlation.
    u = np.linspace(-1, 1, 101)
    same, other = np.stack([u, u], 1), np.stack([u, -u], 1)
    assert metrics.wasserstein(same[:, 1], other[:, 1]) == pytest.approx(0)
    assert metrics.sliced_wasserstein(same, other) > 0.3


def test_density_and_coverage_of_the_same_and_of_far_points():
    x = gaussian(200, 2, seed=6)
    assert metrics.density_and_coverage(x, x)[1] == 1.0
    # Every point lies in the balls of k points on average, and in its own.
    assert metrics.density_and_coverage(x, x, k=5)[0] == pytest.approx(6 / 5)
    assert metrics.density_and_coverage(x, x + 100) == (0.0, 0.0)
    with pytest.raises(ValueError, match="no 5 neighbours"):
        metrics.density_and_coverage(x[:5], x)


def test_one_mode_of_two_is_dense_and_covers_half():
    left, right = gaussian(300, 2, -5, seed=7), gaussian(300, 2, 5, seed=8)
    both = np.concatenate([left, right])
    density, coverage = metrics.density_and_coverage(both, gaussian(600, 2, -5, seed=9))
    assert coverage == pytest.approx(0.5, abs=0.03)
    full = np.concatenate([gaussian(300, 2, -5, seed=10), gaussian(300, 2, 5, seed=11)])
    assert metrics.density_and_coverage(both, full)[1] > 0.9
    # Density does not mind the mode that is missing, only points off both of them.
    assert density == pytest.approx(1, abs=0.1)
    astray = full.copy()
    astray[::2] = 0
    half = metrics.density_and_coverage(both, astray)[0]
    assert half == pytest.approx(density / 2, abs=0.1)


def test_validity_and_shares():
    labels = [0, 0, 0, 1, -1]
    assert metrics.validity(labels) == pytest.approx(0.8)
    # 0.6, 0.2 and 0.2 on nothing, beside 0.5, 0.5 and 0.
    assert metrics.share_error(labels, [0.5, 0.5]) == pytest.approx(0.3)
    assert metrics.share_error([0, 1], [0.5, 0.5]) == 0
    assert metrics.share_error([-1, -1], [0.5, 0.5]) == 1
    assert metrics.share_error([1, 1], [1.0, 0.0]) == 1


def test_transport_on_a_line_is_w1():
    x, y = RNG.standard_normal(7), RNG.standard_normal(9)
    cost = np.abs(x[:, None] - y[None])
    found = metrics.transport(cost, np.full(7, 1 / 7), np.full(9, 1 / 9))
    assert found == pytest.approx(metrics.wasserstein(x, y))


def test_transport_prefers_the_cheap_pairing():
    cost = [[1.0, 0.0], [0.0, 1.0]]
    assert metrics.transport(cost, [0.5, 0.5], [0.5, 0.5]) == pytest.approx(0)
    assert metrics.transport(cost, [1.0, 0.0], [0.5, 0.5]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no transport"):
        metrics.transport(cost, [0.5, 0.5], [2.0, 0.5])


def test_matched_w1_of_a_shift_and_of_numbers():
    x = np.random.default_rng(0).normal(size=(300, 2))
    moved = metrics.matched_wasserstein(x, x[::-1] + [3.0, 4.0])
    assert moved == pytest.approx(5.0)
    y = np.random.default_rng(1).exponential(size=(300, 1))
    expected = metrics.wasserstein(x[:, :1], y)
    assert metrics.matched_wasserstein(x[:, :1], y) == pytest.approx(expected)
    # Of many points some are taken, from all over the sample.
    line = np.arange(1_001.0)[:, None]
    few = metrics.matched_wasserstein(line, line + 7, most=11)
    assert few == pytest.approx(7.0)


def test_window_sums_stay_within_their_episode():
    steps = np.array([[1.0, 2, 3, 4], [10, 20, 30, 40]])[:, :, None]
    found = metrics.window_sums(steps, 3)
    np.testing.assert_allclose(found, [[6], [9], [60], [90]])
    np.testing.assert_allclose(metrics.window_sums(steps, 4), [[10], [100]])
    for wrong in (0, 5):
        with pytest.raises(ValueError, match=f"no windows of {wrong}"):
            metrics.window_sums(steps, wrong)


def test_orders_of_tasks():
    abcd, abdc = ("a", "b", "c", "d"), ("a", "b", "d", "c")
    distance = metrics.sequence_wasserstein
    assert distance([abcd, abdc], [abdc, abcd]) == pytest.approx(0)
    assert distance([abcd], [abdc]) == pytest.approx(2)
    assert distance([abcd, abcd], [abcd, abdc]) == pytest.approx(1)
    # Tasks that were not done differ from all that were.
    assert distance([abcd], [("a", "b")]) == pytest.approx(2)
    assert distance([abcd], [()]) == pytest.approx(4)
    # What follows the fourth does not count.
    assert distance([abcd], [(*abcd, "e")]) == pytest.approx(0)
    # The best matching: one moves by 1, not both.
    left = [("a", "x", "c", "d"), abcd]
    right = [abcd, ("a", "y", "c", "d")]
    assert distance(left, right) == pytest.approx(0.5)


def test_times_of_tasks():
    x = np.array([[10.0, 30.0], [20.0, 40.0]])
    assert metrics.time_wasserstein(x, x + [1, 3], horizon=280) == pytest.approx(2)
    late = np.array([[10.0, np.nan], [20.0, np.nan]])
    found = metrics.time_wasserstein(x, late, horizon=280)
    assert found == pytest.approx((280 - 35) / 2)


def test_tasks_at_least():
    done = [("a",), ("a", "b"), (), ("c", "b", "a")]
    shares = [metrics.tasks_at_least(done, n) for n in range(5)]
    assert shares == [1.0, 0.75, 0.5, 0.25, 0.0]
