"""Critics and actors: the sizes of the papers, and what they promise."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.host_program import call
from jaxdiff.networks import Actor, SquashedActor, TwinQ, Value

# States and actions of HalfCheetah, of Hopper and of AntMaze.
CHEETAH, HOPPER, ANT = (17, 6), (11, 3), (29, 8)


def size(network, *shapes):
    inputs = [jnp.zeros((1, n)) if n else jnp.zeros(1) for n in shapes]
    params = jax.eval_shape(network.init, jax.random.key(0), *inputs)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("task", "widths", "actor"),
    [
        (CHEETAH, (256, 256), 71_942),
        (HOPPER, (256, 256), 69_635),
        (ANT, (256,) * 4, 207_112),
    ],
)
def test_actors_have_the_size_of_srpo(task, widths, actor):
    states, actions = task
    assert size(Actor(actions, widths), states) == actor
    assert size(Actor(actions, widths, gaussian=True), states) == actor + actions


def test_critics_have_the_size_of_srpo():
    assert size(TwinQ(), *CHEETAH) == 144_386
    assert size(Value(), CHEETAH[0]) == 70_657


def test_twins_differ_and_see_state_and_action():
    inputs, actions = jax.random.normal(jax.random.key(1), (2, 5, 3))
    network: Any = TwinQ((16,))
    params = call(network.init, jax.random.key(0), inputs, actions)
    values = network.apply(params, inputs, actions)
    assert values.shape == (2, 5)
    assert (values[0] != values[1]).all()
    assert (network.apply(params, inputs, 2 * actions) != values).all()
    assert (network.apply(params, 2 * inputs, actions) != values).all()
    # No environment sees another.
    np.testing.assert_allclose(
        network.apply(params, inputs[:2], actions[:2]), values[:, :2], rtol=1e-5
    )


def test_layer_norm_makes_hidden_layers_blind_to_scale():
    x = jax.random.normal(jax.random.key(1), (4, 3))
    for layer_norm in (False, True):
        network: Any = Value((16,), layer_norm=layer_norm)
        params = call(network.init, jax.random.key(0), x)
        # Without biases a layer's output grows as its input does.
        params = jax.tree.map(lambda p: p * (p.ndim > 1) + (p.ndim == 1) * 0.0, params)
        if layer_norm:
            norm = params["params"]["ReLUNet_0"]["LayerNorm_0"]
            norm["scale"] = jnp.ones_like(norm["scale"])
        once, tenfold = (network.apply(params, k * x) for k in (1.0, 10.0))
        expected = once if layer_norm else 10 * once
        np.testing.assert_allclose(tenfold, expected, rtol=1e-2)


def test_hidden_layers_are_normalised_before_their_relu():
    x = jax.random.normal(jax.random.key(1), (4, 3))
    network: Any = Value((16,), layer_norm=True)
    params = call(network.init, jax.random.key(0), x)
    # The sum of what leaves a ReLU; after a norm it would be zero.
    params["params"]["ReLUNet_0"]["Linear_1"] = {
        "kernel": jnp.ones((16, 1)), "bias": jnp.zeros(1),
    }  # fmt: skip
    assert (network.apply(params, x) > 1).all()


def test_the_spread_of_squashed_actors_is_bounded():
    x = 1e5 * jax.random.normal(jax.random.key(1), (64, 3))
    network: Any = SquashedActor(2, (16,))
    _, std = network.apply(network.init(jax.random.key(0), x), x)
    np.testing.assert_allclose(
        jnp.log(jnp.stack([std.min(), std.max()])), [-5, 2], rtol=1e-5
    )


def test_actors_stay_in_the_box_and_keep_their_spread():
    x = 1e3 * jax.random.normal(jax.random.key(1), (64, 3))
    network: Any = Actor(2, (16,), gaussian=True)
    params = call(network.init, jax.random.key(0), x)
    mean, std = network.apply(params, x)
    assert np.abs(mean).max() <= 1
    assert np.abs(mean).max() > 0.99
    np.testing.assert_array_equal(std, 1)  # one for all states, and one at first
    for log_std, bound in ((-99.0, -5.0), (99.0, 2.0)):
        params["params"]["log_std"] = jnp.full(2, log_std)
        np.testing.assert_allclose(network.apply(params, x)[1], np.exp(bound))
    dirac: Any = Actor(2, (16,))
    assert dirac.init_with_output(jax.random.key(0), x)[0][1] is None
