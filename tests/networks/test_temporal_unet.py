"""The temporal layers against NumPy, the U-Net and the return model against facts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxdiff.networks import (
    TemporalUNet,
    TemporalValue,
    horizon_multiple,
    sinusoidal_embedding,
)
from jaxdiff.networks import temporal_conv as layers
from jaxdiff.networks.temporal_conv import (
    group_norm,
    mish,
    temporal_conv,
    temporal_up_conv,
)
from jaxdiff.networks.temporal_unet import LinearAttention, ResidualBlock
from jaxdiff.networks.toom_cook import toom_cook_conv, toom_cook_matrices

SMALL = {"dim": 8, "dim_mults": (1, 2)}


def many_rows(x):
    """Repeat a batch until a CPU takes the convolution of fewer products."""
    return jnp.tile(x, (64, 1, 1))


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


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


@pytest.mark.parametrize("horizon", [3, 128])
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


def test_conv_refuses_an_even_kernel():
    with pytest.raises(ValueError, match="odd"):
        temporal_conv(draw(0, 1, 4, 2), draw(1, 4, 2, 2))


def test_no_backend_convolution_on_cpu(monkeypatch):
    """XLA's convolution is the one with the cliff: no pass may fall back on it."""
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    network = TemporalUNet(**SMALL)
    x, time = draw(0, 2, 4, 3), jnp.zeros(2)
    params = jax.eval_shape(network.init, jax.random.key(0), x, time)
    slope = jax.grad(lambda p, x: network.apply(p, x, time).sum(), argnums=(0, 1))
    text = jax.jit(slope).lower(params, x).as_text()
    assert "convolution" not in text
    assert "dot_general" in text


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


def test_mish_is_x_tanh_softplus():
    x = np.array([-100, -30, -5, -1.19, -0.1, 0, 0.1, 1, 5, 19.9, 20.1, 50, 100.0])
    want = x * np.tanh(np.logaddexp(0, x))
    np.testing.assert_allclose(mish(jnp.asarray(x)), want, rtol=2e-6, atol=1e-30)
    step = 1e-5
    up, down = x + step, x - step
    rise = up * np.tanh(np.logaddexp(0, up)) - down * np.tanh(np.logaddexp(0, down))
    slope = jax.vmap(jax.grad(mish))(jnp.asarray(x))
    np.testing.assert_allclose(slope, rise / (2 * step), rtol=1e-4, atol=1e-6)


def test_mish_is_finite_at_the_ends_of_float32():
    x = jnp.array([-3e38, -1e4, 1e4, 3e38])
    np.testing.assert_array_equal(mish(x)[2:], x[2:])
    np.testing.assert_array_equal(mish(x)[:2], [0, 0])
    np.testing.assert_array_equal(jax.vmap(jax.grad(mish))(x), [0, 0, 1, 1])


