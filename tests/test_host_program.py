"""Programs as NumPy calls: equal to XLA's, and refused where they must be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import host_program as module
from jaxdiff.host_program import MOST_WORK, call, host_program
from jaxdiff.networks import ReLUNet


def both(function, *arrays, constants=()):
    """What NumPy calls and XLA make of a function; `constants` are positions."""
    closed = jax.make_jaxpr(function)(*arrays)
    leaves = jax.tree.leaves(arrays)
    run = host_program(closed, {i: leaves[i] for i in constants})
    assert run is not None
    free = [leaf for i, leaf in enumerate(leaves) if i not in constants]
    return run(*free), jax.tree.leaves(jax.jit(function)(*arrays))


def check(function, *arrays, constants=(), atol=1e-6):
    found, expected = both(function, *arrays, constants=constants)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=atol)
        assert np.asarray(mine).dtype == theirs.dtype
        assert np.shape(mine) == theirs.shape


X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32)
B = np.arange(5, dtype=np.float32)


@pytest.mark.parametrize("constants", [(), (1, 2), (0,)])
@pytest.mark.parametrize(
    "activation",
    [jax.nn.relu, jnp.tanh, jax.nn.gelu, jax.nn.silu, jax.nn.leaky_relu, jax.nn.relu6],
)
def test_a_layer_is_that_of_xla(activation, constants):
    check(lambda x, w, b: activation(x @ w + b), X, W, B, constants=constants)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1) + 1)[:, None],
        lambda x: jnp.split(x, 2, axis=-1),
        lambda x: jnp.split(x, [1, 3], axis=0),
        lambda x: jnp.where(x > 0, jnp.exp(-x), jnp.log1p(jnp.abs(x))),
        lambda x: jnp.concatenate([x[:, 1:3].T, x.reshape(4, 3)], axis=0),
        lambda x: jnp.take(x, jnp.array([2, 0, 2]), axis=1),
        lambda x: jnp.clip(x, -0.5, 0.5)[:, None, ::2],
        lambda x: x.argmax(-1) * 2 + (x.max(0) > 0).any(),
        lambda x: jnp.broadcast_to(x[0] ** 3, (2, 4)),
        lambda x: jax.lax.rsqrt(jax.nn.softplus(x)) - jnp.sign(x),
        lambda x: ((4 * x).astype(jnp.int32) + 1, ~(x > 0) | (x < -1)),
    ],
)
def test_an_operation_is_that_of_xla(function):
    check(function, X)


def test_what_depends_on_constants_alone_is_computed_once(monkeypatch):
    closed = jax.make_jaxpr(lambda x, w, b: x @ jnp.tanh(w * 2.0) + b[None] * 3)(
        X, W, B
    )
    calls = []
    tanh = module._ELEMENTWISE["tanh"]
    monkeypatch.setitem(
        module._ELEMENTWISE, "tanh", lambda x: (calls.append(x.shape), tanh(x))[1]
    )
    run = host_program(closed, {1: W, 2: B})
    assert calls == [W.shape]
    for _ in range(2):
        np.testing.assert_allclose(
            run(X)[0], X @ np.tanh(W * 2) + 3 * B, rtol=1e-5, atol=1e-5
        )
    assert calls == [W.shape]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + jax.random.normal(jax.random.key(x[0, 0].astype(int)), x.shape),
        lambda x: jax.lax.scan(lambda c, row: (c + row, c), x[0], x)[0],
        lambda x: x[x[:, 0].astype(int)],
        lambda x: jnp.einsum("bi,bj->bij", x, x),
        lambda x: jnp.cumsum(x, axis=0),
    ],
)
def test_an_operation_that_is_not_known_is_left_to_xla(function):
    assert host_program(jax.make_jaxpr(function)(X), {}) is None


def test_large_products_are_left_to_xla():
    rows = MOST_WORK // (2 * W.size) + 1
    few, many = np.zeros((rows // 2, 4), np.float32), np.zeros((rows, 4), np.float32)
    for x, fits in ((few, True), (many, False)):
        closed = jax.make_jaxpr(lambda x, w: x @ w)(x, W)
        assert (host_program(closed, {1: W}) is not None) == fits


# --- functions of constants ----------------------------------------------------------


def test_parameters_are_drawn_as_xla_draws_them_and_nothing_is_compiled(compilations):
    network = ReLUNet(3, (4, 5), layer_norm=True)

    def init(key, batch):
        return network.init(key, batch), jnp.int32(len(batch))

    given = jax.random.key(3), jnp.ones((1, 2))
    compilations.clear()
    found = call(init, *given)
    assert not compilations
    for mine, theirs in zip(
        jax.tree.leaves(found), jax.tree.leaves(jax.jit(init)(*given)), strict=True
    ):
        assert isinstance(mine, np.ndarray)
        assert mine.flags.writeable
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-7)
    assert jax.tree.structure(found) == jax.tree.structure(jax.eval_shape(init, *given))


@pytest.mark.parametrize(
    "draw",
    [
        lambda key: jax.random.normal(key, (3, 2)),
        lambda key: jax.random.uniform(key),
        lambda key: jax.random.randint(jax.random.split(key)[1], (4,), 0, 9),
        lambda key: jax.vmap(jax.random.uniform)(jax.random.split(key, 3)),
        lambda key: jax.random.fold_in(key, 4),  # a key is not an array of NumPy
        lambda key: jax.random.permutation(key, 5),
    ],
)
def test_a_call_returns_what_the_function_does(draw):
    key = jax.random.key(1)
    found, expected = call(draw, key), draw(key)
    if not isinstance(found, np.ndarray):
        found, expected = (jax.random.key_data(each) for each in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == expected.dtype


def test_what_a_function_does_besides_is_left_to_xla():
    """A print that was run while the calls are made would never be seen again."""
    seen = []

    def watched(x):
        jax.debug.callback(seen.append, x[0])
        return 2 * x

    x = np.arange(3.0, dtype=np.float32)
    assert host_program(jax.make_jaxpr(watched)(x), {0: x}) is None
    assert not seen
    np.testing.assert_array_equal(call(watched, x), [0, 2, 4])
    jax.effects_barrier()
    assert len(seen) == 1
