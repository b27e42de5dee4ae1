"""BCQ and its model of the behaviour where they are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tables import Crossed, Places, Slope, run, table

from jaxdiff.algorithms.base import TrainState
from jaxdiff.algorithms.offline.bcq import BCQConfig, bcq_learner, careful, moved
from jaxdiff.algorithms.offline.vae import CLIP, decode, divergence, vae_learner
from jaxdiff.errors import UserError
from jaxdiff.host_program import call
from jaxdiff.networks import ActionVAE, Actor

DISCOUNT, ACTION = 0.5, 0.3
BATCH = table([(0, 0, 1.0, 0, False)] * 256, states=1, actions=1)
BATCH.actions[:] = ACTION


# ------------------------------------------------------------------------- behaviour


def test_the_divergence_is_that_of_normals():
    mean, std = jnp.asarray([[0.7, -0.2]]), jnp.asarray([[0.5, 2.0]])
    x = np.linspace(-12, 12, 20_001)
    total = 0.0
    for m, s in zip(mean[0], std[0], strict=True):
        p = jax.scipy.stats.norm.pdf(x, m, s)
        ratio = jax.scipy.stats.norm.logpdf(x, m, s) - jax.scipy.stats.norm.logpdf(x)
        total += float(jnp.trapezoid(p * ratio, x))
    np.testing.assert_allclose(divergence(mean, std), total / 2, rtol=1e-3)
    np.testing.assert_allclose(divergence(0 * mean, std / std), 0, atol=1e-7)


class Code:
    """An encoder that is two numbers and a decoder that passes the code on."""

    def init(self, key, inputs, actions):
        return {"mean": jnp.full(2, 0.2), "log_std": jnp.full(2, -0.5)}

    def apply(self, params, inputs, other, method):
        like = jnp.zeros((len(inputs), 2))
        if method == "encode":
            return params["mean"] + like, jnp.exp(params["log_std"]) + like
        return other[:, :1]


def test_where_the_code_says_nothing_it_becomes_a_normal():
    # The second entry of the code is never decoded: only the divergence moves it.
    built = vae_learner(Code(), lambda data, frozen, key: data, optax.adam(0.02))
    _, state, metrics = run(built, BATCH, 500)
    np.testing.assert_allclose(state.params["mean"][1], 0, atol=0.02)
    np.testing.assert_allclose(jnp.exp(state.params["log_std"][1]), 1, atol=0.02)
    # The first is worth a spread of its own, less than a normal's.
    assert jnp.exp(state.params["log_std"][0]) < 0.9
    assert state.params["mean"][0] > 0.1
    last = {name: float(each[-1]) for name, each in metrics.items()}
    np.testing.assert_allclose(
        last["loss"], last["error"] + last["divergence"] / 2, rtol=1e-5
    )


def test_the_error_is_that_of_a_draw_of_the_code():
    batch = jax.tree.map(lambda x: np.repeat(x, 32, axis=0), BATCH)
    built = vae_learner(Code(), lambda data, frozen, key: data, optax.adam(0.02))
    *_, metrics = run(built, batch, 1)
    xi = np.random.default_rng(0).normal(size=1_000_000)
    expected = np.mean((np.tanh(0.2 + np.exp(-0.5) * xi) - ACTION) ** 2)
    np.testing.assert_allclose(metrics["error"], expected, rtol=0.05)


def test_draws_lie_near_the_middle_of_the_code():
    far, near = (decode(Code(), None, jnp.zeros((1, 1)), x * jnp.ones((1, 2)))
                 for x in (50.0, 0.3))  # fmt: skip
    np.testing.assert_allclose(far, CLIP)
    np.testing.assert_allclose(near, 0.3)


def test_the_network_has_a_code_twice_as_long():
    network = ActionVAE(3, (8,))
    inputs, actions = jnp.ones((2, 4)), jnp.ones((2, 3))
    params = call(network.init, jax.random.key(0), inputs, actions)
    mean, std = network.apply(params, inputs, actions, method="encode")
    assert mean.shape == std.shape == (2, 6)
    assert (std > 0).all()
    assert network.apply(params, inputs, mean, method="decode").shape == (2, 3)


def test_the_spread_of_the_code_is_bounded():
    network = ActionVAE(3, (8,))
    inputs, actions = 1e5 * jax.random.normal(jax.random.key(1), (2, 32, 3))
    params = call(network.init, jax.random.key(0), inputs, actions)
    _, std = network.apply(params, inputs, actions, method="encode")
    np.testing.assert_allclose(jnp.log(jnp.stack([std.min(), std.max()])), [-4, 15])


# --------------------------------------------------------------------------- actions


@pytest.mark.parametrize("phi", [0.0, 0.05, 0.4])
def test_actions_are_moved_by_no_more_than_phi(phi):
    mover = Actor(2, (8,))
    inputs = 100 * jax.random.normal(jax.random.key(0), (50, 3))
    actions = jax.random.uniform(jax.random.key(1), (50, 2), minval=-1, maxval=1)
    both = jnp.concatenate([inputs, actions], axis=-1)
    params = call(mover.init, jax.random.key(2), both)
    found = moved(mover, params, inputs, actions, phi)
    step = jnp.abs(found - actions).max()
    assert step <= phi + 1e-6
    assert step > 0.9 * phi - 1e-6
    assert jnp.abs(found).max() <= 1


def test_care_weighs_the_smaller_critic():
    values = jnp.asarray([[1.0, 5.0], [3.0, 2.0]])
    np.testing.assert_allclose(careful(values, 0.75), [1.5, 2.75])
    np.testing.assert_allclose(careful(values, 1.0), [1, 2])


class Still:
    """A behaviour that always does tanh of 1/2."""

    def apply(self, params, inputs, code, method):
        return jnp.full((len(inputs), 1), 0.5)


class Push:
    """A step that is its parameter, zero at first."""

    def init(self, key, both):
        return jnp.zeros(1)

    def apply(self, params, both):
        return jnp.tanh(params) + 0 * both[:, :1], None


FROZEN = {"behaviour": TrainState(step=jnp.int32(0), params=(), slow={}, opt_state=())}


def learner(vae=None, q=None, **options):
    config = BCQConfig(discount=DISCOUNT, **options)
    return bcq_learner(
        config, Push(), vae or Still(), q or Slope(), lambda data, frozen, key: data
    )


def test_critics_look_ahead_with_care():
    *_, metrics = run(learner(care=0.75), BATCH, 1, frozen=FROZEN)
    ahead = np.tanh(0.5) * (0.75 * 3 + 0.25 * 5)
    errors = [(slope * ACTION - 1 - DISCOUNT * ahead) ** 2 for slope in (3, 5)]
    np.testing.assert_allclose(metrics["q_loss"], np.mean(errors), rtol=1e-5)
    # What is to be moved is worth 3 of what is done.
    np.testing.assert_allclose(metrics["mover_loss"], -3 * np.tanh(0.5), rtol=1e-5)


def test_steps_go_where_the_critic_rises():
    _, state, _ = run(learner(learning_rate=0.05), BATCH, 50, frozen=FROZEN)
    assert state.params["mover"] > 0.5
    assert 0 < state.slow["mover"] < state.params["mover"]


def test_steps_climb_the_first_critic():
    # The smaller one would lead down from tanh of 1/2.
    built = learner(q=Crossed(), learning_rate=0.05)
    _, state, _ = run(built, BATCH, 10, frozen=FROZEN)
    assert state.params["mover"] > 0.1


class Spread:
    """A behaviour that does what the code says."""

    def __init__(self, size=1):
        self.size = size

    def apply(self, params, inputs, code, method):
        return 10 * code[:, : self.size]


def test_the_best_of_several_lies_ahead():
    *_, metrics = run(
        learner(Spread(), backup_candidates=64, care=1.0), BATCH, 1, frozen=FROZEN
    )
    # The best of many is 1, worth 3 to the careful.
    errors = [(slope * ACTION - 1 - DISCOUNT * 3) ** 2 for slope in (3, 5)]
    np.testing.assert_allclose(metrics["q_loss"], np.mean(errors), rtol=0.01)


def test_each_draw_is_judged_with_care_before_the_best_is_taken():
    # Of two entries many draws add up to nothing, where the smaller twin is highest.
    # The highest of each twin is 6.
    batch = table([(0, 0, 1.0, 0, False)] * 64, states=1, actions=2)
    batch.actions[:] = 0
    built = learner(Spread(2), Crossed(), phi=0.0, backup_candidates=64)
    *_, metrics = run(built, batch, 1, frozen=FROZEN)
    np.testing.assert_allclose(metrics["q_loss"], 1, atol=0.05)


def test_draws_are_compared_in_their_own_state():
    # Each of two states leads to itself: found are 0 and 1, wanted 0 and 1/2.
    rows = [(0, 0, 0.0, 0, False), (1, 0, 0.0, 1, False)] * 4
    built = learner(Spread(), Places(), backup_candidates=5)
    batch = table(rows, states=2, actions=1)
    *_, metrics = run(built, batch, 1, frozen=FROZEN)
    np.testing.assert_allclose(metrics["q_loss"], (1 - DISCOUNT) ** 2 / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"phi": -0.1}, "`phi`"),
        ({"care": 1.5}, "`care`"),
        ({"backup_candidates": 0}, "`backup_candidates`"),
        ({"vae_widths": (0,)}, "`vae_widths`"),
    ],
)
def test_options_are_checked(wrong, option):
    with pytest.raises(UserError, match=option):
        BCQConfig(**wrong)
