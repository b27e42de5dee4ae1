"""The score network of actions: the size of the paper's, inputs and dropout."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.host_program import call
from jaxdiff.networks import ScoreMLP
from jaxdiff.networks.score_mlp import FREQUENCIES

# States and actions of HalfCheetah, of Hopper and of AntMaze.
CHEETAH, HOPPER, ANT = (17, 6), (11, 3), (29, 8)


def size(network, *shapes):
    inputs = [jnp.zeros((1, n)) if n else jnp.zeros(1) for n in shapes]
    params = jax.eval_shape(network.init, jax.random.key(0), *inputs)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("task", "score"), [(CHEETAH, 1_643_526), (HOPPER, 1_640_451), (ANT, 1_647_624)]
)
def test_the_score_network_has_the_size_of_srpo(task, score):
    states, actions = task
    assert size(ScoreMLP(actions), actions, 0, states) == score


def test_the_frequencies_are_those_of_the_paper():
    assert len(FREQUENCIES) == 32
    # The standard deviation of 32 draws is known to an eighth.
    assert 30 * 0.6 < np.std(FREQUENCIES) < 30 * 1.4


def score_network(**options):
    network: Any = ScoreMLP(2, width=32, blocks=2, time_width=8, **options)
    x, condition = jax.random.normal(jax.random.key(1), (2, 6, 2))
    time = jnp.linspace(0.1, 0.9, 6)
    params = call(network.init, jax.random.key(0), x, time, condition)
    return network, params, (x, time, condition)


def test_the_score_network_sees_all_it_is_given():
    network, params, (x, time, condition) = score_network()
    found = network.apply(params, x, time, condition)
    for changed in ((x + 1, time, condition), (x, time + 0.01, condition)):
        assert (network.apply(params, *changed) != found).all()
    assert (network.apply(params, x, time, condition + 1) != found).all()


def test_dropout_is_drawn_for_each_example_alone():
    network, params, inputs = score_network(dropout=0.5)
    keys = jax.random.split(jax.random.key(2), 6)
    whole = network.apply(params, *inputs, keys)
    part = network.apply(params, *(x[2:4] for x in inputs), keys[2:4])
    np.testing.assert_allclose(part, whole[2:4], atol=1e-6)
    assert (whole != network.apply(params, *inputs)).any()
    others = network.apply(params, *inputs, jax.random.split(jax.random.key(3), 6))
    assert (others != whole).any()


def test_dropout_hides_its_share_in_every_block():
    network, params, _ = score_network(dropout=0.25)
    keys = jax.random.split(jax.random.key(2), 400)
    kept = network.apply(params, keys, method="_kept")
    assert kept.shape == (400, 2, 32)
    np.testing.assert_allclose(kept.mean(), 0.75, atol=0.01)
    assert (kept[:, 0] != kept[:, 1]).any()


def with_layer(params, name, kernel, bias):
    """Parameters whose layer of a name has constant weights and constant biases."""
    layer = {
        "kernel": jnp.full_like(params["params"][name]["kernel"], kernel),
        "bias": jnp.full_like(params["params"][name]["bias"], bias),
    }
    return {"params": {**params["params"], name: layer}}


# The first layer of the stream, the last one of each block, and the last of all.
STREAM, BLOCKS, LAST = "Linear_2", ("Linear_3", "Linear_5"), "Linear_7"


def test_silent_blocks_pass_the_stream_on():
    network, params, inputs = score_network()
    for name in BLOCKS:
        params = with_layer(params, name, 0.0, 0.0)
    short: Any = ScoreMLP(2, width=32, blocks=0, time_width=8)
    names = {f"Linear_{i}": f"Linear_{i}" for i in range(3)} | {"Linear_3": LAST}
    same = {"params": {new: params["params"][old] for new, old in names.items()}}
    np.testing.assert_allclose(
        network.apply(params, *inputs), short.apply(same, *inputs), rtol=1e-5
    )


def test_blocks_are_blind_to_the_scale_of_the_stream():
    network, params, inputs = score_network()
    for name in BLOCKS[1:]:
        params = with_layer(params, name, 0.0, 0.0)
    silent = with_layer(params, BLOCKS[0], 0.0, 0.0)

    def added(scale):
        """What the first block adds to a stream that is large, where Mish is linear."""
        stream = {"kernel": jnp.zeros_like(params["params"][STREAM]["kernel"]),
                  "bias": scale * jnp.linspace(30, 60, 32)}  # fmt: skip
        found, without = (
            network.apply({"params": {**each["params"], STREAM: stream}}, *inputs)
            for each in (params, silent)
        )
        return found - without

    np.testing.assert_allclose(added(8.0), added(1.0), rtol=1e-2, atol=1e-3)
    assert np.abs(added(1.0)).max() > 0.01


def test_a_stream_far_below_zero_says_nothing():
    network, params, inputs = score_network()
    params = with_layer(params, STREAM, 0.0, -500.0)
    np.testing.assert_allclose(
        network.apply(params, *inputs), jnp.tile(params["params"][LAST]["bias"], (6, 1))
    )
