"""FQL on flows that are known, and where its policy rests."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import Slope, run, table

from jaxdiff.algorithms.offline.fql import (
    FQLConfig,
    euler,
    flow_level,
    follow,
    fql_learner,
)
from jaxdiff.errors import UserError

DISCOUNT = 0.5
BATCH = table([(0, 0, 1.0, 0, False)] * 512, states=1, actions=1)


class Constant:
    """A velocity that is its parameter, zero at first."""

    def init(self, key, x, time, inputs):
        return jnp.zeros(x.shape[-1])

    def apply(self, params, x, time, inputs, keys=None):
        return params + 0 * x


class Growing:
    """A velocity that is where one is."""

    def apply(self, params, x, time, inputs, keys=None):
        return x


class Alone:
    """A policy that is one action, 1/2 at first, whatever the state and noise."""

    def init(self, key, both):
        return jnp.full(1, 0.5)

    def apply(self, params, both):
        return params + 0 * both[:, :1], None


def test_the_shared_sampler_takes_steps_of_euler():
    z = jax.random.normal(jax.random.key(0), (5, 2))
    inputs = jnp.zeros((5, 1))
    straight = follow(Constant(), jnp.asarray([0.5, -2.0]), inputs, z, euler(7))
    np.testing.assert_allclose(straight, z + np.array([0.5, -2.0]), atol=1e-5)
    grown = follow(Growing(), (), inputs, z, euler(4))
    np.testing.assert_allclose(grown, z * 1.25**4, rtol=1e-5)


def test_levels_go_straight_from_action_to_noise():
    level = flow_level(np.array([0.25, 1.0]))
    np.testing.assert_allclose(level.alpha + level.sigma, 1)
    np.testing.assert_allclose(level.alpha, [0.75, 0])
    np.testing.assert_allclose(euler(4).level.time, [1, 0.75, 0.5, 0.25])


def learner(**options):
    config = FQLConfig(discount=DISCOUNT, **options)
    return fql_learner(
        config, Alone(), Constant(), Slope(), lambda data, frozen, key: data
    )


@pytest.mark.parametrize("alpha", [4.0, 20.0])
def test_the_policy_rests_between_flow_and_value(alpha):
    # At rest 2 alpha (m - E clip(z + v)) is the mean slope, 4. The flow's velocity is
    # the mean of a - z, the data's action 1, so z + 1 is clipped to at most 1.
    _, state, _ = run(learner(alpha=alpha, learning_rate=0.02), BATCH, 600)
    np.testing.assert_allclose(state.params["flow"], 1, atol=0.1)
    z = np.random.default_rng(0).normal(size=100_000)
    flown = np.clip(z + 1, -1, 1).mean()
    np.testing.assert_allclose(
        state.params["actor"], flown + 4 / (2 * alpha), atol=0.05
    )


def test_a_larger_critic_of_unit_size_pulls_no_more():
    built = learner(alpha=4.0, unit_q=True, learning_rate=0.02)
    _, state, _ = run(built, BATCH, 600)
    # The slope over the size of Q at rest m is 1 / m.
    m = float(state.params["actor"][0])
    z = np.random.default_rng(0).normal(size=100_000)
    flown = np.clip(z + 1, -1, 1).mean()
    np.testing.assert_allclose(m, flown + 1 / (8 * m), atol=0.05)


def test_critics_look_ahead_to_the_mean_of_both():
    *_, metrics = run(learner(), BATCH, 1)
    # Ahead lies 4 / 2, the mean of both at the policy's action; found are 3 and 5.
    wanted = 1 + DISCOUNT * 2
    errors = [(3 - wanted) ** 2, (5 - wanted) ** 2]
    np.testing.assert_allclose(metrics["q_loss"], np.mean(errors), rtol=1e-5)
    # A velocity of 0 misses a - z = 1 - z by a square of 2 in the mean.
    np.testing.assert_allclose(metrics["flow_loss"], 2, rtol=0.2)


class Straight(Constant):
    """The exact velocity to the action 1: what is left of the way in the time left."""

    def apply(self, params, x, time, inputs, keys=None):
        return (1 - x) / time[:, None] + 0 * params


def test_the_flow_is_learned_along_the_line_to_the_action():
    config = FQLConfig(discount=DISCOUNT)
    built = fql_learner(
        config, Alone(), Straight(), Slope(), lambda data, frozen, key: data
    )
    *_, metrics = run(built, BATCH, 1)
    np.testing.assert_allclose(metrics["flow_loss"], 0, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "option"),
    [({"alpha": -1.0}, "`alpha`"), ({"flow_steps": 0}, "`flow_steps`")],
)
def test_options_are_checked(wrong, option):
    with pytest.raises(UserError, match=option):
        FQLConfig(**wrong)
