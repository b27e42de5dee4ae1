"""The networks of imitation against what is known of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.networks import BasicMLP, ImageEncoder, Norm, Sieve, Transformer, images
from jaxdiff.networks.images import _Block
from jaxdiff.networks.imitation import Attention, SineEmbedding

NO_NORM = functools.partial(Norm, "none")
BATCH_NORM = functools.partial(Norm, "batch")
SMALL = {
    "mlp": BasicMLP(3, hidden=16),
    "sieve": Sieve(3, hidden=16, embed=8),
    "transformer": Transformer(3, embed=8, width=16, depth=1),
    "released": Transformer(3, embed=8, width=16, depth=1, lean=False),
}


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def made(network, *, history=2, size=4, batch=2):
    inputs = draw(0, batch, history, size), draw(1, batch, 3), jnp.linspace(0.2, 1, 2)
    return inputs, jax.jit(network.init)(jax.random.key(2), *inputs)


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (BasicMLP(9), 566_281),
        (Sieve(9), 860_899),
        (Transformer(9, lean=False), 18_074_313),
        (Transformer(9), 18_074_313 - 4 * (4_497_024 - 298_624)),
    ],
)
def test_parameter_counts_of_the_kitchen(network, parameters):
    shapes = jax.eval_shape(
        network.init,
        jax.random.key(0),
        jnp.ones((1, 2, 30)),
        jnp.ones((1, 9)),
        jnp.ones(1),
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


@pytest.mark.parametrize("network", [Sieve, Transformer])
def test_batch_norm_has_the_parameters_of_layer_norm(network):
    counts = []
    for norm in (Norm, BATCH_NORM, NO_NORM):
        shapes = jax.eval_shape(
            network(3, norm=norm).init,
            jax.random.key(0),
            jnp.ones((1, 2, 4)),
            jnp.ones((1, 3)),
            jnp.ones(1),
        )["params"]
        counts.append(sum(leaf.size for leaf in jax.tree.leaves(shapes)))
    assert counts[0] == counts[1] > counts[2]


def test_batch_norm_takes_the_batch_s_statistics_and_remembers_them():
    norm = Norm("batch")
    x = 3.0 + 2.0 * draw(0, 256, 5, 4)
    variables = norm.init(jax.random.key(0), x)
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


@pytest.mark.parametrize("name", SMALL)
def test_sees_each_input_and_mixes_no_batch(name):
    network = SMALL[name]
    (seen, action, time), params = made(network)
    apply = jax.jit(network.apply)
    base = apply(params, seen, action, time)
    changes = [
        apply(params, seen.at[1, 0, 3].add(1.0), action, time),
        apply(params, seen.at[1, 1, 3].add(1.0), action, time),
        apply(params, seen[:, ::-1].at[0].set(seen[0]), action, time),
        apply(params, seen, action.at[1, 2].add(1.0), time),
        apply(params, seen, action, time.at[1].add(1.0)),
    ]
    for changed in changes:
        np.testing.assert_allclose(changed[0], base[0], atol=1e-6)
        assert jnp.abs(changed[1] - base[1]).max() > 1e-4


@pytest.mark.parametrize("name", SMALL)
def test_encodes_each_observation_on_its_own(name):
    network = SMALL[name]
    (seen, _, _), params = made(network)
    both = network.apply(params, seen, method="encode")
    for i in range(2):
        one = network.apply(params, seen[:, i : i + 1], method="encode")
        np.testing.assert_allclose(one, both[:, i : i + 1], atol=1e-6)


def test_sieve_shows_every_layer_the_raw_action_and_time():
    network = SMALL["sieve"]
    (seen, action, time), params = made(network)
    shapes = {
        name: params["params"][name]["kernel"].shape
        for name in ("layers_0", "layers_1", "layers_2", "out")
    }
    assert shapes["layers_0"] == ((2 + 2) * 8, 16)
    assert shapes["layers_1"] == shapes["layers_2"] == (16 + 3 + 1, 16)
    assert shapes["out"] == (16 + 3 + 1, 3)
    # With silent layers nothing is left but the last one's own look at them.
    silent = jax.tree.map(jnp.zeros_like, params["params"]) | {
        "out": params["params"]["out"]
    }
    last = params["params"]["out"]
    raw = jnp.concatenate([action, time[:, None]], axis=-1)
    found = network.apply({"params": silent}, seen, action, time)
    np.testing.assert_allclose(
        found, raw @ last["kernel"][16:] + last["bias"], atol=1e-6
    )


def test_sieve_halves_the_square_of_what_it_passes_on():
    network = Sieve(1, hidden=4, embed=8, norm=NO_NORM)
    (seen, action, time), params = made(network)
    params = jax.tree.map(jnp.zeros_like, params["params"])
    params["layers_0"]["bias"] = jnp.full(4, 10.0)  # GELU is the identity there
    params["out"]["kernel"] = params["out"]["kernel"].at[0].set(1.0)
    found = network.apply({"params": params}, seen, action, time)
    np.testing.assert_allclose(found, 10.0 / 2, rtol=1e-6)


def test_attention_of_equal_tokens_is_their_value():
    for lean in (True, False):
        network = Attention(heads=2, width=4, lean=lean)
        x = jnp.tile(draw(0, 1, 1, 6), (1, 5, 1))
        params = network.init(jax.random.key(1), x)
        alone = network.apply(params, x[:, :1])
        np.testing.assert_allclose(network.apply(params, x)[:, 2:3], alone, atol=1e-5)


def test_attention_knows_no_order_but_the_transformer_does():
    network = Attention(heads=2, width=4)
    x, order = draw(0, 2, 5, 6), jnp.array([3, 0, 4, 2, 1])
    params = network.init(jax.random.key(1), x)
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
        for layer in released.init(jax.random.key(1), x)["params"].values()
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
    params = network.init(jax.random.key(0), x)
    zero, plus, minus = network.apply(params, x)
    np.testing.assert_allclose(plus - zero, zero - minus, atol=1e-6)
    assert jnp.abs(plus - zero).max() > 1e-3


@pytest.mark.parametrize("kind", ["residual", "strided", "patches"])
def test_images_are_read_to_their_corners(kind):
    shape = (12, 16, 3)
    network = ImageEncoder(shape, kind=kind)
    x = jax.random.uniform(jax.random.key(0), (1, 2, 12 * 16 * 3))
    params = jax.jit(network.init)(jax.random.key(1), x)
    apply = jax.jit(network.apply)
    base = apply(params, x)
    slopes = jax.jit(jax.grad(lambda x: jnp.square(network.apply(params, x)).sum()))(x)
    slopes = np.asarray(slopes).reshape(2, *shape)
    assert np.abs(slopes).sum(-1)[:, [0, 0, -1, -1], [0, -1, 0, -1]].min() > 0
    # One image of a history does not touch the other.
    other = apply(params, x.at[0, 1].set(0.5))
    np.testing.assert_allclose(other[0, 0], base[0, 0], atol=1e-5)
    assert jnp.abs(other[0, 1] - base[0, 1]).max() > 1e-3


def test_an_image_block_adds_what_it_was_given_if_it_can():
    x = draw(0, 1, 4, 4, 2)
    for features, given in ((2, x), (3, 10.0)):
        block = _Block(features, norm=NO_NORM)
        params = jax.tree.map(
            jnp.zeros_like, block.init(jax.random.key(1), x)["params"]
        )
        # GELU is the identity at 10 and 20.
        params["_Convolution_0"]["Conv_0"]["bias"] += 10.0
        params["_Convolution_1"]["Conv_0"]["bias"] += 20.0
        expected = np.broadcast_to((given + 20.0) / np.sqrt(2), (1, 4, 4, features))
        found = block.apply({"params": params}, x)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_residual_images_give_as_many_features_as_the_claw_s():
    for shape, features in (((32, 32, 3), 128), ((150, 280, 3), 128 * 4 * 8)):
        network = ImageEncoder(shape)
        x = jax.ShapeDtypeStruct((1, 1, int(np.prod(shape))), jnp.float32)
        out = jax.eval_shape(network.init_with_output, jax.random.key(0), x)[0]
        assert out.shape == (1, 1, features)


@pytest.mark.parametrize("shape", [(2, 3, 1), (5, 5, 3), (32, 32, 3), (150, 280, 3)])
@pytest.mark.parametrize("kind", ["residual", "strided"])
def test_images_may_be_of_any_size(kind, shape):
    network = ImageEncoder(shape, kind=kind)
    x = jax.ShapeDtypeStruct((1, 2, int(np.prod(shape))), jnp.float32)
    out = jax.eval_shape(network.init_with_output, jax.random.key(0), x)[0]
    assert out.shape[:2] == (1, 2)
    assert out.shape[2] >= (64 if kind == "strided" else 128)


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [((5, 7), 3, 1), ((9, 6), 8, 4), ((3, 2), 8, 4)]
)
def test_image_convolutions_are_xla_s(size, kernel, stride, monkeypatch):
    x, w = draw(0, 2, *size, 3), draw(1, kernel, kernel, 3, 4)

    def both(x, w):
        return images.image_conv(x, w, stride=stride)

    found, pull = jax.vjp(both, x, w)
    monkeypatch.setattr(images, "_MOST_PLACES", 0)
    expected, expected_pull = jax.vjp(both, x, w)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    for one, other in zip(pull(found), expected_pull(found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-2)


def test_stacked_images_are_one_of_more_channels():
    shape = (8, 12, 3)
    x = draw(0, 2, 2, 8 * 12 * 3)
    stacked = ImageEncoder(shape, kind="patches", stacked=True)
    found, variables = stacked.init_with_output(jax.random.key(0), x)
    assert found.shape == (2, 1, 2 * 3 * 32)
    # The same as one image whose channels are those of both.
    both = jnp.concatenate([x[:, 0].reshape(2, *shape), x[:, 1].reshape(2, *shape)], -1)
    plain = ImageEncoder((8, 12, 6), kind="patches")
    expected = plain.apply(variables, both.reshape(2, 1, -1))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # What moves is told from what moves the other way.
    assert jnp.abs(stacked.apply(variables, x[:, ::-1]) - found).max() > 0.1


@pytest.mark.parametrize("kind", ["residual", "strided"])
def test_images_keep_as_many_places_as_are_asked_for(kind):
    shape = (150, 280, 3)
    x = jax.ShapeDtypeStruct((1, 1, int(np.prod(shape))), jnp.float32)

    def features(places):
        network = ImageEncoder(shape, kind=kind, places=places)
        init = network.init_with_output
        return jax.eval_shape(init, jax.random.key(0), x)[0].shape[-1]

    # Of 37 x 70 places, or 19 x 35, windows of whole places are averaged.
    channels, places = (128, (12, 14)) if kind == "residual" else (64, (9, 11))
    assert features(16) == channels * np.prod(places)
    assert features(70) == channels * (37 * 70 if kind == "residual" else 19 * 35)
    if kind == "strided":
        assert features(4) == features(0)
