"""CQL: its soft maximum, its penalty and its policy where they are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import Crossed, run, table

from jaxdiff.algorithms.offline import squashed
from jaxdiff.algorithms.offline.cql import CQLConfig, cql_learner, soft_maximum
from jaxdiff.errors import UserError

KEY = jax.random.key(0)
DISCOUNT = 0.5
BATCH = table([(0, 0, 1.0, 0, True)] * 256, states=1, actions=1)


# ---------------------------------------------------------------------- through tanh


def test_densities_through_tanh_sum_to_one():
    actions = jnp.linspace(-1, 1, 20_001)[1:-1, None]
    mean, std = jnp.asarray([0.4]), jnp.asarray([0.7])
    density = jnp.exp(squashed.log_density(mean, std, actions))
    np.testing.assert_allclose(density.mean() * 2, 1, rtol=1e-3)
    # That of a draw is that of the action, and mean and spread are found in draws.
    xi = jax.random.normal(KEY, (20_000, 1))
    drawn, likely = squashed.sample_action(mean, std, xi)
    np.testing.assert_allclose(
        likely[:50], squashed.log_density(mean, std, drawn[:50]), rtol=1e-2, atol=1e-3
    )
    shares = [(drawn < edge).mean() for edge in (0.0, 0.5)]
    exact = [(density[actions[:, 0] < edge]).sum() / 10_000 for edge in (0.0, 0.5)]
    np.testing.assert_allclose(shares, exact, atol=0.015)


# --------------------------------------------------------------------------- penalty


@pytest.mark.parametrize("slope", [0.0, 3.0])
def test_the_soft_maximum_is_the_logarithm_of_an_integral(slope):
    # Of exp(slope a) over [-1, 1]: 2 sinh(slope) / slope. Drawn uniformly, and from a
    # policy that leans to one side.
    uniform = jax.random.uniform(KEY, (4_000, 1, 1), minval=-1, maxval=1)
    leaning, density = squashed.sample_action(
        jnp.asarray([0.3]), jnp.asarray([0.8]), jax.random.normal(KEY, (4_000, 1, 1))
    )
    actions = jnp.concatenate([uniform, leaning])
    density = jnp.concatenate([jnp.full((4_000, 1), np.log(0.5)), density])
    values = jnp.stack([slope * actions[..., 0]] * 2)
    exact = np.log(2 * np.sinh(slope) / slope) if slope else np.log(2)
    np.testing.assert_allclose(soft_maximum(values, density), exact, atol=0.05)


class Flat:
    """Critics that think the same of all actions."""

    def init(self, key, inputs, actions):
        return jnp.zeros(2)

    def apply(self, params, inputs, actions):
        shape = (2, *actions.shape[:-1])
        return jnp.broadcast_to(params.reshape(2, *[1] * (len(shape) - 1)), shape)


class Tilted:
    """Critics that rise with the action, zero at first."""

    def init(self, key, inputs, actions):
        return jnp.zeros(2)

    def apply(self, params, inputs, actions):
        return params.reshape(2, *[1] * (actions.ndim - 1)) * actions.sum(-1)


class Free:
    """A policy of one mean and spread, before tanh."""

    def init(self, key, inputs):
        return {"mean": jnp.zeros(1), "log_std": jnp.zeros(1)}

    def apply(self, params, inputs):
        like = jnp.zeros((*inputs.shape[:-1], 1))
        return params["mean"] + like, jnp.exp(params["log_std"]) + like


class Even:
    """A policy that is spread nearly evenly over the box of actions."""

    def __init__(self, size):
        self.size = size

    def init(self, key, inputs):
        return {"mean": jnp.zeros(self.size)}

    def apply(self, params, inputs):
        like = jnp.zeros((*inputs.shape[:-1], self.size))
        return params["mean"] + like, 0.9 + like


def learner(q=None, actor=None, **options):
    options = {"discount": DISCOUNT, "target_rate": 1.0, **options}
    return cql_learner(
        CQLConfig(**options),
        actor or Free(),
        q or Flat(),
        lambda data, frozen, key: data,
    )


def test_nothing_is_thought_less_of_where_all_actions_are_alike():
    # The penalty of a flat Q is log 2 whatever its height: it learns the reward.
    _, state, metrics = run(
        learner(penalty=10.0, penalty_actions=16, learning_rate=0.05), BATCH, 300
    )
    np.testing.assert_allclose(state.params["q"], 1, atol=0.01)
    # But for what importance sampling from a policy that moves makes of it.
    np.testing.assert_allclose(metrics["penalty"][0], np.log(2), atol=0.05)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_penalty_of_flat_critics_is_the_volume_of_all_actions(size):
    batch = table([(0, 0, 0.0, 0, True)] * 512, states=1, actions=size)
    built = learner(actor=Even(size), penalty_actions=32)
    *_, metrics = run(built, batch, 1)
    np.testing.assert_allclose(metrics["penalty"], size * np.log(2), atol=0.06)


class Steep(Flat):
    """Critics that think 2 of every action in the second state and 0 in the first."""

    def apply(self, params, inputs, actions):
        return jnp.stack([2 * inputs[..., 1]] * 2) + 0 * params[:1]


def test_the_penalty_is_of_actions_in_the_state_itself():
    # In the next state they would be worth 2 more or less.
    rows = [(0, 0, 0.0, 1, True)] * 512
    built = learner(Steep(), Even(1), penalty_actions=32)
    *_, metrics = run(built, table(rows, states=2, actions=1), 1)
    np.testing.assert_allclose(metrics["penalty"], np.log(2), atol=0.06)


def test_the_smaller_critic_lies_ahead_and_is_climbed():
    rows = [(0, 0, 1.0, 0, False)] * 2048
    batch = table(rows, states=1, actions=1)
    batch.actions[:] = 0
    *_, metrics = run(learner(Crossed(), Even(1), penalty=0.0), batch, 1)
    # Found is 0; of an action a that is drawn the smaller twin is worth -3 |a|.
    a = np.tanh(0.9 * np.random.default_rng(0).normal(size=1_000_000))
    expected = np.mean((1 - DISCOUNT * 3 * np.abs(a)) ** 2)
    np.testing.assert_allclose(metrics["q_loss"], expected, rtol=0.1)
    value = metrics["actor_loss"] + metrics["entropy"]
    np.testing.assert_allclose(value, np.mean(3 * np.abs(a)), rtol=0.1)


@pytest.mark.parametrize("penalty", [0.0, 2.0])
def test_the_penalty_tilts_critics_towards_the_data(penalty):
    # The data did a = 1, worth 1. The error (Q(1) - 1)^2 wants a slope c of 1, and the
    # penalty one as steep as can be: 2 (c - 1) = penalty (1 - coth c + 1 / c).
    _, state, _ = run(
        learner(
            Tilted(), penalty=penalty, penalty_actions=16, learning_rate=0.02,
            policy_rate=0.0,
        ),
        BATCH,
        600,
    )  # fmt: skip
    slopes = np.linspace(0.5, 3, 5_001)
    pull = penalty * (1 - 1 / np.tanh(slopes) + 1 / slopes)
    exact = slopes[np.abs(2 * (slopes - 1) - pull).argmin()]
    np.testing.assert_allclose(state.params["q"], exact, atol=0.05)


def test_penalties_may_be_swept_side_by_side():
    penalties = np.array([0.0, 5.0], np.float32)
    built = learner(Tilted(), learning_rate=0.02, policy_rate=0.0)
    _, state, _ = run(built, BATCH, 200, hyper={"penalty": penalties})
    none, much = np.asarray(state.params["q"])[:, 0]
    assert much > none + 0.2


# ---------------------------------------------------------------------------- policy


def test_at_first_the_policy_clones():
    batch = table([(0, 0, 1.0, 0, True)] * 256, states=1, actions=1)
    batch.actions[:] = np.tanh(
        0.5 + 0.3 * np.random.default_rng(0).normal(size=(256, 1))
    )
    built = learner(Tilted(), warm_up=10_000, policy_rate=0.01)
    _, state, _ = run(built, batch, 800)
    np.testing.assert_allclose(state.params["actor"]["mean"], 0.5, atol=0.1)
    later = learner(Tilted(), warm_up=0, policy_rate=0.01)
    _, other, _ = run(later, batch, 800)
    assert np.abs(other.params["actor"]["mean"] - 0.5) > 0.2


def test_values_count_from_the_first_update_after_the_warm_up():
    batch = jax.tree.map(lambda x: x[:8], BATCH)
    batch.actions[:] = 0.5
    built = learner(warm_up=2, policy_rate=0.0, penalty=0.0, learning_rate=1e-6)
    *_, metrics = run(built, batch, 3)
    # Critics that know nothing are worth 0, the data's action its log density.
    value = -metrics["entropy"] - metrics["actor_loss"]
    cloned = squashed.log_density(jnp.zeros(1), jnp.ones(1), jnp.full(1, 0.5))
    np.testing.assert_allclose(value, [cloned, cloned, 0], atol=1e-4)


def test_the_entropy_is_what_is_wanted():
    # Nothing is to be gained from any action, so w alone decides: it settles where the
    # entropy is -1, which is less than the log 2 of a uniform policy.
    built = learner(penalty=0.0, policy_rate=0.02)
    _, _, metrics = run(built, BATCH, 100)
    # w falls while there is more entropy than wanted, and is pushed up by less.
    assert metrics["entropy"][0] > -1
    _, state, _ = run(built, BATCH, 100)
    assert state.params["entropy"] < -0.5


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"penalty": -1.0}, "`penalty`"),
        ({"penalty_actions": 0}, "`penalty_actions`"),
        ({"warm_up": -1}, "`warm_up`"),
    ],
)
def test_options_are_checked(wrong, option):
    with pytest.raises(UserError, match=option):
        CQLConfig(**wrong)
