"""BEAR: its discrepancy, and the policy that it holds to the behaviour."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import Crossed, Places, Slope, run, table

from jaxdiff.algorithms.base import TrainState
from jaxdiff.algorithms.offline.bear import BEARConfig, bear_learner, discrepancy
from jaxdiff.errors import UserError
from jaxdiff.host_program import call

DISCOUNT, ACTION, MIDDLE = 0.5, 0.3, 0.4
BATCH = table([(0, 0, 1.0, 0, False)] * 128, states=1, actions=1)
BATCH.actions[:] = ACTION


def test_equal_draws_are_alike_and_points_are_as_unlike_as_their_kernel():
    x = jax.random.normal(jax.random.key(0), (3, 5, 2))
    for kernel in ("laplacian", "gaussian"):
        same = discrepancy(x, x, kernel=kernel, width=2.0)
        np.testing.assert_allclose(same, 1e-3, atol=1e-3)
    one, other = jnp.zeros((1, 2)), jnp.asarray([[3.0, -4.0]])
    for kernel, size in (("laplacian", 7.0), ("gaussian", 25.0)):
        found = discrepancy(one, other, kernel=kernel, width=2.0)
        np.testing.assert_allclose(found**2, 2 - 2 * np.exp(-size / 4), rtol=1e-4)


class Free:
    """A policy of one mean, nearly a point."""

    def init(self, key, inputs):
        return jnp.zeros(1)

    def apply(self, params, inputs):
        like = jnp.zeros((len(inputs), 1))
        return params + like, 1e-3 + like


class Wide(Free):
    """A policy of two entries, each nearly -1 or 1 by chance."""

    def init(self, key, inputs):
        return jnp.zeros(2)

    def apply(self, params, inputs):
        like = jnp.zeros((len(inputs), 2))
        return params + like, 10.0 + like


class Point:
    """A behaviour that always does the same, before tanh."""

    def apply(self, params, inputs, code, method):
        return jnp.full((len(inputs), code.shape[1] // 2), MIDDLE)


FROZEN = {"behaviour": TrainState(step=jnp.int32(0), params=(), slow={}, opt_state=())}


def learner(actor=None, q=None, **options):
    options = {"discount": DISCOUNT, "kernel": "gaussian", "width": 1.0, **options}
    return bear_learner(
        BEARConfig(**options),
        actor or Free(),
        Point(),
        q or Slope(),
        lambda data, frozen, key: data,
    )


def trained(steps, **options):
    return run(learner(**options), BATCH, steps, frozen=FROZEN)


def test_at_first_the_policy_copies_the_behaviour():
    _, state, _ = trained(150, warm_up=1_000, learning_rate=0.02, multiplier_rate=0.0)
    np.testing.assert_allclose(state.params["actor"], MIDDLE, atol=0.05)


def test_values_count_from_the_first_update_after_the_warm_up():
    *_, metrics = trained(3, warm_up=2, multiplier_rate=0.0)
    # With a multiplier of 1 the loss of the policy is the discrepancy less its value.
    gain = metrics["discrepancy"] - metrics["actor_loss"]
    np.testing.assert_allclose(gain[:2], 0, atol=1e-6)
    assert abs(gain[2]) > 1e-5


def test_the_multiplier_stops_at_its_bounds_and_returns():
    rate = {"multiplier_rate": 20.0, "learning_rate": 1e-6}
    loose, tight = (learner(bound=bound, **rate) for bound in (9.0, 0.0))
    _, low, _ = run(loose, BATCH, 3, frozen=FROZEN)
    _, high, _ = run(tight, BATCH, 3, frozen=FROZEN)
    np.testing.assert_allclose(low.params["multiplier"], -5, rtol=1e-6)
    np.testing.assert_allclose(high.params["multiplier"], 10, rtol=1e-6)
    # Adam remembers where it came from, so that the way back takes a few updates.
    keys = jax.random.split(jax.random.key(0), (200, len(BATCH.rewards)))
    again, _ = jax.jit(
        lambda: jax.lax.scan(
            lambda state, key: tight.update(state, key, BATCH, FROZEN, {}), low, keys
        )
    )()
    np.testing.assert_allclose(again.params["multiplier"], 10, rtol=1e-6)


def test_the_policy_climbs_the_smaller_critic():
    # Off 0 one of the twins falls, so that the policy stays there without a bound.
    batch = jax.tree.map(lambda x: x[:8], BATCH)
    built = learner(q=Crossed(), learning_rate=0.05, multiplier_rate=0.0, bound=9.0)
    state = call(built.init, jax.random.key(0), batch, FROZEN)
    params = {**state.params, "actor": jnp.full(1, -2.0), "multiplier": jnp.float32(-5)}
    state = dataclasses.replace(state, params=params)
    keys = jax.random.split(jax.random.key(0), 8)
    after, _ = jax.jit(built.update)(state, keys, batch, FROZEN, {})
    assert after.params["actor"] > -2.0


def weight_at(action):
    """The w that holds a policy at an action before tanh: of both slopes the ratio."""
    apart = action - MIDDLE
    likeness = np.exp(-(apart**2) / 2)
    slope = apart * likeness / np.sqrt(2 - 2 * likeness)
    return 3 * (1 - np.tanh(action) ** 2) / slope


def test_the_multiplier_holds_the_policy_at_the_bound():
    _, state, metrics = trained(
        800, bound=0.3, learning_rate=0.05, multiplier_rate=0.01
    )
    np.testing.assert_allclose(metrics["discrepancy"][-50:].mean(), 0.3, atol=0.02)
    # Where critics are higher, at the d at which 2 - 2 exp(-d^2 / 2) is its square.
    rest = MIDDLE + np.sqrt(-2 * np.log(1 - 0.3**2 / 2))
    np.testing.assert_allclose(state.params["actor"], rest, atol=0.03)
    found = np.exp(state.params["multiplier"])
    np.testing.assert_allclose(found, weight_at(rest), rtol=0.1)


def test_a_multiplier_of_one_is_a_weight_of_one():
    _, state, _ = trained(400, learning_rate=0.02, multiplier_rate=0.0)
    np.testing.assert_allclose(weight_at(state.params["actor"]), 1, rtol=0.1)


def test_critics_look_ahead_with_care():
    *_, metrics = trained(1)
    # The slow policy does about 0, of which nothing is to be had.
    errors = [(slope * ACTION - 1) ** 2 for slope in (3, 5)]
    np.testing.assert_allclose(metrics["q_loss"], np.mean(errors), rtol=0.01)


def test_each_draw_is_judged_with_care_before_the_best_is_taken():
    # Of two entries many draws add up to nothing, where the smaller twin is highest.
    # The highest of each twin is 6, and the mean of the smaller one below 0.
    batch = table([(0, 0, 1.0, 0, False)] * 64, states=1, actions=2)
    batch.actions[:] = 0
    built = learner(Wide(), Crossed(), backup_candidates=64)
    *_, metrics = run(built, batch, 1, frozen=FROZEN)
    np.testing.assert_allclose(metrics["q_loss"], 1, atol=0.05)


def test_draws_are_compared_in_their_own_state():
    # Each of two states leads to itself: found are 0 and 1, wanted 0 and 1/2.
    rows = [(0, 0, 0.0, 0, False), (1, 0, 0.0, 1, False)] * 4
    built = learner(Wide(), Places(), backup_candidates=5)
    batch = table(rows, states=2, actions=2)
    *_, metrics = run(built, batch, 1, frozen=FROZEN)
    np.testing.assert_allclose(metrics["q_loss"], (1 - DISCOUNT) ** 2 / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"kernel": "cosine"}, "`kernel`"),
        ({"width": 0.0}, "`width`"),
        ({"care": 1.5}, "`care`"),
        ({"draws": 0}, "`draws`"),
    ],
)
def test_options_are_checked(wrong, option):
    with pytest.raises(UserError, match=option):
        BEARConfig(**wrong)
