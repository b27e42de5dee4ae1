"""SRPO where behaviour and critic are known in closed form, and so is the policy."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from points import straight_lines
from tables import Plain, run, table

from jaxdiff.algorithms.base import Averaging, TrainState
from jaxdiff.algorithms.offline.behaviour import (
    FIRST_TIME,
    behaviour_learner,
    every_level,
    flow_steps,
    sample_actions,
)
from jaxdiff.algorithms.offline.common import measure
from jaxdiff.algorithms.offline.srpo import (
    ENTRY,
    SRPOConfig,
    regularised_learner,
    srpo,
)
from jaxdiff.data.episodes import Episodes
from jaxdiff.data.spec import Spec
from jaxdiff.diffusion import ddim, dpm_solver_pp, vp_level
from jaxdiff.errors import UserError
from jaxdiff.networks import ScoreMLP
from jaxdiff.options import NoOptions

# The behaviour is N(MEANS[s], STD^2); Q is -(a - TARGET)^2.
MEANS, STD, TARGET = np.array([-0.5, 0.4]), 0.2, 1.5
KAPPA = 0.219335  # of that spread and of omega = sigma^2, as in test_regularize
BATCH = table([(0, 0, 0.0, 0, False), (1, 0, 0.0, 0, False)] * 64, states=2, actions=1)


class NormalNoise:
    """The exact noise of the behaviour."""

    def apply(self, params, x, time, inputs, keys=None):
        level = vp_level(jnp.asarray(time))
        alpha, sigma = level.alpha[:, None], level.sigma[:, None]
        mean = inputs @ params[:, None]
        return sigma * (x - alpha * mean) / (alpha**2 * STD**2 + sigma**2)


class Quadratic:
    """Twins of which the mean is -(a - target)^2; each alone is another thing."""

    def apply(self, params, inputs, actions):
        square = ((actions - params) ** 2).sum(-1)
        return jnp.stack([-3 * square, square])


def finished(**parts):
    state = TrainState(step=jnp.int32(0), params=jnp.nan, slow={}, opt_state=())
    return dataclasses.replace(state, **parts)


# What may be read is finite: the critic's target, the behaviour's average.
FROZEN = {
    "critic": finished(slow={"target": jnp.float32(TARGET)}),
    "behaviour": finished(slow={"ema": jnp.asarray(MEANS, jnp.float32)}),
}


def learner(*, gaussian=False, **options):
    return regularised_learner(
        Plain(1, gaussian=gaussian),
        Quadratic(),
        NormalNoise(),
        lambda data, frozen, key: data,
        optax.adam(optax.exponential_decay(0.1, 60, 0.5)),
        **{"temperature": 0.1, **options},
    )


def rest(beta):
    return (2 * beta * TARGET + KAPPA * MEANS) / (2 * beta + KAPPA)


def test_the_policy_rests_between_behaviour_and_target():
    betas = np.array([0.0, 0.05, 0.5], np.float32)
    _, state, _ = run(
        learner(), BATCH, 500, frozen=FROZEN, hyper={"temperature": betas}
    )
    expected = [rest(float(beta)) for beta in betas]
    np.testing.assert_allclose(state.params["mean"][..., 0], expected, atol=0.02)


def first_step(built):
    """The gradient of the first update, by plain descent, and its metrics."""
    before, after, metrics = run(built, BATCH, 1, frozen=FROZEN)
    return np.asarray(before.params["mean"] - after.params["mean"]), metrics


def plain(**options):
    return regularised_learner(
        Plain(1),
        Quadratic(),
        NormalNoise(),
        lambda data, frozen, key: data,
        optax.sgd(1.0),
        **{"temperature": 0.1, **options},
    )


def test_its_first_step_is_known():
    # At a = 0, with a gradient of Q of 2 TARGET, in each of two states half the batch.
    found, metrics = first_step(plain(temperature=100.0))
    np.testing.assert_allclose(found[:, 0], -100 * TARGET, rtol=0.01)
    np.testing.assert_allclose(metrics["q"], -(TARGET**2), rtol=1e-6)
    np.testing.assert_allclose(metrics["q_gradient"], 200 * TARGET, rtol=1e-6)


def test_options_reach_the_gradient():
    steps = {
        name: first_step(plain(**options))[0]
        for name, options in {
            "default": {},
            "omega": {"kind": "one"},
            "baseline": {"baseline": False},
            "unit": {"unit_gradient": True},
        }.items()
    }
    for name in ("omega", "baseline", "unit"):
        assert (steps[name] != steps["default"]).all(), name
    # With gradients of one size the sign of Q's slope is left: 2 TARGET becomes 1.
    extra = 0.1 * (2 * TARGET - 1) / 2
    np.testing.assert_allclose(steps["unit"] - steps["default"], extra, rtol=1e-3)


def test_each_example_has_its_own_level():
    # With one level for a whole batch, two batches would differ far more.
    whole, _ = first_step(plain(temperature=0.0))
    # Two states share the batch.
    np.testing.assert_allclose(whole[:, 0], KAPPA * -MEANS / 2, rtol=0.25)


class Late:
    """The noise is 1 at times outside of some bounds, and 0 between them."""

    def __init__(self, first, last):
        self.first, self.last = first, last

    def apply(self, params, x, time, inputs, keys=None):
        beyond = (time < self.first) | (time > self.last)
        return jnp.where(beyond, 1.0, 0.0)[:, None] + 0 * x


@pytest.mark.parametrize(
    ("bounds", "share"), [((0.02, 0.98), 0.0), ((0.116, 1.0), 0.1), ((0, 0.884), 0.1)]
)
def test_levels_are_as_likely_between_their_bounds(bounds, share):
    # Of the 0.96 between the bounds of the paper a tenth is 0.096.
    batch = jax.tree.map(lambda x: np.repeat(x, 32, axis=0), BATCH)
    built = regularised_learner(
        Plain(1), Quadratic(), Late(*bounds), lambda data, frozen, key: data,
        optax.sgd(1.0), temperature=0.1, kind="one", baseline=False,
    )  # fmt: skip
    *_, metrics = run(built, batch, 1, frozen=FROZEN)
    np.testing.assert_allclose(metrics["score_gradient"], share, atol=0.2 * share)


def test_the_behaviour_learns_at_all_times():
    keys = jax.random.split(jax.random.key(0), 4096)
    times = jax.vmap(every_level())(keys).time
    np.testing.assert_allclose([times.min(), times.max()], [0.001, 1], atol=2e-3)
    np.testing.assert_allclose(times.mean(), 0.5, atol=0.02)


def test_a_gaussian_takes_the_spread_of_the_behaviour():
    _, state, _ = run(
        learner(gaussian=True, temperature=0.0), BATCH, 800, frozen=FROZEN
    )
    np.testing.assert_allclose(state.params["mean"][:, 0], MEANS, atol=0.02)
    # S and -S are one policy.
    np.testing.assert_allclose(np.abs(state.params["std"]), STD, atol=0.005)


def test_nothing_is_learned_of_the_frozen():
    _, state, _ = run(learner(), BATCH, 3, frozen=FROZEN)
    assert state.params.keys() == {"mean", "std"}
    np.testing.assert_array_equal(state.params["std"], np.float32(0.8))  # Dirac


# ------------------------------------------------------------------------- behaviour


@pytest.mark.parametrize("solver", [ddim, dpm_solver_pp])
def test_actions_flow_as_they_must(solver):
    inputs = jnp.repeat(jnp.eye(2), 300, axis=0)
    key, params = jax.random.key(0), jnp.asarray(MEANS, jnp.float32)

    def actions(count, **options):
        steps = flow_steps(count, solver=solver)
        network = NormalNoise()
        draw = jax.jit(
            lambda: sample_actions(
                key, network, params, inputs, steps, action_dim=1, **options
            )
        )
        return draw()[:, 0]

    # Of normal data the flow keeps every point at its quantile.
    start = jax.random.normal(jax.random.split(key)[0], (600, 1))[:, 0]
    last = vp_level(1.0)
    mean = inputs @ params
    spread = np.sqrt(last.alpha**2 * STD**2 + last.sigma**2)
    expected = mean + STD * (start - last.alpha * mean) / spread
    found = actions(200)
    np.testing.assert_allclose(found, expected, atol=0.02)
    for label, centre in enumerate(MEANS):
        own = np.asarray(found[inputs[:, label] == 1])
        np.testing.assert_allclose(own.mean(), centre, atol=5 * STD / np.sqrt(300))
        np.testing.assert_allclose(own.std(), STD, rtol=0.2)
    # Clipped estimates end in the box, and without noise at the start all are alike.
    assert np.abs(actions(20, clip=0.3)).max() < 0.31
    assert actions(20, temperature=0.0)[:300].std() < 1e-6


def test_the_flow_starts_at_pure_noise_and_ends_clean():
    steps = flow_steps(15)
    assert len(steps.x) == 15
    np.testing.assert_allclose(steps.level.time[[0, -1]], [1, FIRST_TIME], rtol=1e-5)
    np.testing.assert_allclose(np.diff(steps.level.time), -0.999 / 14, rtol=1e-4)
    np.testing.assert_allclose(steps.x[-1] * steps.level.alpha[-1] + steps.x0[-1], 1)


def behaviour(network, *, optimizer=None):
    return behaviour_learner(
        network,
        lambda data, frozen, key: data,
        optimizer or optax.sgd(1.0),
        averaging=Averaging(0.5),
    )


def test_the_loss_of_the_behaviour_is_a_sum_over_the_action():
    class Nothing:
        def init(self, key, x, time, inputs):
            return jnp.zeros(x.shape[-1])

        def apply(self, params, x, time, inputs, keys=None):
            return 0 * x + params

    batch = table([(0, 0, 0.0, 0, False)] * 4096, states=1, actions=3)
    built = behaviour(Nothing())
    *_, metrics = run(built, batch, 1)
    # Three entries of noise of variance 1, within five standard errors.
    np.testing.assert_allclose(metrics["loss"], 3, atol=5 * np.sqrt(2 * 3 / 4096))


def test_dropout_acts_while_the_behaviour_is_trained_and_only_then():
    batch = table([(0, 0, 0.0, 0, False)] * 8, states=1, actions=2)
    losses = {}
    for dropout in (0.0, 0.5):
        network: Any = ScoreMLP(2, width=16, blocks=1, time_width=8, dropout=dropout)
        losses[dropout] = run(behaviour(network), batch, 1)[2]["loss"]
    assert losses[0.0] != losses[0.5]


# --------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"temperature": -1.0}, "`temperature`"),
        ({"omega": "sigma"}, "`omega`"),
        ({"score_dropout": 1.0}, "`score_dropout`"),
        ({"ema_decay": 1.0}, "`ema_decay`"),
        ({"score_width": 0}, "`score_width`"),
        ({"expectile": 2.0}, "`expectile`"),
        ({"actor": "gaussian", "baseline": False}, "`baseline=False`"),
    ],
)
def test_options_are_checked(wrong, option):
    with pytest.raises(UserError, match=option):
        SRPOConfig(**wrong)


def test_the_policy_may_be_deeper_than_the_critics():
    """The sizes of the released networks in AntMaze: 29 observed, 8 actions."""
    spec = Spec((29,), action_dim=8)
    config = SRPOConfig(policy_widths=(256,) * 4)
    rows = np.random.default_rng(0).uniform(-1, 1, (8, 29 + 8)).astype(np.float32)
    episodes = Episodes(
        observations=rows[:, :29], actions=rows[:, 29:], rewards=rows[:, 0],
        starts=np.zeros(1, int), lengths=np.array([7]), terminated=np.ones(1, bool),
    )  # fmt: skip
    statistics = ENTRY.measure(config, episodes, spec)
    built = ENTRY.build(config, NoOptions(), statistics, spec)

    def sizes(name, frozen):
        learner = built.learners[name]
        data = learner.prepare(episodes, frozen, jax.random.key(0))
        batch = jax.vmap(learner.draw, (None, 0))(
            data, jax.random.split(jax.random.key(0), 2)
        )
        return jax.eval_shape(lambda: learner.init(jax.random.key(0), batch, frozen))

    def count(tree):
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))

    critic = sizes("critic", {})
    assert count(critic.params) == 2 * (37 * 256 + 66_305) + 29 * 256 + 66_305
    frozen = {"critic": critic, "behaviour": sizes("behaviour", {})}
    assert count(sizes("policy", frozen).params) == 207_112


def test_learners_train_in_their_order():
    config = SRPOConfig()
    spec = Spec(observation_shape=(2,), action_dim=2, goal_dim=2)
    statistics = measure(config, straight_lines(4), spec)
    built = srpo(config, NoOptions(), statistics, spec)
    assert list(built.learners) == ["critic", "behaviour", "policy"]
