"""The critic of IQL on tables, where the right values are arithmetic."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tables import TableQ, TableV, run, table

from jaxdiff.algorithms.offline.critic import (
    critic_learner,
    expectile_loss,
    q_gradient,
)
from jaxdiff.host_program import call
from jaxdiff.networks import TwinQ

DISCOUNT = 0.5
# Two steps to an end; a loop that no time limit ends; and a choice of which one
# transition in four is the good one.
CHAIN = [(0, 0, 1.0, 1, False), (1, 0, 1.0, 0, True)]
LOOP = [(2, 0, 1.0, 2, False)]
CHOICE = [(3, 0, 0.0, 0, True)] * 3 + [(3, 1, 1.0, 0, True)]
BATCH = table([*CHAIN, *LOOP, *CHOICE], states=4, actions=2)


def expectile_of(share, tau):
    """The expectile of a coin that is 1 so often: tau share / (... + the rest)."""
    return tau * share / (tau * share + (1 - tau) * (1 - share))


def learner(*, expectile=0.9, target_rate=0.1, optimizer=None, q=None, v=None):
    return critic_learner(
        q or TableQ(),
        v or TableV(),
        lambda data, frozen, key: data,
        optimizer or optax.adam(optax.exponential_decay(0.05, 100, 0.5)),
        expectile=expectile,
        discount=DISCOUNT,
        target_rate=target_rate,
    )


@pytest.mark.parametrize("tau", [0.3, 0.5, 0.9])
def test_an_expectile_is_where_its_loss_is_least(tau):
    coin = jnp.asarray([0.0, 0.0, 0.0, 1.0])
    values = jnp.linspace(0, 1, 1001)
    losses = jax.vmap(lambda v: expectile_loss(coin - v, tau).mean())(values)
    least = values[losses.argmin()]
    np.testing.assert_allclose(least, expectile_of(0.25, tau), atol=1e-3)


def test_the_middle_expectile_is_least_squares():
    error = jnp.asarray([-2.0, 0.0, 3.0])
    np.testing.assert_allclose(expectile_loss(error, 0.5), error**2 / 2)


@pytest.mark.parametrize("tau", [0.5, 0.9])
def test_values_are_known(tau):
    _, state, _ = run(learner(expectile=tau), BATCH, 1500)
    # An end has nothing beyond it, a time limit has: 1 + 1/2 + 1/4 + ...
    expected = [1 + DISCOUNT, 1, 1 / (1 - DISCOUNT), expectile_of(0.25, tau)]
    np.testing.assert_allclose(state.params["v"], expected, atol=0.01)
    for tables in (state.params["q"], state.slow["target"]):
        found = TableQ().apply(tables, BATCH.inputs, BATCH.actions)
        truth = [1.5, 1, 2, 0, 0, 0, 1]
        np.testing.assert_allclose(found, [truth, truth], atol=0.01)


def test_values_follow_the_smaller_target():
    # Targets that never move stay at zeros and ones.
    _, state, _ = run(learner(target_rate=0.0), BATCH, 500)
    np.testing.assert_allclose(state.params["v"], 0, atol=1e-3)
    np.testing.assert_array_equal(state.slow["target"][1], 1)
    found = TableQ().apply(state.params["q"], BATCH.inputs, BATCH.actions)
    np.testing.assert_allclose(found, [BATCH.rewards] * 2, atol=0.01)


def test_targets_move_by_their_rate():
    before, after, _ = run(learner(target_rate=0.1), BATCH, 1)
    assert (after.params["q"] != before.params["q"]).any()
    np.testing.assert_allclose(
        after.slow["target"],
        0.9 * before.slow["target"] + 0.1 * after.params["q"],
        rtol=1e-6,
    )


def test_one_update_reads_the_value_before_it_changes():
    # Plain descent from a value of 1 in all states, where targets of 6 pull V up.
    class Ones(TableV):
        def init(self, key, inputs):
            return jnp.ones(inputs.shape[-1])

    class Sixes(TableQ):
        def init(self, key, inputs, actions):
            return 0 * super().init(key, inputs, actions) + 6

    before, after, metrics = run(
        learner(optimizer=optax.sgd(1.0), q=Sixes(), v=Ones()), BATCH, 1
    )
    assert (after.params["v"] > 1).all()
    moved = (after.params["q"] - before.params["q"])[0, 2, 0]
    # The loop wants 1 + 1/2 of the old V; a mean over 7 transitions and 2 twins.
    np.testing.assert_allclose(moved, 2 * (1.5 - 6) / 14, rtol=1e-6)
    np.testing.assert_allclose(
        metrics["loss"], metrics["value_loss"] + metrics["q_loss"], rtol=1e-6
    )


def test_expectiles_may_be_swept_side_by_side():
    taus = np.array([0.5, 0.7, 0.9], np.float32)
    _, state, _ = run(learner(), BATCH, 1500, hyper={"expectile": taus})
    np.testing.assert_allclose(
        state.params["v"][:, 3], expectile_of(0.25, taus), atol=0.01
    )


def test_the_gradient_of_q_is_that_of_the_mean_of_both():
    inputs, actions = jax.random.normal(jax.random.key(1), (2, 3, 2))
    q: Any = TwinQ((8,))
    params = call(q.init, jax.random.key(0), inputs, actions)
    values, gradient = q_gradient(q, params, inputs, actions)
    mean = jax.jit(lambda actions: q.apply(params, inputs, actions).mean(0))
    np.testing.assert_allclose(values, mean(actions), rtol=1e-5)
    for entry in range(2):
        step = jnp.zeros((3, 2)).at[:, entry].set(1e-3)
        rise = (mean(actions + step) - mean(actions - step)) / 2e-3
        np.testing.assert_allclose(gradient[:, entry], rise, atol=2e-3)
