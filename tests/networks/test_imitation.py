"""The networks of imitation against what is known of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.host_program import call
from jaxdiff.networks import BasicMLP, Norm, Sieve, Transformer
from jaxdiff.networks.layers import Linear

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
    return inputs, call(network.init, jax.random.key(2), *inputs)


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


def test_a_transformer_of_silent_blocks_passes_its_tokens_on():
    network = Transformer(3, embed=8, width=16, depth=2)
    inputs, params = made(network)
    layers = {
        name: jax.tree.map(jnp.zeros_like, each)
        if name.startswith(("attentions", "mlps"))
        else each
        for name, each in params["params"].items()
    }
    silent = {"params": layers}
    found = network.apply(silent, *inputs)
    for i, changed in enumerate(inputs):
        others = [*inputs[:i], changed + 1, *inputs[i + 1 :]]
        assert (network.apply(silent, *others) != found).all(), i


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


def test_sieve_sums_what_a_layer_of_parts_side_by_side_joins():
    network = SMALL["sieve"]
    (seen, action, time), params = made(network)
    module = network.bind(params)
    embedded = [
        module.encode(seen).reshape(2, -1),
        module.action_embedding(action),
        module.time_embedding(time),
    ]
    first = Linear(16).apply(
        {"params": params["params"]["layers_0"]}, jnp.concatenate(embedded, axis=-1)
    )
    (start, acted), (timed, _) = module.prepare(module.encode(seen), time)
    np.testing.assert_allclose(start + timed + embedded[1] @ acted, first, atol=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_levels_are_prepared_once_for_all_decisions(name):
    network = SMALL[name]
    (seen, action, _), params = made(network)
    embedding = network.apply(params, seen, method="encode")
    times = jnp.linspace(0, 1, 5)
    decision, told = network.apply(params, embedding, times, method="prepare")
    for i, time in enumerate(times):
        rows = jax.tree.map(lambda leaf, i=i: jnp.stack([leaf[i]] * 2), told)
        found = network.apply(params, decision, action, rows, method="denoise")
        alone = network.apply(params, seen, action, jnp.full(2, time))
        np.testing.assert_allclose(found, alone, atol=1e-6)


def test_sieve_halves_the_square_of_what_it_passes_on():
    network = Sieve(1, hidden=4, embed=8, norm=NO_NORM)
    (seen, action, time), params = made(network)
    params = jax.tree.map(jnp.zeros_like, params["params"])
    params["layers_0"]["bias"] = jnp.full(4, 10.0)  # GELU is the identity there
    params["out"]["kernel"] = params["out"]["kernel"].at[0].set(1.0)
    found = network.apply({"params": params}, seen, action, time)
    np.testing.assert_allclose(found, 10.0 / 2, rtol=1e-6)
