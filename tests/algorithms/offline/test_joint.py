"""Parts that train side by side, where their paths are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tables import Slope, run, table

from jaxdiff.algorithms.base import Averaging, by_part
from jaxdiff.algorithms.offline.joint import bellman_error, joint_learner
from jaxdiff.host_program import call

BATCH = table([(0, 0, 1.0, 0, False), (0, 0, 3.0, 0, True)], states=1, actions=1)


def chase(mine, context, other):
    return (mine - context.params[other]) ** 2, {f"key of {other}": draw(context.keys)}


def draw(keys):
    return jax.vmap(jax.random.normal)(keys).mean()


def learner(**options):
    return joint_learner(
        lambda data, frozen, key: data,
        lambda key, batch: {"one": jnp.float32(2.0), "two": jnp.float32(-1.0)},
        {
            "one": lambda mine, context: chase(mine, context, "two"),
            "two": lambda mine, context: chase(mine, context, "one"),
        },
        {"one": optax.sgd(0.5), "two": optax.sgd(0.25)},
        averages={"late": Averaging(0.75, part="two")},
        **options,
    )


def test_parts_move_at_once_and_each_by_its_own_optimizer():
    _, state, metrics = run(learner(), BATCH, 1)
    # One jumps to where two was, and two goes half the way to where one was.
    assert float(state.params["one"]) == -1.0
    assert float(state.params["two"]) == 0.5
    assert float(state.slow["late"]) == 0.75 * -1.0 + 0.25 * 0.5
    assert float(metrics["loss"][0]) == 18.0
    assert metrics["key of one"] != metrics["key of two"]


def test_the_rate_of_all_parts_falls_to_zero():
    built = learner(learning_rate_decay=0.5)
    at = {"num_steps": np.full(1, 4)}
    (one, two), (same, _) = (run(built, BATCH, n, hyper=at)[1:] for n in (2, 3))
    # A full step, then half of one, and none after two of four updates.
    states = [(2.0, -1.0), (-1.0, 0.5), (0.5 * -1 + 0.5 * 0.5, 0.5 + 0.25 * -1.5)]
    np.testing.assert_allclose(one.params["one"], states[-1][0], rtol=1e-6)
    np.testing.assert_allclose(one.params["two"], states[-1][1], rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, one.params, same.params)
    assert two["loss"].shape == (1, 2)


def test_a_mean_is_that_of_the_whole_batch():
    def loss(mine, context):
        size = context.mean(context.batch.rewards)
        return mine * size, {"size": size}

    built = joint_learner(
        lambda data, frozen, key: data,
        lambda key, batch: {"only": jnp.float32(0.0)},
        {"only": loss},
        {"only": optax.sgd(1.0)},
        averages={},
    )
    state = call(built.init, jax.random.key(0), BATCH, {})
    keys = jax.random.split(jax.random.key(0), 2)
    halves = jax.tree.map(lambda x: jnp.asarray(x)[:, None], BATCH)
    _, metrics = jax.vmap(
        lambda key, half: built.update(state, key, half, {}, {}, axis_name="i"),
        axis_name="i",
    )(keys[:, None], halves)
    np.testing.assert_allclose(metrics["size"], [2, 2])


def test_optimizers_by_part_leave_no_part_out():
    optimizer = by_part({"a": optax.sgd(1.0), "b": optax.adam(0.1)})
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    moves, _ = optimizer.update(params, optimizer.init(params), params)
    np.testing.assert_allclose(moves["a"], -1)
    np.testing.assert_allclose(moves["b"], -0.1, rtol=1e-4)


@pytest.mark.parametrize("discount", [0.0, 0.5])
def test_the_error_of_bellman(discount):
    # Found are 3 and 5; wanted 1 + discount 8, and 3 where all ends.
    loss, value = bellman_error(
        Slope(), jnp.zeros(2), BATCH, jnp.full(2, 8.0), discount
    )
    wanted = [1 + discount * 8, 3]
    expected = np.mean([(q - w) ** 2 for q in (3, 5) for w in wanted])
    np.testing.assert_allclose(loss, expected)
    np.testing.assert_allclose(value, 4)
