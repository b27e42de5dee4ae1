"""The shared layers against NumPy and against what is known of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.host_program import call
from jaxdiff.networks import MLP, Norm, ReLUNet, TwinQ, sinusoidal_embedding
from jaxdiff.networks.layers import (
    Attention,
    Embedding,
    Linear,
    SineEmbedding,
    fourier_features,
    mish,
    product,
)
from jaxdiff.networks.temporal_conv import TemporalConv, TemporalUpConv


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


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


def test_a_product_of_rounded_factors_sums_in_float32():
    x, kernel, g = draw(0, 2, 3, 500), draw(1, 500, 4), draw(2, 2, 3, 4)
    rounded = [each.astype(jnp.bfloat16).astype(jnp.float32) for each in (x, kernel, g)]
    y, pull = jax.vjp(lambda *each: product(*each, "bfloat16"), x, kernel)
    np.testing.assert_allclose(y, rounded[0] @ rounded[1], rtol=1e-5, atol=1e-4)
    assert jnp.abs(y - x @ kernel).max() > 1e-2
    _, exact = jax.vjp(lambda x, w: x @ w, *rounded[:2])
    for one, other in zip(pull(g), exact(rounded[2]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)
    plain = product(x, kernel, "float32")
    np.testing.assert_array_equal(plain, x @ kernel)


def test_initial_weights_fill_the_fan_in_interval():
    x = jnp.ones((1, 8, 16))
    cases = [
        (Linear(64), 16),
        (TemporalConv(64, 5), 5 * 16),
        (TemporalUpConv(64), 4 * 64),
    ]
    for module, fan_in in cases:
        params = call(module.init, jax.random.key(0), x)["params"]
        bound = fan_in**-0.5
        for name, least in (("kernel", 0.99), ("bias", 0.9)):
            largest = float(jnp.abs(params[name]).max())
            assert least * bound < largest <= bound
        assert abs(float(params["kernel"].mean())) < 0.1 * bound


def test_batch_norm_takes_the_batch_s_statistics_and_remembers_them():
    norm = Norm("batch")
    x = 3.0 + 2.0 * draw(0, 256, 5, 4)
    variables = call(norm.init, jax.random.key(0), x)
    seen, moved = norm.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(seen.mean((0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(seen.std((0, 1)), 1, atol=1e-3)
    # A tenth of the way from 0 and 1 to the moments, and nothing moves without leave.
    (stats,) = moved["batch_stats"].values()
    np.testing.assert_allclose(stats["mean"], 0.1 * x.mean((0, 1)), rtol=1e-4)
    expected = 0.9 + 0.1 * x.var((0, 1))
    np.testing.assert_allclose(stats["var"], expected, rtol=1e-3)
    fixed = norm.apply(variables, x)
    np.testing.assert_allclose(fixed, x / np.sqrt(1 + 1e-5), rtol=1e-5)


def test_attention_of_equal_tokens_is_their_value():
    for lean in (True, False):
        network = Attention(heads=2, width=4, lean=lean)
        x = jnp.tile(draw(0, 1, 1, 6), (1, 5, 1))
        params = call(network.init, jax.random.key(1), x)
        alone = network.apply(params, x[:, :1])
        np.testing.assert_allclose(network.apply(params, x)[:, 2:3], alone, atol=1e-5)


def test_attention_is_that_of_the_library():
    network, x = Attention(heads=2, width=4), 3 * draw(0, 2, 5, 6)
    params = call(network.init, jax.random.key(1), x)
    first, last = (params["params"][f"Linear_{i}"] for i in range(2))
    parts = jnp.split(x @ first["kernel"] + first["bias"], 3, axis=-1)
    found = jax.nn.dot_product_attention(*(each.reshape(2, 5, 2, 4) for each in parts))
    expected = found.reshape(2, 5, 8) @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(network.apply(params, x), expected, atol=1e-5)


def test_embeddings_leak_a_hundredth_of_what_is_negative():
    network, x = Embedding(4), draw(0, 3, 2)
    params = call(network.init, jax.random.key(1), x)
    first = params["params"]["Linear_1"]  # named after the layer that it is passed to

    def rise(bias):
        layers = {**params["params"], "Linear_1": {**first, "bias": jnp.full(4, bias)}}
        above, below = (network.apply({"params": layers}, y) for y in (x, 0 * x))
        return above - below

    np.testing.assert_allclose(rise(-9.0), 0.01 * rise(9.0), rtol=1e-2, atol=1e-5)


def test_attention_knows_no_order_but_the_transformer_does():
    network = Attention(heads=2, width=4)
    x, order = draw(0, 2, 5, 6), jnp.array([3, 0, 4, 2, 1])
    params = call(network.init, jax.random.key(1), x)
    np.testing.assert_allclose(
        network.apply(params, x[:, order]),
        network.apply(params, x)[:, order],
        atol=1e-5,
    )


def test_lean_attention_can_be_all_that_the_released_one_is():
    """Two projections one after the other are one."""
    released, lean = (Attention(heads=2, width=4, lean=lean) for lean in (False, True))
    x = draw(0, 2, 5, 6)
    first, query, key, value, second, out = (
        jax.tree.map(lambda leaf: 3 * leaf, layer)
        for layer in call(released.init, jax.random.key(1), x)["params"].values()
    )
    params = dict(
        zip(
            [f"Linear_{i}" for i in range(6)],
            (first, query, key, value, second, out),
            strict=True,
        )
    )

    def after(one, two):
        return {
            "kernel": one["kernel"] @ two["kernel"],
            "bias": one["bias"] @ two["kernel"] + two["bias"],
        }

    parts = [
        after(jax.tree.map(lambda leaf, i=i: leaf[..., 8 * i : 8 * i + 8], first), part)
        for i, part in enumerate((query, key, value))
    ]
    merged = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=-1), *parts)
    found = lean.apply(
        {"params": {"Linear_0": merged, "Linear_1": after(second, out)}}, x
    )
    expected = released.apply({"params": params}, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_sine_embedding_is_odd_but_for_its_bias():
    network = SineEmbedding(8)
    x = jnp.array([0.0, 0.3, -0.3])
    params = call(network.init, jax.random.key(0), x)
    zero, plus, minus = network.apply(params, x)
    np.testing.assert_allclose(plus - zero, zero - minus, atol=1e-6)
    assert jnp.abs(plus - zero).max() > 1e-3


def test_waves_of_time():
    time = jnp.asarray([0.0, 0.25, 0.5])
    waves = fourier_features(time, (1.0, 2.0))
    sines, cosines = waves[:, :2], waves[:, 2:]
    np.testing.assert_allclose(sines, [[0, 0], [1, 0], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(cosines, [[1, 1], [0, -1], [-1, 1]], atol=1e-6)


def test_an_mlp_normalizes_after_its_activation_and_a_relu_net_before():
    # Then a hidden layer sums to zero, and one that is rectified afterwards does not.
    x = draw(0, 5, 3)
    for net, sums_to_zero in ((MLP, True), (ReLUNet, False)):
        network = net(1, (8,), layer_norm=True)
        params = call(network.init, jax.random.key(0), x)
        last = params["params"]["Linear_1"]
        last["kernel"] = jnp.ones_like(last["kernel"])
        found = network.apply(params, x) - last["bias"]
        assert (np.abs(found) < 1e-5).all() == sums_to_zero


def test_gelu_by_tanh_is_near_gelu():
    x = jnp.linspace(-4, 4, 81)[:, None]
    one = {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}
    params = {"params": {"Linear_0": one, "Linear_1": one}}
    found = [MLP(1, (1,), False, each).apply(params, x) for each in (False, True)]
    # x Phi(x) is odd but for x: gelu(x) - gelu(-x) = x.
    for each in found:
        np.testing.assert_allclose(each - each[::-1], x, atol=1e-6)
    assert 1e-4 < np.abs(found[0] - found[1]).max() < 5e-4


def test_critics_are_made_of_the_layers_that_they_are_given():
    x, actions = draw(0, 5, 3), draw(1, 5, 2)
    network = TwinQ((8,), True, MLP)
    params = call(network.init, jax.random.key(0), x, actions)
    twin = {"params": params["params"]["MLP_1"]}
    both = jnp.concatenate([x, actions], axis=-1)
    alone = MLP(1, (8,), layer_norm=True).apply(twin, both)[:, 0]
    np.testing.assert_allclose(network.apply(params, x, actions)[1], alone, rtol=1e-6)
