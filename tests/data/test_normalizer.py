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


def test_a_floor_is_added_to_every_spread(data):
    u = np.asarray(normalize(fit_gaussian(data, floor=0.5), data), np.float64)
    np.testing.assert_allclose(u.std(0), data.std(0) / (data.std(0) + 0.5), rtol=1e-4)


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
    assert normalizer.knots.shape[0] <= 50
    u = normalize(normalizer, x)
    share = (x[:, 1] < 0).mean()
    np.testing.assert_allclose(np.unique(u[:, 1]), [2 * share - 1, 1.0], atol=1e-6)
    np.testing.assert_array_equal(unnormalize(normalizer, u)[:, 1], x[:, 1])
    two_values = fit_cdf(x[:, 1:])
    np.testing.assert_allclose(normalize(two_values, np.array([[3.0]])), 1.0)


def share_below(x, given):
    """The empirical CDF, on the scale of units, without knots."""
    return 2 * np.searchsorted(np.sort(x), given, side="right") / len(x) - 1


def test_cdf_keeps_both_sides_of_every_step():
    """A gripper that rests at -1 and at +1, with jitter, and moves between them."""
    rng = np.random.default_rng(0)
    moving = rng.uniform(-0.99, 0.99, 20_000)
    jitter = 1e-4 * rng.normal(size=5_000)
    rest = np.repeat([-1.0, 0.25, 1.0], [30_000, 10_000, 30_000])
    x = np.concatenate([moving, rest, 1 + jitter, -1 + jitter]).astype(np.float32)
    normalizer = fit_cdf(x[:, None])
    given = np.concatenate([x[::50], rng.uniform(-1, 1, 500).astype(np.float32)])
    error = np.asarray(normalize(normalizer, given[:, None]))[:, 0] - share_below(
        x, given
    )
    assert np.abs(error).max() < 0.005


@pytest.mark.parametrize(("freedom", "most"), [(1000, 0.05), (3, 0.2)])
def test_cdf_keeps_the_tails(freedom, most):
    rng = np.random.default_rng(0)
    x = rng.standard_t(freedom, size=100_000).astype(np.float32)
    normalizer = fit_cdf(x[:, None])
    units = np.linspace(-1, 1, 20_001)[1:-1]
    found = np.asarray(unnormalize(normalizer, units[:, None]))[:, 0]
    exact = np.interp(units, share_below(x, np.sort(x)), np.sort(x))
    assert np.abs(found - exact).max() < most * x.std()


def test_cdf_has_no_more_knots_than_asked_for():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5_000, 1))
    x[::2] = np.round(x[::2], 2)
    for most in (16, 64, 1000):
        assert fit_cdf(x, max_knots=most).knots.shape[0] <= most


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.1, -4000.0])
def test_what_differs_in_its_last_bit_alone_is_constant(kind, value):
    value = np.float32(value)
    x = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    x[::2, 1], x[1::2, 1] = value, np.nextafter(value, np.float32(1))
    normalizer = fit_normalizer(kind, x)
    seen = normalize(normalizer, np.float32([[0, value * 1.01]]))
    assert seen[0, 1] == 0
    back = unnormalize(normalizer, np.float32([[0, 0.3]]))
    np.testing.assert_allclose(back[0, 1], value, rtol=1e-6)


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