def test_group_norm_statistics():
    x = 1000 + 3 * draw(0, 2, 16, 24) * jnp.arange(1, 25)
    ones, zeros = jnp.ones(24), jnp.zeros(24)
    y = np.asarray(group_norm(x, ones, zeros)).reshape(2, 16, 8, 3)
    np.testing.assert_allclose(y.mean(axis=(1, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(y.std(axis=(1, 3)), 1, atol=1e-3)
    scale, shift = jnp.arange(24.0), 2 * jnp.arange(24.0)
    affine = group_norm(x, scale, shift)
    np.testing.assert_allclose(affine, y.reshape(2, 16, 24) * scale + shift, atol=1e-4)


def test_group_norm_epsilon_rules_where_the_variance_vanishes():
    x = jnp.tile(jnp.array([0.01, -0.01]), (1, 4, 8))
    y = group_norm(x, jnp.ones(16), jnp.zeros(16))
    np.testing.assert_allclose(jnp.abs(y), 0.01 / np.sqrt(1e-4 + 1e-5), rtol=1e-5)
    constant = group_norm(jnp.full((1, 4, 16), 7.0), jnp.ones(16), jnp.zeros(16))
    np.testing.assert_array_equal(constant, 0)
    with pytest.raises(ValueError, match="12 channels"):
        group_norm(jnp.ones((1, 4, 12)), jnp.ones(12), jnp.zeros(12))


def test_time_embedding_facts():
    time = jnp.array([0.0, 1.0, 7.5])
    e = np.asarray(sinusoidal_embedding(time, 32))
    sin, cos = e[:, :16], e[:, 16:]
    np.testing.assert_allclose(sin**2 + cos**2, 1, atol=1e-6)
    np.testing.assert_array_equal(e[0], [0] * 16 + [1] * 16)
    np.testing.assert_allclose(sin[:, 0], np.sin(time), atol=1e-6)
    np.testing.assert_allclose(sin[:, -1], np.sin(time / 1e4), rtol=1e-5)
    ratios = np.arcsin(sin[1, 2:]) / np.arcsin(sin[1, 1:-1])
    np.testing.assert_allclose(ratios, 1e4 ** (-1 / 15), rtol=1e-4)
    whole = sinusoidal_embedding(jnp.array([0, 1, 7]), 32)
    np.testing.assert_array_equal(whole[:2], e[:2])
    with pytest.raises(ValueError, match="even"):
        sinusoidal_embedding(time, 7)


def count(network, horizon, width):
    shapes = jax.eval_shape(
        network.init, jax.random.key(0), jnp.ones((1, horizon, width)), jnp.ones(1)
    )
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
    ("dim_mults", "attention", "horizon", "width", "parameters"),
    [
        ((1, 2, 4, 8), False, 32, 14, 3_956_302),
        ((1, 2, 4, 8), False, 32, 23, 3_958_327),
        ((1, 4, 8), False, 128, 6, 3_682_118),
        ((1, 4, 8), False, 4, 23, 3_685_943),
        ((1, 4, 8), True, 4, 23, 4_114_423),
    ],
)
def test_unet_parameter_counts(dim_mults, attention, horizon, width, parameters):
    network = TemporalUNet(dim_mults=dim_mults, attention=attention)
    assert count(network, horizon, width) == parameters


@pytest.mark.parametrize(
    ("dim_mults", "horizon", "width", "parameters"),
    [
        ((1, 2, 4, 8), 32, 14, 2_294_817),
        ((1, 2, 4, 8), 32, 23, 2_296_545),
        ((1, 4, 8), 4, 23, 2_180_833),
    ],
)
def test_value_parameter_counts(dim_mults, horizon, width, parameters):
    assert count(TemporalValue(dim_mults=dim_mults), horizon, width) == parameters


@pytest.fixture(scope="module")
def unet():
    network = TemporalUNet(**SMALL)
    params = jax.jit(network.init)(
        jax.random.key(0), jnp.ones((1, 8, 3)), jnp.ones(1), jnp.ones((1, 5))
    )
    return jax.jit(network.apply), params


@pytest.mark.parametrize("horizon", [2, 14])
def test_unet_takes_any_divisible_horizon(unet, horizon):
    apply, params = unet
    x, condition = draw(0, 2, horizon, 3), draw(1, 2, 5)
    y = apply(params, x, jnp.array([0, 9]), condition)
    assert y.shape == x.shape
    np.testing.assert_array_equal(y, apply(params, x, jnp.array([0.0, 9]), condition))


def test_unet_refuses_other_horizons(unet):
    apply, params = unet
    assert horizon_multiple(SMALL["dim_mults"]) == 2
    assert horizon_multiple((1, 2, 4, 8)) == 8
    with pytest.raises(ValueError, match="horizon 7 is not divisible by 2"):
        apply(params, draw(0, 1, 7, 3), jnp.zeros(1), jnp.zeros((1, 5)))


def test_unet_sees_each_input_and_mixes_no_batch(unet):
    apply, params = unet
    x, time, condition = draw(0, 2, 8, 3), jnp.zeros(2), draw(1, 2, 5)
    base = apply(params, x, time, condition)
    changes = [
        apply(params, x.at[1, 3, 2].add(1.0), time, condition),
        apply(params, x, time.at[1].add(1.0), condition),
        apply(params, x, time, condition.at[1, 4].add(1.0)),
    ]
    for changed in changes:
        np.testing.assert_allclose(changed[0], base[0], atol=1e-6)
        assert jnp.abs(changed[1] - base[1]).max() > 1e-4


def test_unet_interior_moves_with_its_input(monkeypatch):
    """Shifting by the total stride shifts the output, away from the ends.

    GroupNorm is held off: its statistics see the whole horizon.
    """
    monkeypatch.setattr(layers, "group_norm", lambda x, *_, **__: x)
    network = TemporalUNet(dim=8, dim_mults=(1, 2))
    x = draw(0, 1, 96, 2)
    params = jax.jit(network.init)(jax.random.key(0), x, jnp.zeros(1))
    apply = jax.jit(network.apply)
    y = apply(params, x, jnp.zeros(1))[0]
    moved = apply(params, jnp.roll(x, 2, axis=1), jnp.zeros(1))[0]
    np.testing.assert_allclose(moved[42:58], y[40:56], atol=1e-6)
    assert jnp.abs(moved[41:57] - y[40:56]).max() > 1e-3


def test_residual_block_is_its_skip_when_the_last_norm_is_silent():
    block = ResidualBlock(8)
    x, embedding = draw(0, 2, 3, 8), draw(1, 2, 4)
    params = block.init(jax.random.key(0), x, embedding)["params"]
    norm = params["ConvBlock_1"]["GroupNorm_0"]
    norm["scale"] = jnp.zeros(8)
    y = block.apply({"params": params}, x, embedding)
    np.testing.assert_array_equal(y, x)


def test_attention_sees_time_as_a_set():
    network = LinearAttention()
    x = draw(0, 2, 6, 8)
    params = network.init(jax.random.key(0), x)
    order = jnp.array([3, 0, 5, 1, 4, 2])
    moved = network.apply(params, x[:, order])
    np.testing.assert_allclose(moved, network.apply(params, x)[:, order], atol=1e-5)


def test_attention_averages_values_over_time():
    """With equal steps every softmax is uniform, whatever the horizon."""
    network = LinearAttention()
    step = draw(0, 1, 1, 8)
    params = network.init(jax.random.key(0), step)
    short = network.apply(params, jnp.tile(step, (1, 2, 1)))
    long = network.apply(params, jnp.tile(step, (1, 7, 1)))
    np.testing.assert_allclose(short[0, 0], long[0, 3], atol=1e-5)


@pytest.mark.parametrize(
    "show_ends", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_unet_shows_its_middle_the_ends_alone(monkeypatch, show_ends):
    """What is out of reach of the convolutions is seen only if it is an end of x."""
    monkeypatch.setattr(layers, "group_norm", lambda x, *_, **__: x)
    network = TemporalUNet(dim=8, dim_mults=(1, 2), show_ends=show_ends)
    x = draw(0, 1, 192, 2)
    params = jax.jit(network.init)(jax.random.key(0), x, jnp.zeros(1))
    slope = jax.grad(
        lambda x: jnp.square(network.apply(params, x, jnp.zeros(1))[0, 96]).sum()
    )(x)
    reach = jnp.abs(slope[0]).max(axis=-1)
    seen = reach > 1e-6 * reach.max()
    assert bool(seen[0]) == bool(seen[-1]) == show_ends
    assert not seen[1:40].any()
    assert not seen[-40:-1].any()
    assert seen[90:100].all()


@pytest.mark.parametrize("horizon", [1, 4, 7, 32, 100])
@pytest.mark.parametrize("dim_mults", [(1, 4, 8), (1, 2, 4, 8)])
def test_value_is_made_for_any_horizon(dim_mults, horizon):
    network = TemporalValue(dim_mults=dim_mults)
    x, time = jnp.zeros((2, horizon, 3)), jnp.zeros(2)
    shape = jax.eval_shape(network.init_with_output, jax.random.key(0), x, time)[0]
    assert shape.shape == (2,)


def test_value_sees_each_input_and_mixes_no_batch():
    network = TemporalValue(dim=32, dim_mults=(1,))
    x, time, condition = draw(0, 2, 5, 3), jnp.zeros(2), draw(1, 2, 4)
    params = jax.jit(network.init)(jax.random.key(0), x, time, condition)
    apply = jax.jit(network.apply)
    base = apply(params, x, time, condition)
    changes = [
        apply(params, x.at[1, 4, 2].add(1.0), time, condition),
        apply(params, x, time.at[1].add(1.0), condition),
        apply(params, x, time, condition.at[1, 3].add(1.0)),
    ]
    for changed in changes:
        np.testing.assert_allclose(changed[0], base[0], atol=1e-6)
        assert abs(changed[1] - base[1]) > 1e-6


def test_initial_weights_fill_the_fan_in_interval():
    x = jnp.ones((1, 8, 16))
    cases = [
        (layers.Linear(64), 16),
        (layers.TemporalConv(64, 5), 5 * 16),
        (layers.TemporalUpConv(64), 4 * 64),
    ]
    for module, fan_in in cases:
        params = module.init(jax.random.key(0), x)["params"]
        bound = fan_in**-0.5
        for name, least in (("kernel", 0.99), ("bias", 0.9)):
            largest = float(jnp.abs(params[name]).max())
            assert least * bound < largest <= bound
        assert abs(float(params["kernel"].mean())) < 0.1 * bound


@pytest.mark.parametrize("patch", [2, 4])
def test_patches_are_rows_side_by_side(patch):
    """The network of patches is the plain one, of shorter and wider trajectories."""
    size = {"dim": 8, "dim_mults": (2, 4)}
    patched, plain = TemporalUNet(**size, patch=patch), TemporalUNet(**size)
    x = jax.random.normal(jax.random.key(0), (2, 8 * patch, 3))
    time = jnp.array([0, 5])
    wide = x.reshape(2, 8, 3 * patch)
    params = plain.init(jax.random.key(1), wide, time)
    expected = plain.apply(params, wide, time).reshape(x.shape)
    np.testing.assert_allclose(patched.apply(params, x, time), expected, atol=1e-6)
    assert horizon_multiple((2, 4), patch) == 2 * patch
    with pytest.raises(ValueError, match=f"divisible by {2 * patch} = patch"):
        patched.apply(params, x[:, :-patch], time)


def test_patches_are_shown_the_ends_of_the_trajectory_and_not_of_patches():
    network = TemporalUNet(dim=8, dim_mults=(1, 2), patch=2, show_ends=True)
    x = jnp.zeros((1, 64, 3))
    params = network.init(jax.random.key(1), x, jnp.zeros(1))
    shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
    assert (2 * 3, 4 * 8) in shapes


@pytest.mark.parametrize("by_row", [False, True])
def test_rows_normalised_alone_see_what_their_convolutions_reach(by_row):
    """One level: two residual blocks down, two between, one block: nine convolutions.

    Statistics over time carry every row to every other; without them row 40 hears of
    rows 22 to 58, and neither of the others nor of how many there are.
    """
    network = TemporalUNet(dim=8, dim_mults=(1,), norm_by_row=by_row)
    x, time = draw(1, 1, 80, 2), jnp.ones(1)
    params = network.init(jax.random.key(0), x, time)
    slope = jax.jacobian(lambda x: network.apply(params, x, time)[0, 40].sum())(x)
    heard = np.flatnonzero(np.abs(slope[0]).max(axis=-1))
    assert heard.tolist() == list(range(22, 59) if by_row else range(80))
    shorter = network.apply(params, x[:, :64], time)[0, 40]
    same = np.allclose(shorter, network.apply(params, x, time)[0, 40], atol=1e-5)
    assert same == by_row
