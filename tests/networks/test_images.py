"""Encoders of pictures: what they see, and how much they tell."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.host_program import call
from jaxdiff.networks import ImageEncoder, Norm, images
from jaxdiff.networks.images import _Block

NO_NORM = functools.partial(Norm, "none")


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("kind", ["residual", "strided", "patches"])
def test_images_are_read_to_their_corners(kind):
    shape = (12, 16, 3)
    network = ImageEncoder(shape, kind=kind)
    x = jax.random.uniform(jax.random.key(0), (1, 2, 12 * 16 * 3))
    params = call(network.init, jax.random.key(1), x)
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
            jnp.zeros_like, call(block.init, jax.random.key(1), x)["params"]
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
