"""Group norm with Mish against NumPy, and its gradient against the slope."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxdiff.host_program import call
from jaxdiff.networks.layers import mish
from jaxdiff.networks.norm_mish import NormMish, norm_mish

GROUPS = 4


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def arguments(batch=3, horizon=5, channels=8, mean=0.0):
    spread = 1.0 + jnp.arange(channels)
    x = mean + spread * draw(0, batch, horizon, channels)
    return x, 1 + 0.3 * draw(1, channels), 0.3 * draw(2, channels)


def composed(x, scale, bias, groups=GROUPS):
    """Normalize, scale and apply Mish one after another."""
    numpy = np if isinstance(x, np.ndarray) else jnp
    split = x.reshape(*x.shape[:2], groups, -1)
    centred = split - split.mean((1, 3), keepdims=True)
    deviation = numpy.sqrt((centred**2).mean((1, 3), keepdims=True) + 1e-5)
    z = (centred / deviation).reshape(x.shape) * scale + bias
    return z * numpy.tanh(numpy.logaddexp(z, 0.0))


@pytest.mark.parametrize("horizon", [1, 5])
def test_it_is_norm_and_mish_one_after_the_other(horizon):
    given = arguments(horizon=horizon)
    exact = composed(*(np.asarray(each, np.float64) for each in given))
    np.testing.assert_allclose(norm_mish(*given, GROUPS), exact, atol=3e-6)


def test_its_gradient_is_that_of_one_after_the_other():
    given, g = arguments(), draw(3, 3, 5, 8)

    def slopes(function, *given):
        return jax.vjp(lambda *each: function(*each, GROUPS), *given)[1](g)

    ours, plain = (jax.jit(slopes, static_argnums=0)(f, *given) for f in
                   (norm_mish, composed))  # fmt: skip
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * jnp.abs(other).max())
    # Also with a batch of parameters, and inside a scan.
    many = [jnp.stack([each, 2 * each]) for each in given[1:]]
    mapped = jax.vmap(lambda s, b: slopes(norm_mish, given[0], s, b))(*many)
    for one, other in zip(ours, mapped, strict=True):
        np.testing.assert_allclose(other[0], one, atol=1e-5)

    def twice(function, x):
        def step(x, _):
            return function(x, *given[1:], GROUPS), None

        return jnp.sum(jax.lax.scan(step, x, None, length=2)[0] * g)

    one, other = (jax.grad(lambda x, f=f: twice(f, x))(given[0])
                  for f in (norm_mish, composed))  # fmt: skip
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_its_gradient_is_the_slope():
    function = lambda *given: norm_mish(*given, GROUPS)  # noqa: E731
    check_grads(
        function, arguments(batch=1), order=1, modes=["rev"], atol=2e-2, rtol=2e-2
    )


def test_large_means_keep_their_digits():
    # 1000 is exact, so that what is drawn is known to 6e-5 only.
    x, scale, bias = arguments(mean=1000.0)
    given = [np.asarray(each, np.float64) for each in (x, scale, bias)]
    np.testing.assert_allclose(
        norm_mish(x, scale, bias, GROUPS), composed(*given), atol=1e-4
    )
    moved = norm_mish(x - 1000.0, scale, bias, GROUPS)
    np.testing.assert_allclose(norm_mish(x, scale, bias, GROUPS), moved, atol=1e-4)

    def slope(x):
        return jax.grad(lambda x: jnp.sum(norm_mish(x, scale, bias, GROUPS) ** 2))(x)

    np.testing.assert_allclose(slope(x), slope(x - 1000.0), atol=3e-4)


def test_examples_of_a_batch_do_not_mix():
    x, scale, bias = arguments()
    base, pull = jax.vjp(lambda x: norm_mish(x, scale, bias, GROUPS), x)
    changed = norm_mish(x.at[1, 2].add(3.0), scale, bias, GROUPS)
    np.testing.assert_array_equal(changed[::2], base[::2])
    assert jnp.abs(changed[1] - base[1]).max() > 0.1
    (slope,) = pull(jnp.zeros_like(base).at[1, 0, 0].set(1.0))
    assert not slope[::2].any()
    # The first group hears of itself, and of nothing else.
    assert slope[1, :, :2].all()
    assert not slope[1, :, 2:].any()


def test_the_slope_along_what_a_norm_removes_is_zero():
    """An offset of a group and, but for epsilon, its scale change nothing."""
    x, scale, bias = arguments()
    slope = jax.grad(lambda x: jnp.sum(norm_mish(x, scale, bias, GROUPS) ** 2))(x)
    split = (3, 5, GROUPS, 2)
    np.testing.assert_allclose(slope.reshape(split).sum((1, 3)), 0, atol=1e-5)
    moments = (slope * x).reshape(split).sum((1, 3))
    np.testing.assert_allclose(moments, 0, atol=1e-4)


def test_epsilon_rules_where_the_variance_vanishes():
    ones, zeros = jnp.ones(16), jnp.zeros(16)
    x = jnp.tile(jnp.array([0.01, -0.01]), (1, 4, 8))
    z = jnp.where(x > 0, 1, -1) * 0.01 / np.sqrt(1e-4 + 1e-5)
    np.testing.assert_allclose(norm_mish(x, ones, zeros), mish(z), rtol=1e-5)
    constant = jnp.full((1, 4, 16), 7.0)
    np.testing.assert_array_equal(norm_mish(constant, ones, zeros), 0)
    slope = jax.grad(lambda x: norm_mish(x, ones, zeros).sum())(constant)
    np.testing.assert_allclose(slope, 0, atol=1e-3)
    with pytest.raises(ValueError, match="12 channels"):
        norm_mish(jnp.ones((1, 4, 12)), jnp.ones(12), jnp.zeros(12))


def test_extreme_scales_stay_finite():
    x, ones, zeros = draw(0, 1, 4, 8), jnp.ones(8), jnp.zeros(8)
    for scale in (1e4, 1e30):
        y, pull = jax.vjp(lambda *each: norm_mish(*each, 8), x, scale * ones, zeros)
        assert np.isfinite(y).all()
        assert all(np.isfinite(each).all() for each in pull(jnp.full_like(y, 1e-30)))
        assert (y[y > 1] > scale / 100).all()


def test_the_layer_starts_as_the_plain_norm():
    x = arguments()[0]
    layer = NormMish(GROUPS)
    params = call(layer.init, jax.random.key(0), x)
    expected = norm_mish(x, jnp.ones(8), jnp.zeros(8), GROUPS)
    np.testing.assert_array_equal(layer.apply(params, x), expected)
