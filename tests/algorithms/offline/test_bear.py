"""BEAR: its discrepancy, and the policy that it holds to the behaviour."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import Slope, run, table

from jaxdiff.algorithms.base import TrainState
from jaxdiff.algorithms.offline.bear import BEARConfig, bear_learner, discrepancy
from jaxdiff.errors import UserError

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


class Point:
    """A behaviour that always does the same, before tanh."""

    def apply(self, params, inputs, code, method):
        return jnp.full((len(inputs), 1), MIDDLE)


FROZEN = {"behaviour": TrainState(step=jnp.int32(0), params=(), slow={}, opt_state=())}


def trained(steps, **options):
    options = {"discount": DISCOUNT, "kernel": "gaussian", "width": 1.0, **options}
    built = bear_learner(
        BEARConfig(**options), Free(), Point(), Slope(), lambda data, frozen, key: data
    )
    return run(built, BATCH, steps, frozen=FROZEN)


def test_at_first_the_policy_copies_the_behaviour():
    _, state, _ = trained(150, warm_up=1_000, learning_rate=0.02, multiplier_rate=0.0)
    np.testing.assert_allclose(state.params["actor"], MIDDLE, atol=0.05)


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
