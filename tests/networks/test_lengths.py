"""Networks of trajectories in arrays that are longer than the trajectories."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.networks import Conditioned, DiT, TemporalUNet
from jaxdiff.networks.norm_mish import norm_mish

RNG = np.random.default_rng(0)
TIME = jnp.array([1.0, 5.0])

NETWORKS = {
    "unet": (TemporalUNet(dim=16, dim_mults=(1, 2)), [6, 10]),
    "unet with everything": (
        TemporalUNet(
            dim=8, dim_mults=(1, 2), attention=True, show_ends=True, patch=2,
            norm_by_row=True,
        ),
        [4, 8],
    ),
    "dit": (DiT(dim=8, width=32, depth=1, heads=1, patch=2), [2, 8]),
}  # fmt: skip


def noised(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def drawn(network, *arguments):
    """Parameters of which none is zero, so that every layer counts."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), *arguments)
    return jax.tree.map(lambda leaf: 0.3 * noised(*leaf.shape), shapes)


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_that_count_are_what_they_would_be_alone(name):
    network, lengths = NETWORKS[name]
    x, condition = noised(2, 12, 3), noised(2, 4)
    params = drawn(network, x, TIME, condition)

    @jax.jit
    def padded(params, x):
        return network.apply(params, x, TIME, condition, jnp.array(lengths))

    found = padded(params, x)
    for b, length in enumerate(lengths):
        one = slice(b, b + 1)
        given = x[one, :length], TIME[one], condition[one]
        alone = jax.jit(network.apply)(params, *given)
        np.testing.assert_allclose(
            found[b, :length], alone[0], atol=2e-5 * jnp.abs(alone).max()
        )
    # What lies beyond is not read.
    beyond = jnp.arange(12)[:, None] >= jnp.array(lengths)[:, None, None]
    other = padded(params, jnp.where(beyond, 100.0, x))
    np.testing.assert_array_equal(
        jnp.where(beyond, 0.0, other), jnp.where(beyond, 0.0, found)
    )


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_gradients_are_those_of_the_rows_that_count(name):
    network, (length, _) = NETWORKS[name]
    x, weight = noised(1, 12, 3), noised(1, 12, 3)
    params = drawn(network, x, TIME[:1])

    def gradient(rows, *length):
        def loss(params, x):
            y = network.apply(params, x, TIME[:1], None, *length)
            return (y[:, :rows] * weight[:, :rows]).sum() / 10

        return jax.jit(jax.grad(loss, (0, 1)))

    ours = gradient(length, jnp.array([length]))(params, x)
    alone = gradient(length)(params, x[:, :length])
    np.testing.assert_array_equal(ours[1][:, length:], 0.0)
    ours = ours[0], ours[1][:, :length]
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(alone))
    for one, other in zip(*map(jax.tree.leaves, (ours, alone)), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5 * scale)


def test_the_gradient_of_norm_and_mish_is_that_of_autodiff_in_all_rows():
    x, scale, bias, g = noised(2, 5, 8), noised(8), noised(8), noised(2, 5, 8)
    length = jnp.array([2, 5])

    def plain(x, scale, bias):
        split = x.reshape(2, 5, 4, 2)
        counts = (jnp.arange(5) < length[:, None])[..., None, None]

        def mean(x):
            sums = jnp.where(counts, x, 0.0).sum((1, 3), keepdims=True)
            return sums / (2 * length[:, None, None, None])

        centred = split - mean(split)
        normalized = centred / jnp.sqrt(mean(centred**2) + 1e-5)
        z = normalized.reshape(x.shape) * scale + bias
        return z * jnp.tanh(jnp.logaddexp(z, 0.0))

    def ours(x, scale, bias):
        return norm_mish(x, scale, bias, 4, 1e-5, length)

    given = x, scale, bias
    (y, pull), (exact, pull_exact) = (jax.vjp(f, *given) for f in (ours, plain))
    np.testing.assert_allclose(y, exact, rtol=1e-4, atol=1e-5)
    for one, other in zip(pull(g), pull_exact(g), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_a_condition_and_a_length_go_together():
    network = Conditioned(TemporalUNet(dim=8, dim_mults=(1,)), dim=8)
    x, condition, keep = noised(2, 8, 3), noised(2, 2), jnp.array([True, False])
    params = drawn(network, x, TIME, condition, keep)
    length = jnp.array([5, 5])
    apply = jax.jit(network.apply)
    found = apply(params, x, TIME, condition, keep, length=length)
    alone = apply(params, x[:, :5], TIME, condition, keep)
    np.testing.assert_allclose(
        found[:, :5], alone, atol=2e-5 * float(jnp.abs(alone).max())
    )
