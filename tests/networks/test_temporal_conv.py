"""Convolutions over time against direct sums and XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxdiff.networks.temporal_conv import temporal_conv, temporal_up_conv
from jaxdiff.networks.toom_cook import toom_cook_conv, toom_cook_matrices


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def many_rows(x):
    """Repeat a batch until a CPU takes the convolution of fewer products."""
    return jnp.tile(x, (64, 1, 1))


def direct_conv(x, kernel, stride):
    """Visit every output, tap and in-range input."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    size, horizon = len(kernel), x.shape[1]
    rows = []
    for centre in range(0, horizon, stride):
        row = np.zeros((x.shape[0], kernel.shape[2]))
        for tap in range(size):
            t = centre + tap - size // 2
            if 0 <= t < horizon:
                row += x[:, t] @ kernel[tap]
        rows.append(row)
    return np.stack(rows, axis=1)


def library_conv(x, kernel, *, stride=1):
    padding = [(kernel.shape[0] // 2,) * 2]
    numbers = ("NWC", "WIO", "NWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride,), padding, dimension_numbers=numbers
    )


@pytest.fixture(params=["cpu", "gpu"])
def backend(request, monkeypatch):
    """Trace the formulation of each backend; both run on any device."""
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)
    return request.param


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize("horizon", [2, 5, 8])
@pytest.mark.parametrize("batch", [2, 128])
def test_conv_is_the_direct_sum(backend, batch, horizon, size, stride):
    x, kernel = draw(0, batch, horizon, 3), draw(1, size, 3, 4)
    got = temporal_conv(x, kernel, stride=stride)
    assert got.shape == (batch, -(-horizon // stride), 4)
    np.testing.assert_allclose(got, direct_conv(x, kernel, stride), atol=3e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("horizon", [2, 7])
@pytest.mark.parametrize("batch", [2, 128])
def test_conv_gradients_are_those_of_the_library(batch, horizon, size, stride):
    x, kernel = draw(0, batch, horizon, 3), draw(1, size, 3, 4)
    g = draw(2, batch, -(-horizon // stride), 4)

    @jax.jit
    def slopes(x, kernel):
        ours = jax.vjp(lambda x, w: temporal_conv(x, w, stride=stride), x, kernel)[1]
        theirs = jax.vjp(lambda x, w: library_conv(x, w, stride=stride), x, kernel)[1]
        return ours(g), theirs(g)

    for ours, theirs in zip(*slopes(x, kernel), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("horizon", [3, pytest.param(128, marks=pytest.mark.slow)])
def test_conv_gradient_is_the_slope(horizon):
    # A CPU takes the convolution of fewer products from 128 rows on.
    x, kernel = draw(0, 1, horizon, 1), draw(1, 5, 1, 1)
    check_grads(temporal_conv, (x, kernel), order=2, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("rows", [lambda x: x, many_rows])
def test_conv_under_vmap_over_kernels(rows):
    x, kernels = rows(draw(0, 2, 4, 3)), draw(1, 3, 5, 3, 4)
    weights = draw(2, len(x), 4, 4)

    def loss(kernel, x):
        return jnp.sum(temporal_conv(x, kernel) * weights)

    outputs = jax.vmap(temporal_conv, in_axes=(None, 0))(x, kernels)
    slopes = jax.vmap(jax.grad(loss), in_axes=(0, None))(kernels, x)
    for i, kernel in enumerate(kernels):
        np.testing.assert_allclose(outputs[i], direct_conv(x, kernel, 1), atol=3e-5)
        np.testing.assert_allclose(slopes[i], jax.grad(loss)(kernel, x), atol=3e-4)


@pytest.mark.parametrize(("outputs", "taps"), [(4, 5), (4, 3), (2, 5), (1, 3)])
def test_toom_cook_matrices_give_the_correlation(outputs, taps):
    rng = np.random.default_rng(0)
    inputs, kernel = rng.normal(size=outputs + taps - 1), rng.normal(size=taps)
    to_outputs, to_kernel, to_inputs = toom_cook_matrices(outputs, taps)
    products = (to_kernel @ kernel) * (to_inputs @ inputs)
    assert len(products) == outputs + taps - 1
    want = np.correlate(inputs, kernel, mode="valid")
    np.testing.assert_allclose(to_outputs @ products, want, atol=1e-12)


def test_toom_cook_refuses_kernels_it_has_no_points_for():
    with pytest.raises(ValueError, match="10 points"):
        toom_cook_matrices(4, 7)


def test_toom_cook_loses_few_digits():
    x, kernel = draw(0, 8, 32, 64), draw(1, 5, 64, 64) / np.sqrt(5 * 64)
    error = toom_cook_conv(x, kernel) - direct_conv(x, kernel, 1)
    assert np.sqrt(np.mean(error**2)) < 3e-6  # of outputs of standard deviation one


def test_conv_in_a_scan_is_the_conv_applied_again():
    x, kernel = draw(0, 2, 4, 3), 0.3 * draw(1, 5, 3, 3)

    def twice(x, kernel):
        return jax.lax.scan(lambda x, _: (temporal_conv(x, kernel), 0), x, None, 2)[0]

    once = direct_conv(x, kernel, 1)
    np.testing.assert_allclose(twice(x, kernel), direct_conv(once, kernel, 1), 1e-4)
    slope = jax.grad(lambda w: twice(x, w).sum())(kernel)
    again = jax.grad(lambda w: library_conv(library_conv(x, w), w).sum())(kernel)
    np.testing.assert_allclose(slope, again, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("batch", [2, 64])
def test_conv_of_rounded_factors_sums_in_float32(backend, batch, stride):
    """Products of bfloat16 numbers are exact in float32."""
    x, kernel = draw(0, batch, 8, 16), draw(1, 5, 16, 4)
    g = draw(2, batch, 8 // stride, 4)
    rounded = [each.astype(jnp.bfloat16).astype(jnp.float32) for each in (x, kernel, g)]

    def convolve(x, kernel):
        return temporal_conv(x, kernel, stride=stride, precision="bfloat16")

    y, pull = jax.vjp(convolve, x, kernel)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, direct_conv(*rounded[:2], stride), atol=3e-5)
    _, exact = jax.vjp(lambda *each: library_conv(*each, stride=stride), *rounded[:2])
    for one, other in zip(pull(g), exact(rounded[2]), strict=True):
        assert one.dtype == jnp.float32
        np.testing.assert_allclose(one, other, atol=1e-2 * jnp.abs(other).max())


def test_up_conv_of_rounded_factors_sums_in_float32():
    x, kernel = draw(0, 2, 8, 16), draw(1, 4, 16, 4)
    rounded = [each.astype(jnp.bfloat16).astype(jnp.float32) for each in (x, kernel)]
    found = temporal_up_conv(x, kernel, precision="bfloat16")
    np.testing.assert_allclose(found, temporal_up_conv(*rounded), atol=3e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_an_exported_program_takes_any_batch(stride):
    kernel = draw(1, 5, 3, 4)
    (count,) = jax.export.symbolic_shape("count")
    shape = jax.ShapeDtypeStruct((count, 8, 3), jnp.float32)
    convolve = jax.jit(lambda x: temporal_conv(x, kernel, stride=stride))
    exported = jax.export.export(convolve)(shape)
    for batch in (1, 3):
        x = draw(0, batch, 8, 3)
        expected = direct_conv(x, kernel, stride)
        np.testing.assert_allclose(exported.call(x), expected, atol=3e-5)


def test_conv_refuses_an_even_kernel():
    with pytest.raises(ValueError, match="odd"):
        temporal_conv(draw(0, 1, 4, 2), draw(1, 4, 2, 2))


@pytest.mark.parametrize("horizon", [1, 4])
def test_up_conv_scatters_every_input_over_four_outputs(horizon):
    x, kernel = draw(0, 2, horizon, 3), draw(1, 4, 3, 2)
    want = np.zeros((2, 2 * horizon, 2))
    for t in range(horizon):
        for tap in range(4):
            out = 2 * t + tap - 1
            if 0 <= out < 2 * horizon:
                want[:, out] += np.asarray(x[:, t] @ kernel[tap])
    np.testing.assert_allclose(temporal_up_conv(x, kernel), want, atol=1e-5)


def test_down_then_up_keeps_the_horizon():
    x = draw(0, 1, 8, 2)
    down = temporal_conv(x, draw(1, 3, 2, 2), stride=2)
    assert temporal_up_conv(down, draw(2, 4, 2, 2)).shape == x.shape
