"""The U-Net of trajectories and the model of returns against what is known of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.host_program import call
from jaxdiff.networks import (
    DiT,
    TemporalUNet,
    TemporalValue,
    horizon_multiple,
    norm_mish,
)
from jaxdiff.networks.layers import mish
from jaxdiff.networks.temporal_unet import LinearAttention, ResidualBlock

SMALL = {"dim": 8, "dim_mults": (1, 2)}


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


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
    params = call(
        network.init,
        jax.random.key(0),
        jnp.ones((1, 8, 3)),
        jnp.ones(1),
        jnp.ones((1, 5)),
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
    monkeypatch.setattr(norm_mish, "norm_mish", lambda x, *_, **__: mish(x))
    network = TemporalUNet(dim=8, dim_mults=(1, 2))
    x = draw(0, 1, 96, 2)
    params = call(network.init, jax.random.key(0), x, jnp.zeros(1))
    apply = jax.jit(network.apply)
    y = apply(params, x, jnp.zeros(1))[0]
    moved = apply(params, jnp.roll(x, 2, axis=1), jnp.zeros(1))[0]
    np.testing.assert_allclose(moved[42:58], y[40:56], atol=1e-6)
    assert jnp.abs(moved[41:57] - y[40:56]).max() > 1e-3


def test_residual_block_is_its_skip_when_the_last_norm_is_silent():
    block = ResidualBlock(8)
    x, embedding = draw(0, 2, 3, 8), draw(1, 2, 4)
    params = call(block.init, jax.random.key(0), x, embedding)["params"]
    norm = params["ConvBlock_1"]["GroupNorm_0"]
    norm["scale"] = jnp.zeros(8)
    y = block.apply({"params": params}, x, embedding)
    np.testing.assert_array_equal(y, x)


def test_attention_sees_time_as_a_set():
    network = LinearAttention()
    x = draw(0, 2, 6, 8)
    params = call(network.init, jax.random.key(0), x)
    order = jnp.array([3, 0, 5, 1, 4, 2])
    moved = network.apply(params, x[:, order])
    np.testing.assert_allclose(moved, network.apply(params, x)[:, order], atol=1e-5)


def test_attention_averages_values_over_time():
    """With equal steps every softmax is uniform, whatever the horizon."""
    network = LinearAttention()
    step = draw(0, 1, 1, 8)
    params = call(network.init, jax.random.key(0), step)
    short = network.apply(params, jnp.tile(step, (1, 2, 1)))
    long = network.apply(params, jnp.tile(step, (1, 7, 1)))
    np.testing.assert_allclose(short[0, 0], long[0, 3], atol=1e-5)


@pytest.mark.parametrize(
    "show_ends", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_unet_shows_its_middle_the_ends_alone(monkeypatch, show_ends):
    """What is out of reach of the convolutions is seen only if it is an end of x."""
    monkeypatch.setattr(norm_mish, "norm_mish", lambda x, *_, **__: mish(x))
    network = TemporalUNet(dim=8, dim_mults=(1, 2), show_ends=show_ends)
    x = draw(0, 1, 192, 2)
    params = call(network.init, jax.random.key(0), x, jnp.zeros(1))

    @jax.jit
    @jax.grad
    def slope_of_the_middle(x):
        return jnp.square(network.apply(params, x, jnp.zeros(1))[0, 96]).sum()

    slope = slope_of_the_middle(x)
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
    params = call(network.init, jax.random.key(0), x, time, condition)
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


@pytest.mark.parametrize("patch", [2, 4])
def test_patches_are_rows_side_by_side(patch):
    """The network of patches is the plain one, of shorter and wider trajectories."""
    size = {"dim": 8, "dim_mults": (2, 4)}
    patched, plain = TemporalUNet(**size, patch=patch), TemporalUNet(**size)
    x = jax.random.normal(jax.random.key(0), (2, 8 * patch, 3))
    time = jnp.array([0, 5])
    wide = x.reshape(2, 8, 3 * patch)
    params = call(plain.init, jax.random.key(1), wide, time)
    expected = plain.apply(params, wide, time).reshape(x.shape)
    np.testing.assert_allclose(patched.apply(params, x, time), expected, atol=1e-6)
    assert horizon_multiple((2, 4), patch) == 2 * patch
    with pytest.raises(ValueError, match=f"divisible by {2 * patch} = patch"):
        patched.apply(params, x[:, :-patch], time)


def test_patches_are_shown_the_ends_of_the_trajectory_and_not_of_patches():
    network = TemporalUNet(dim=8, dim_mults=(1, 2), patch=2, show_ends=True)
    x = jnp.zeros((1, 64, 3))
    params = call(network.init, jax.random.key(1), x, jnp.zeros(1))
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
    params = call(network.init, jax.random.key(0), x, time)
    apply = jax.jit(network.apply)
    slope = jax.jit(jax.grad(lambda x: network.apply(params, x, time)[0, 40].sum()))(x)
    heard = np.flatnonzero(np.abs(slope[0]).max(axis=-1))
    assert heard.tolist() == list(range(22, 59) if by_row else range(80))
    shorter = apply(params, x[:, :64], time)[0, 40]
    same = np.allclose(shorter, apply(params, x, time)[0, 40], atol=1e-5)
    assert same == by_row


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(
            lambda **given: TemporalUNet(dim=8, dim_mults=(1,), **given), id="unet"
        ),
        pytest.param(
            lambda **given: TemporalValue(dim=32, dim_mults=(1,), **given), id="value"
        ),
        pytest.param(
            lambda **given: DiT(dim=8, width=32, heads=2, depth=1, **given), id="dit"
        ),
    ],
)
def test_rounded_factors_change_little_and_no_parameter(network):
    x, time = draw(0, 2, 8, 3), jnp.array([0.0, 9.0])
    exact, rounded = network(), network(precision="bfloat16")
    shapes = [jax.eval_shape(each.init, jax.random.key(1), x, time)
              for each in (exact, rounded)]  # fmt: skip
    assert jax.tree.map(lambda a, b: a.shape == b.shape, *shapes)
    # Some parameters start at zero, where all would agree.
    params = jax.tree.map(lambda leaf: 0.2 * draw(2, *leaf.shape), shapes[0])

    one, other = jax.jit(
        lambda params: [each.apply(params, x, time) for each in (exact, rounded)]
    )(params)
    assert one.dtype == other.dtype == jnp.float32
    assert 1e-5 < jnp.abs(one - other).max() / jnp.abs(one).max() < 5e-2
