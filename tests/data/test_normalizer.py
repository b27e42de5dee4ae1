import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.data.normalizer import (
    fit_cdf,
    fit_gaussian,
    fit_limits,
    fit_normalizer,
    normalize,
    take_dimensions,
    unnormalize,
)

KINDS = ("gaussian", "limits", "cdf")


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    scale, shift = np.array([0.1, 3.0, 40.0]), np.array([0.0, -7.0, 5.0])
    return (rng.gamma(2.0, size=(4000, 3)) * scale + shift).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind, data):
    normalizer = fit_normalizer(kind, data)
    there = normalize(normalizer, data)
    spread = data.max(0) - data.min(0)
    back = unnormalize(normalizer, there)
    np.testing.assert_allclose((back - data) / spread, 0.0, atol=1e-5)
    assert there.dtype == back.dtype == jnp.float32


def test_gaussian_has_unit_moments_per_dimension_and_no_bounds(data):
    normalizer = fit_gaussian(data)
    u = np.asarray(normalize(normalizer, data), np.float64)
    np.testing.assert_allclose(u.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(u.std(0), 1.0, atol=1e-5)
    far = np.full((1, 3), 50.0, np.float32)
    np.testing.assert_allclose(
        unnormalize(normalizer, far)[0], data.mean(0) + 50 * data.std(0), rtol=1e-4
    )
    there = normalize(normalizer, unnormalize(normalizer, -far))
    np.testing.assert_allclose(there, -far, rtol=1e-4)


def test_limits_hits_the_ends_and_bounds_only_the_way_back(data):
    normalizer = fit_limits(data)
    low, high = data.min(0), data.max(0)
    np.testing.assert_allclose(normalize(normalizer, low), -1.0, atol=1e-6)
    np.testing.assert_allclose(normalize(normalizer, high), 1.0, atol=1e-6)
    np.testing.assert_allclose(normalize(normalizer, (low + high) / 2), 0.0, atol=1e-6)
    beyond = high + (high - low) / 2
    np.testing.assert_allclose(normalize(normalizer, beyond), 2.0, atol=1e-5)
    np.testing.assert_array_equal(unnormalize(normalizer, np.full(3, 1.5)), high)
    np.testing.assert_array_equal(unnormalize(normalizer, np.full(3, -9.0)), low)


def test_cdf_makes_marginals_uniform(data):
    u = np.sort(np.asarray(normalize(fit_cdf(data), data)), axis=0)
    uniform = 2 * np.arange(1, len(data) + 1) / len(data) - 1
    np.testing.assert_allclose(u - uniform[:, None], 0.0, atol=2e-3)


def test_cdf_of_counted_values_is_exact_and_bounded_both_ways():
    x = np.array([[0.0], [0.0], [0.0], [1.0], [2.0], [2.0], [5.0], [5.0]])
    normalizer = fit_cdf(x)
    given = np.array([[-3.0], [0.0], [0.5], [1.0], [2.0], [3.5], [5.0], [9.0]])
    expected = [[-0.25], [-0.25], [-0.125], [0.0], [0.5], [0.75], [1.0], [1.0]]
    np.testing.assert_allclose(normalize(normalizer, given), expected, atol=1e-6)
    units = np.array([[-1.0], [-0.25], [0.0], [0.75], [1.0], [1.7]])
    back = [[0.0], [0.0], [1.0], [3.5], [5.0], [5.0]]
    np.testing.assert_allclose(unnormalize(normalizer, units), back, atol=1e-6)


def test_cdf_dimensions_may_have_few_and_many_values(data):
    x = np.concatenate([data[:, :1], np.sign(data[:, 1:2] + 4.0)], axis=1)
    normalizer = fit_cdf(x, max_knots=50)
    assert normalizer.knots.shape == (50, 2)
    u = normalize(normalizer, x)
    share = (x[:, 1] < 0).mean()
    np.testing.assert_allclose(np.unique(u[:, 1]), [2 * share - 1, 1.0], atol=1e-6)
    np.testing.assert_array_equal(unnormalize(normalizer, u)[:, 1], x[:, 1])
    two_values = fit_cdf(x[:, 1:])
    np.testing.assert_allclose(normalize(two_values, np.array([[3.0]])), 1.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("constant", [0.0, 0.1, -123.456])
def test_constant_dimension_is_zero_and_harms_no_other(kind, constant, data):
    x = np.concatenate([data, np.full((len(data), 1), constant, np.float32)], axis=1)
    normalizer = fit_normalizer(kind, x)
    u = normalize(normalizer, x)
    np.testing.assert_array_equal(u[:, 3], 0.0)
    np.testing.assert_array_equal(u[:, :3], normalize(fit_normalizer(kind, data), data))
    noisy = jnp.array([[0.1, -0.1, 0.2, 0.7]])
    np.testing.assert_allclose(
        unnormalize(normalizer, noisy)[:, 3], np.float32(constant)
    )
    gradient = jax.grad(lambda v: unnormalize(normalizer, v).sum())(noisy)
    assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("kind", KINDS)
def test_works_under_jit_and_vmap_on_any_leading_shape(kind, data):
    normalizer = fit_normalizer(kind, data)
    x = data[:24].reshape(2, 3, 4, 3)
    expected = np.asarray(normalize(normalizer, data[:24])).reshape(x.shape)
    np.testing.assert_allclose(jax.jit(normalize)(normalizer, x), expected, atol=1e-6)
    mapped = jax.vmap(jax.vmap(normalize, (None, 0)), (None, 0))(normalizer, x)
    np.testing.assert_allclose(mapped, expected, atol=1e-6)
    np.testing.assert_allclose(normalize(normalizer, x[0, 0, 0]), expected[0, 0, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_take_dimensions(kind, data):
    part = take_dimensions(fit_normalizer(kind, data), slice(1, 3))
    whole = normalize(fit_normalizer(kind, data), data)
    np.testing.assert_array_equal(normalize(part, data[:, 1:]), whole[:, 1:])
