"""The policy of IQL where the weighted mean of actions is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tables import Plain, TableQ, TableV, run, table

from jaxdiff.algorithms.base import TrainState
from jaxdiff.algorithms.offline.iql import (
    IQLConfig,
    log_likelihood,
    weighted_learner,
)
from jaxdiff.errors import UserError

# In one state three actions in four are the worse one.
CHOICE = [(0, 0, 0.0, 0, True)] * 3 + [(0, 1, 1.0, 0, True)]
BATCH = table(CHOICE, states=1, actions=2)
VALUE = 0.25


def critic():
    """The finished critic: the smaller target is right, all that is trained is not."""
    q = jnp.asarray([[0.0, 1.0]])
    state = TrainState(
        step=jnp.int32(0),
        params={"q": jnp.full((2, 1, 2), jnp.nan), "v": jnp.asarray([VALUE])},
        slow={"target": jnp.stack([q, q + 9])},
        opt_state=(),
    )
    return {"critic": state}


def learner(*, gaussian=False, max_weight=100.0, temperature=2.0):
    return weighted_learner(
        Plain(2, gaussian=gaussian),
        TableQ(),
        TableV(),
        lambda data, frozen, key: data,
        optax.adam(optax.exponential_decay(0.05, 100, 0.5)),
        temperature=temperature,
        max_weight=max_weight,
    )


def share_of_the_good(temperature, max_weight=100.0):
    """What the good action, one in four, weighs."""
    weights = [min(np.exp(temperature * (q - VALUE)), max_weight) for q in (0.0, 1.0)]
    return weights[1] / (3 * weights[0] + weights[1])


@pytest.mark.parametrize(("temperature", "bound"), [(0, 100), (2, 100), (5, 3)])
def test_the_policy_is_the_weighted_mean(temperature, bound):
    built = learner(temperature=temperature, max_weight=bound)
    _, state, _ = run(built, BATCH, 1000, frozen=critic())
    share = share_of_the_good(temperature, bound)
    np.testing.assert_allclose(state.params["mean"][0], [1 - share, share], atol=2e-3)


def test_a_gaussian_learns_the_spread_too():
    _, state, _ = run(learner(gaussian=True), BATCH, 1500, frozen=critic())
    share = share_of_the_good(2.0)
    np.testing.assert_allclose(state.params["mean"][0], [1 - share, share], atol=5e-3)
    spread = np.sqrt(share * (1 - share))
    np.testing.assert_allclose(state.params["std"], spread, atol=5e-3)


def test_temperatures_may_be_swept_side_by_side():
    temperatures = np.array([0.0, 1.0, 4.0], np.float32)
    _, state, _ = run(
        learner(), BATCH, 1000, frozen=critic(), hyper={"temperature": temperatures}
    )
    expected = [share_of_the_good(float(t)) for t in temperatures]
    np.testing.assert_allclose(state.params["mean"][:, 0, 1], expected, atol=2e-3)


def test_likelihoods():
    mean, actions = jax.random.normal(jax.random.key(0), (2, 5, 3))
    std = jnp.asarray([0.5, 1.0, 2.0])
    expected = jax.scipy.stats.norm.logpdf(actions, mean, std).sum(-1)
    np.testing.assert_allclose(log_likelihood(mean, std, actions), expected, rtol=1e-5)
    half = jnp.full(3, np.sqrt(0.5))
    constant = log_likelihood(mean, None, actions) - log_likelihood(mean, half, actions)
    np.testing.assert_allclose(constant, constant[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"expectile": 1.0}, "`expectile`"),
        ({"expectile": 0.0}, "`expectile`"),
        ({"temperature": -1.0}, "`temperature`"),
        ({"max_weight": -1.0}, "`max_weight`"),
        ({"policy_decay": -1.0}, "`policy_decay`"),
        ({"policy_decay": 1.5}, "`policy_decay`"),
    ],
)
def test_options_are_checked(wrong, option):
    with pytest.raises(UserError, match=option):
        IQLConfig(**wrong)


def test_all_faults_are_told_at_once():
    with pytest.raises(UserError, match=r"`discount`.*`expectile`"):
        IQLConfig(discount=2.0, expectile=1.0)
