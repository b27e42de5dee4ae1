"""FQL on flows that are known, and where its policy rests."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import Slope, run, table

from jaxdiff.algorithms.offline.common import Statistics
from jaxdiff.algorithms.offline.fql import (
    FQLActing,
    FQLConfig,
    euler,
    flow_level,
    follow,
    fql,
    fql_learner,
)
from jaxdiff.data.normalizer import identity
from jaxdiff.data.spec import Spec
from jaxdiff.data.transitions import RewardScale
from jaxdiff.errors import UserError

DISCOUNT = 0.5
BATCH = table([(0, 0, 1.0, 0, False)] * 512, states=1, actions=1)


class Constant:
    """A velocity that is its parameter, zero at first."""

    def init(self, key, x):
        return jnp.zeros(x.shape[-1] - 2)  # beside one state, and the time

    def apply(self, params, x):
        return jnp.broadcast_to(params, (len(x), *params.shape))


class Alone:
    """A policy that is one action, 1/2 at first, whatever the state and noise."""

    def init(self, key, both):
        return jnp.full(1, 0.5)

    def apply(self, params, both):
        return params + 0 * both[:, :1]


def network(velocity):
    """A flow from `velocity(state, x, time)`."""
    return SimpleNamespace(
        apply=lambda params, x: velocity(x[:, :1], x[:, 1:-1], x[:, -1:])
    )


def test_the_shared_sampler_takes_steps_of_euler():
    z = 0.1 * jax.random.normal(jax.random.key(0), (5, 2))
    inputs = jnp.zeros((5, 1))
    straight = follow(Constant(), jnp.asarray([0.5, -0.4]), inputs, z, euler(7))
    np.testing.assert_allclose(straight, z + np.array([0.5, -0.4]), atol=1e-5)
    grown = follow(network(lambda s, x, t: x), (), inputs, z, euler(4))
    np.testing.assert_allclose(grown, z * 1.25**4, rtol=1e-5)


def test_the_flow_reads_its_time_as_it_is():
    # Euler's method sums t dt over t = 0, 1/4, 1/2, 3/4; from noise, where t is 0.
    z, inputs = jnp.zeros((3, 1)), jnp.asarray([[0.0], [1.0], [-4.0]])
    timed = follow(network(lambda s, x, t: s * t), (), inputs, z, euler(4))
    np.testing.assert_allclose(timed[:, 0], [0, 0.375, -1])  # -1.5 is clipped


def test_levels_go_straight_from_action_to_noise():
    level = flow_level(np.array([0.25, 1.0]))
    np.testing.assert_allclose(level.alpha + level.sigma, 1)
    np.testing.assert_allclose(level.alpha, [0.75, 0])
    np.testing.assert_allclose(level.time, level.alpha)
    np.testing.assert_allclose(euler(4).level.time, [0, 0.25, 0.5, 0.75])


def test_networks_have_the_size_of_the_released_ones():
    # Four hidden layers of n = 512; AntMaze has 29 numbers to see and 8 to choose.
    # Critics normalise each hidden layer, with a scale and a shift.
    n, s, a = 512, 29, 8
    hidden = 3 * (n * n + n)
    sizes = {
        "flow": (s + a + 1) * n + n + hidden + n * a + a,
        "actor": (s + a) * n + n + hidden + n * a + a,
        "q": 2 * ((s + a) * n + n + hidden + n + 1 + 4 * 2 * n),
    }
    assert sizes["flow"] == 812_040
    config = FQLConfig(widths=(n,) * 4, normalizer="none", scale_actions=False)
    built = fql(config, FQLActing(), units(s, a), Spec((s,), a, 0))
    batch = table([(0, 0, 1.0, 0, False)], states=1, actions=1)
    batch = dataclasses.replace(
        batch, inputs=jnp.zeros((1, s)), actions=jnp.zeros((1, a))
    )
    init = built.learners["policy"].init
    params = jax.eval_shape(init, jax.random.key(0), batch, {}).params
    found = {
        name: sum(leaf.size for leaf in jax.tree.leaves(part))
        for name, part in params.items()
    }
    assert found == sizes


def test_acting_stays_in_the_box():
    config = FQLConfig(widths=(4,), normalizer="none", scale_actions=False)
    built = fql(config, FQLActing(), units(1, 2), Spec((1,), 2, 0))
    params = {"Linear_0": zero_linear(3, 4), "Linear_1": zero_linear(4, 2)}
    params["Linear_1"]["bias"] = jnp.asarray([0.25, -3.0])
    states = {"policy": SimpleNamespace(params={"actor": {"params": params}})}
    keys = jax.random.split(jax.random.key(0), 5)
    out, _ = built.act(states, (), keys, jnp.ones((5, 1)), jnp.ones(5, bool))
    np.testing.assert_allclose(out.action, [[0.25, -1.0]] * 5)


def units(inputs, actions):
    return Statistics(
        inputs=identity(inputs),
        actions=identity(actions),
        rewards=RewardScale(shift=0.0, scale=1.0),
    )


def zero_linear(inputs, features):
    return {"kernel": jnp.zeros((inputs, features)), "bias": jnp.zeros(features)}


def learner(**options):
    config = FQLConfig(discount=DISCOUNT, **options)
    return fql_learner(
        config, Alone(), Constant(), Slope(), lambda data, frozen, key: data
    )


@pytest.mark.parametrize("alpha", [8.0, 20.0])
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


def test_the_policy_climbs_no_value_beyond_the_box():
    # With next to no weight on the flow it would go 200 steps of 0.02. Momentum alone
    # carries it over the wall.
    _, state, _ = run(learner(alpha=0.01, learning_rate=0.02), BATCH, 200)
    np.testing.assert_allclose(state.params["actor"], 1.1, atol=0.15)


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

    def apply(self, params, x):
        return (1 - x[:, 1:2]) / (1 - x[:, 2:]) + 0 * params


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
