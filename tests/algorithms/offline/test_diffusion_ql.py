"""Diffusion-QL and EDP where the policy's rest is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import Crossed, Places, Slope, run, table

from jaxdiff.algorithms.offline.diffusion_ql import (
    DiffusionQLActing,
    DiffusionQLConfig,
    diffusion_ql_learner,
)
from jaxdiff.diffusion import vp_schedule
from jaxdiff.errors import UserError

LEVELS = vp_schedule(5, time="fraction")
ACTION, DISCOUNT = 0.3, 0.5
BATCH = table([(0, 0, 1.0, 0, False)] * 256, states=1, actions=1)
BATCH.actions[:] = ACTION


class Toward:
    """The noise that makes every estimate of the action the parameter, 1/2 at first."""

    def init(self, key, x, time, inputs):
        return jnp.full(1, 0.5)

    def apply(self, params, x, time, inputs, keys=None):
        row = jnp.round(time * 5).astype(int)[:, None]
        alpha, sigma = jnp.asarray(LEVELS.alpha)[row], jnp.asarray(LEVELS.sigma)[row]
        return (x - alpha * params) / sigma


def learner(score=None, q=None, action_dim=1, **options):
    options = {"ema_every": 1, "ema_start": 0, "ema_decay": 0.0, **options}
    config = DiffusionQLConfig(discount=DISCOUNT, **options)
    return diffusion_ql_learner(
        config,
        score or Toward(),
        q or Slope(),
        lambda data, frozen, key: data,
        action_dim=action_dim,
    )


@pytest.mark.parametrize("one_step", [True, False])
@pytest.mark.parametrize("eta", [0.0, 0.1])
def test_the_policy_rests_between_data_and_value(one_step, eta):
    # Cloning pulls with 2 k (p - a), k the mean of (alpha / sigma)^2 over levels; the
    # gain (3 p / |5 p| + 5 p / |3 p|) / 2, its sizes fixed, pushes with 17 / 15 / p.
    _, state, _ = run(
        learner(one_step=one_step, eta=eta, learning_rate=0.01), BATCH, 500
    )
    k = np.mean((LEVELS.alpha[1:] / LEVELS.sigma[1:]) ** 2)
    push = eta * 17 / 15 / (2 * k)
    expected = (ACTION + np.sqrt(ACTION**2 + 4 * push)) / 2
    np.testing.assert_allclose(state.params["actor"], expected, atol=0.01)


def test_critics_look_ahead_to_what_the_slow_policy_does():
    # All draws are 1/2: ahead lies 3 / 2, the smaller twin; found are 3 a and 5 a.
    *_, metrics = run(learner(backup_candidates=3), BATCH, 1)
    wanted = 1 + DISCOUNT * 1.5
    errors = [(slope * ACTION - wanted) ** 2 for slope in (3, 5)]
    np.testing.assert_allclose(metrics["q_loss"], np.mean(errors), rtol=1e-5)
    np.testing.assert_allclose(metrics["gain"], 17 / 15, rtol=1e-5)


class Wide(Toward):
    """Predicts no noise: what is drawn keeps the spread it began with."""

    def apply(self, params, x, time, inputs, keys=None):
        return 0 * x + 0 * params


def test_the_best_of_several_draws_lies_ahead():
    one, many = (
        run(learner(Wide(), backup_candidates=count), BATCH, 1)[2]["q_loss"]
        for count in (1, 64)
    )
    # The best of many is at the end of the range, where 3 lies ahead.
    errors = [(slope * ACTION - 1 - DISCOUNT * 3) ** 2 for slope in (3, 5)]
    np.testing.assert_allclose(many, np.mean(errors), rtol=0.01)
    assert one > 1.2 * many


def test_the_best_draw_of_each_critic_is_taken_before_the_smaller_critic():
    # The best draws of both twins are worth 6, and no draw is worth 1 to both.
    batch = table([(0, 0, 1.0, 0, False)] * 64, states=1, actions=2)
    batch.actions[:] = 0
    built = learner(Wide(), Crossed(), action_dim=2, backup_candidates=64)
    *_, metrics = run(built, batch, 1)
    np.testing.assert_allclose(metrics["q_loss"], (1 + DISCOUNT * 6) ** 2, rtol=0.05)


def test_draws_are_compared_in_their_own_state():
    # Each of two states leads to itself: found are 0 and 1, wanted 0 and 1/2.
    rows = [(0, 0, 0.0, 0, False), (1, 0, 0.0, 1, False)] * 4
    batch = table(rows, states=2, actions=1)
    *_, metrics = run(learner(Wide(), Places(), backup_candidates=5), batch, 1)
    np.testing.assert_allclose(metrics["q_loss"], (1 - DISCOUNT) ** 2 / 2, rtol=1e-6)


def test_cloning_is_a_mean_over_the_action():
    batch = table([(0, 0, 0.0, 0, False)] * 4096, states=1, actions=3)
    *_, metrics = run(learner(Wide(), action_dim=3), batch, 1)
    # Noise of variance 1, within five standard errors.
    np.testing.assert_allclose(
        metrics["cloning"], 1, atol=5 * np.sqrt(2 / 3 / len(batch.rewards))
    )


def test_the_slow_policy_waits_and_then_follows():
    built = learner(ema_decay=0.9, ema_every=2, ema_start=0, learning_rate=0.01)
    before, once, _ = run(built, BATCH, 1)
    _, twice, _ = run(built, BATCH, 2)
    np.testing.assert_array_equal(once.slow["actor"], before.params["actor"])
    np.testing.assert_allclose(
        twice.slow["actor"],
        0.9 * before.params["actor"] + 0.1 * twice.params["actor"],
        rtol=1e-5,
    )
    assert (once.params["actor"] != before.params["actor"]).all()


def test_eta_may_be_swept_side_by_side():
    etas = np.array([0.0, 0.3], np.float32)
    _, state, _ = run(
        learner(one_step=True, learning_rate=0.01), BATCH, 200, hyper={"eta": etas}
    )
    cold, warm = np.asarray(state.params["actor"])[:, 0]
    assert warm > cold + 0.1


def test_a_gradient_may_be_bounded():
    # Adam's first step is the same whatever the size; what its state has seen is not.
    _, state, _ = run(learner(eta=5.0, max_gradient=0.01), BATCH, 1)
    norms = [
        float(jnp.linalg.norm(leaf))
        for leaf in jax.tree.leaves(state.opt_state["actor"])
        if leaf.shape == (1,)
    ]
    np.testing.assert_allclose(max(norms), 0.1 * 0.01, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "wrong", "option"),
    [
        (DiffusionQLConfig, {"eta": -1.0}, "`eta`"),
        (DiffusionQLActing, {"candidates": 0}, "`candidates`"),
        (DiffusionQLConfig, {"backup_candidates": 0}, "`backup_candidates`"),
        (DiffusionQLActing, {"pick": "expectile"}, "`pick`"),
        (DiffusionQLConfig, {"max_gradient": -1.0}, "`max_gradient`"),
    ],
)
def test_options_are_checked(kind, wrong, option):
    with pytest.raises(UserError, match=option):
        kind(**wrong)
