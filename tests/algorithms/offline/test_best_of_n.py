"""Choosing among candidates, and IDQL where behaviour and critic are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from points import straight_lines

from jaxdiff.algorithms.base import TrainState
from jaxdiff.algorithms.offline import idql as module
from jaxdiff.algorithms.offline.behaviour import sample_actions
from jaxdiff.algorithms.offline.best_of_n import choose
from jaxdiff.algorithms.offline.common import measure
from jaxdiff.algorithms.offline.idql import IDQLActing, IDQLConfig, idql
from jaxdiff.data.spec import Spec
from jaxdiff.diffusion import ddpm, repeat_keys, split_keys, vp_schedule
from jaxdiff.errors import UserError

KEY = jax.random.key(0)
SPEC = Spec(observation_shape=(2,), action_dim=2, goal_dim=2)


def test_the_best_is_the_first_of_the_highest():
    actions = jnp.arange(12.0).reshape(2, 3, 2)
    logits = jnp.asarray([[0.0, 5.0, 5.0], [1.0, -2.0, 0.0]])
    found = choose(jax.random.split(KEY, 2), actions, logits, best=True)
    np.testing.assert_array_equal(found, [[2, 3], [6, 7]])


def test_others_are_drawn_by_their_weights():
    logits = jnp.broadcast_to(jnp.log(jnp.asarray([1.0, 3.0, 0.0])), (8_000, 3))
    actions = jnp.broadcast_to(jnp.arange(3.0)[:, None], (8_000, 3, 1))
    keys = jax.random.split(KEY, 8_000)
    found = choose(keys, actions, logits, best=False)[:, 0]
    shares = [(found == i).mean() for i in range(3)]
    np.testing.assert_allclose(shares, [0.25, 0.75, 0], atol=0.03)


# ------------------------------------------------------------------------------ IDQL

MEAN, STD = 0.25, 0.3  # of the behaviour, in every state
DATA = straight_lines(8)


class Normal:
    """The exact noise of the behaviour at each level, which time tells apart."""

    def apply(self, params, x, time, inputs, keys=None):
        levels = vp_schedule(5, time="fraction")
        row = jnp.round(time * 5).astype(int)[:, None]
        alpha, sigma = jnp.asarray(levels.alpha)[row], jnp.asarray(levels.sigma)[row]
        variance = alpha**2 * STD**2 + sigma**2
        return sigma * (x - alpha * MEAN) / variance


class Height:
    """Twins of which the smaller one is the action's first entry."""

    def apply(self, params, inputs, actions):
        return jnp.stack([actions[:, 0] + 1, actions[:, 0]])


class Middle:
    """The value of a state: that of the behaviour's mean."""

    def apply(self, params, inputs):
        return jnp.full(len(inputs), MEAN)


def finished():
    return TrainState(
        step=jnp.int32(0),
        params={"v": ()},
        slow={"target": (), "ema": ()},
        opt_state=(),
    )


@pytest.fixture
def known(monkeypatch):
    """Options -> what IDQL does, so often, where all it learns from is known."""
    monkeypatch.setattr(module, "score_network", lambda config, size: Normal())
    monkeypatch.setattr(
        module, "critic_of", lambda config, prepare: (Height(), Middle(), None)
    )

    def acts(count=4_000, *, expectile=0.7, guidance=None, **options):
        config = IDQLConfig(scale_actions=False, expectile=expectile)
        statistics = measure(config, DATA, SPEC)
        built = idql(config, IDQLActing(**options), statistics, SPEC)
        states = {"critic": finished(), "behaviour": finished()}
        observation, goal = np.zeros((2, count, 2), np.float32)
        keys = jax.random.split(KEY, count)
        out, _ = jax.jit(built.act)(
            states, (), keys, observation, None, goal, guidance=guidance
        )
        return np.asarray(out.action)

    return acts


def test_one_candidate_is_a_draw_of_the_behaviour(known):
    found = known(candidates=1)
    keys = repeat_keys(split_keys(jax.random.split(KEY, 4_000))[0], 1)
    steps = ddpm(vp_schedule(5, time="fraction"), variance="beta")
    expected = sample_actions(
        keys, Normal(), (), jnp.zeros((4_000, 4)), steps, action_dim=2, clip=1.0
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.mean(0), MEAN, atol=0.02)


def test_the_best_of_many_is_better_than_that_of_few(known):
    few, many = (known(candidates=n, count=500) for n in (2, 32))
    assert few[:, 0].mean() > MEAN + 0.1
    assert many[:, 0].mean() > few[:, 0].mean() + 0.2
    # The other entry is worth nothing.
    np.testing.assert_allclose(many[:, 1].mean(), MEAN, atol=0.06)


def test_the_middle_expectile_clones_and_a_high_one_does_not(known):
    same, high = (
        known(candidates=8, pick="expectile", expectile=tau) for tau in (0.5, 0.9)
    )
    np.testing.assert_allclose((same[:, 0] > MEAN).mean(), 0.5, atol=0.03)
    # Of many candidates half are above, and weigh nine times as much.
    share = (high[:, 0] > MEAN).mean()
    assert 0.8 < share < 0.92


def test_a_soft_choice_lies_between(known):
    cold, warm = (
        known(candidates=16, pick="softmax", temperature=beta)[:, 0].mean()
        for beta in (0.0, 2.0)
    )
    np.testing.assert_allclose(cold, MEAN, atol=0.02)
    # A normal tilted by beta a moves by beta variance; of five steps that is not STD^2.
    variance = known(candidates=1)[:, 0].var()
    np.testing.assert_allclose(warm - cold, 2 * variance, rtol=0.2)


def test_without_noise_all_candidates_are_one(known):
    found = known(count=4, noise=0.0)
    np.testing.assert_array_equal(found, found[:1].repeat(4, axis=0))


def test_options_of_acting_may_be_given_as_arrays(known):
    found = known(count=4, guidance={"noise": jnp.zeros(())})
    np.testing.assert_array_equal(found, known(count=4, noise=0.0))


def test_draws_one_by_one_know_nothing_of_each_other():
    steps, inputs = ddpm(vp_schedule(5, time="fraction")), jnp.zeros((4, 1))
    keys = jax.random.split(KEY, 4)
    draw = jax.jit(
        lambda keys: sample_actions(keys, Normal(), (), inputs, steps, action_dim=2)
    )
    np.testing.assert_allclose(draw(keys[::-1])[::-1], draw(keys), atol=1e-6)
    assert draw(keys).std() > 0.05


@pytest.mark.parametrize(
    ("kind", "wrong", "option"),
    [
        (IDQLActing, {"candidates": 0}, "`candidates`"),
        (IDQLActing, {"pick": "worst"}, "`pick`"),
        (IDQLConfig, {"diffusion_steps": 0}, "`diffusion_steps`"),
        (IDQLConfig, {"expectile": 1.0}, "`expectile`"),
        (IDQLConfig, {"score_dropout": 1.0}, "`score_dropout`"),
    ],
)
def test_options_are_checked(kind, wrong, option):
    with pytest.raises(UserError, match=option):
        kind(**wrong)
