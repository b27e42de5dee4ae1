"""Contrastive energy prediction where the energy is known, and guidance by it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from points import straight_lines
from tables import TableQ, run, table

from jaxdiff.algorithms.base import TrainState
from jaxdiff.algorithms.offline import qgpo as module
from jaxdiff.algorithms.offline.common import measure
from jaxdiff.algorithms.offline.energy import (
    Supported,
    contrastive_loss,
    energy_learner,
    supporting,
)
from jaxdiff.algorithms.offline.qgpo import (
    QGPOActing,
    QGPOConfig,
    qgpo,
    support_learner,
)
from jaxdiff.data.spec import Spec
from jaxdiff.diffusion import ddim, discretize, vp_level
from jaxdiff.errors import UserError

# ----------------------------------------------------------- a behaviour of two actions

ACTIONS, SHARES, VALUES = np.array([-0.5, 0.8]), np.array([0.3, 0.7]), [1.5, -0.5]
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def exact_energy(x, alpha, sigma, values=VALUES):
    """log E[exp(value) | x], which equation (1) wants of the two actions."""
    odds = SHARES * np.exp(-((x[..., None] - alpha * ACTIONS) ** 2) / 2 / sigma**2)
    odds = odds / odds.sum(-1, keepdims=True)
    return np.log((odds * np.exp(values)).sum(-1))


def slope_at(energy, direction, *, time):
    """How the mean loss of two draws changes as the energy moves in a direction.

    By quadrature over the noise of both, and over which two actions are drawn.
    """
    level = vp_level(time)

    def mean_loss(shift, pair):
        ways = (level.alpha * ACTIONS[k] + level.sigma * NODES for k in pair)
        x = np.stack(np.meshgrid(*ways, indexing="ij"), axis=-1)
        energies = energy(x, level.alpha, level.sigma) + shift * direction(x)
        weights = np.exp([VALUES[k] for k in pair]) * np.ones_like(x)
        losses = contrastive_loss(energies, weights)
        return SHARES[list(pair)].prod() * (WEIGHTS[:, None] * WEIGHTS * losses).sum()

    return sum(
        float(jax.grad(mean_loss)(0.0, (i, j))) for i in range(2) for j in range(2)
    )


@pytest.mark.parametrize("time", [0.1, 0.4])
@pytest.mark.parametrize("direction", [np.sin, np.square, np.tanh])
def test_the_exact_energy_is_the_least(time, direction):
    np.testing.assert_allclose(
        slope_at(exact_energy, direction, time=time), 0, atol=3e-6
    )

    def other(x, alpha, sigma):
        return exact_energy(x, alpha, sigma, values=VALUES[::-1])

    assert abs(slope_at(other, np.tanh, time=time)) > 0.05


def test_a_number_of_the_state_changes_nothing():
    energies = jnp.asarray([[0.3, -1.0, 2.0]])
    weights = jax.nn.softmax(jnp.asarray([[1.0, 0.0, 0.5]]))
    np.testing.assert_allclose(
        contrastive_loss(energies + 7, weights),
        contrastive_loss(energies, weights),
        rtol=1e-5,
    )
    # Equal energies tell nothing: log K.
    np.testing.assert_allclose(contrastive_loss(0 * energies, weights), np.log(3))


# -------------------------------------------------------------------------- learners

CHOICE = table([(0, 0, 0.0, 0, False)] * 64, states=1, actions=2)
# Of four draws three are the first action.
DRAWN = np.eye(2, dtype=np.float32)[[0, 0, 0, 1]]


def supported(drawn=DRAWN):
    fields = {name: getattr(CHOICE, name) for name in CHOICE.__annotations__}
    return Supported(**fields, drawn=np.repeat(drawn[None], 64, axis=0))


class Tables(TableQ):
    """Tables of values, for any number of leading axes."""

    def apply(self, params, inputs, actions):
        return jnp.einsum("...s,ksa,...a->k...", inputs, params, actions)


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_critics_look_ahead_to_the_better_draws(temperature):
    q: Any = Tables()
    built = support_learner(
        q,
        lambda data, frozen, key: data,
        optax.sgd(0.0),
        temperature=temperature,
        discount=0.5,
        target_rate=0.1,
    )
    key = jax.random.key(0)
    batch = jax.tree.map(jnp.asarray, supported())
    state = built.init(key, batch, {})
    # Of the smaller targets the first action is worth 1 and the second 3.
    target = jnp.asarray([[[1.0, 3.0]], [[5.0, 4.0]]])
    state = TrainState(
        step=state.step,
        params=state.params,
        slow={"target": target},
        opt_state=state.opt_state,
    )
    _, metrics = built.update(state, jax.random.split(key, 64), batch, {}, {})
    weight = np.exp(2.0 * temperature)  # of the second relative to the first
    ahead = 0.5 * (3 * 1 + weight * 3) / (3 + weight)
    # Found are 0 and 1, of the untrained tables.
    np.testing.assert_allclose(
        metrics["loss"], (ahead**2 + (1 - ahead) ** 2) / 2, rtol=1e-5
    )


class Clock:
    """An energy that is the time, or the first entry of what is noised."""

    def __init__(self, of_time):
        self.of_time = of_time

    def init(self, key, x, time, inputs):
        return jnp.ones(())

    def apply(self, params, x, time, inputs):
        return params * (time[:, None] if self.of_time else x[:, :1])


def energy_run(energy, steps, drawn=DRAWN, **options):
    q: Any = Tables()
    built = energy_learner(
        energy, q, lambda data, frozen, key: data, optax.sgd(0.5), temperature=2.0
    )
    target = jnp.asarray([[[0.0, 1.0]], [[9.0, 9.0]]])
    critic = TrainState(
        step=jnp.int32(0),
        params={},
        slow={"target": target},
        opt_state=(),
    )
    return run(built, supported(drawn), steps, frozen={"critic": critic}, **options)


def test_all_draws_of_a_state_share_a_level():
    # An energy that is their time cannot tell them apart, whatever the time.
    *_, metrics = energy_run(Clock(True), 1)
    np.testing.assert_allclose(metrics["loss"], np.log(4), rtol=1e-5)


def test_each_draw_of_a_state_has_its_own_noise():
    # Noise alone tells equal draws apart, and an energy that sees it guesses wrong.
    *_, metrics = energy_run(Clock(False), 1, DRAWN[[0, 0, 0, 0]])
    assert metrics["loss"] > np.log(4) + 0.05


def test_the_energy_learns_which_draws_are_worth_more():
    # The second action is, whose first entry is 0: less of it is more.
    _, state, _ = energy_run(Clock(False), 60)
    assert state.params["energy"] < -0.2
    betas = np.array([0.0, 2.0], np.float32)
    _, states, _ = energy_run(Clock(False), 60, hyper={"temperature": betas})
    np.testing.assert_allclose(states.params["energy"][0], 0, atol=0.1)
    np.testing.assert_allclose(
        states.params["energy"][1], state.params["energy"], rtol=1e-4
    )


# --------------------------------------------------------------------------- drawing

SPEC = Spec(observation_shape=(2,), action_dim=2, goal_dim=2)
MEAN, STD, RISE = 0.1, 0.3, 1.5  # of the behaviour; beta Q rises so in each entry


class Normal:
    """The exact noise of the behaviour N(MEAN + s, STD^2), s the first input."""

    def apply(self, params, x, time, inputs, keys=None):
        level = vp_level(time)
        alpha, sigma = level.alpha[:, None], level.sigma[:, None]
        mean = MEAN + inputs[:, :1]
        return sigma * (x - alpha * mean) / (alpha**2 * STD**2 + sigma**2)


class Linear:
    """The exact energy of that behaviour and a value that rises by RISE."""

    def apply(self, params, x, time, inputs):
        level = vp_level(time)
        alpha, sigma = level.alpha[:, None], level.sigma[:, None]
        rest = x - alpha * (MEAN + inputs[:, :1])
        ahead = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * rest
        return RISE * ahead.sum(-1, keepdims=True)


def finished():
    slow = {"ema": (), "target": jnp.zeros((2, 4, 2))}
    return TrainState(
        step=jnp.int32(0),
        params={"energy": ()},
        slow=slow,
        opt_state=(),
    )


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0])
def test_exact_guidance_tilts_the_behaviour_exactly(scale, monkeypatch):
    monkeypatch.setattr(module, "score_network", lambda config, size: Normal())
    monkeypatch.setattr(module, "energy_network", lambda config: Linear())
    monkeypatch.setattr(module, "TwinQ", lambda *options: Tables())
    config = QGPOConfig(scale_actions=False, normalizer="none", support_steps=60)
    statistics = measure(config, straight_lines(8), SPEC)
    built = qgpo(config, QGPOActing(guide_scale=scale), statistics, SPEC)
    states = dict.fromkeys(built.learners, finished())
    observation, goal = np.zeros((2, 2_000, 2), np.float32)
    keys = jax.random.split(jax.random.key(0), 2_000)
    out, _ = jax.jit(built.act)(states, (), keys, observation, None, goal)
    # A normal tilted by exp(RISE a) keeps its spread, and its mean moves.
    found = np.asarray(out.action)
    np.testing.assert_allclose(found.mean(0), MEAN + scale * RISE * STD**2, atol=0.025)
    np.testing.assert_allclose(found.std(0), STD, rtol=0.12)  # the solver's own


def test_an_action_takes_as_many_steps_as_it_is_told(monkeypatch):
    asked = []
    flow_steps = module.flow_steps
    monkeypatch.setattr(
        module, "flow_steps", lambda count: asked.append(count) or flow_steps(count)
    )
    config = QGPOConfig(support_steps=12)
    statistics = measure(config, straight_lines(8), SPEC)
    for steps in (None, 5):
        qgpo(config, QGPOActing(sampling_steps=steps), statistics, SPEC)
    # Of the draws that training reads, and of actions.
    assert asked == [12, 12, 12, 5]


def test_draws_are_of_the_states_they_belong_to():
    batch = table(
        [(0, 0, 0.0, 1, False), (1, 0, 0.0, 0, False)] * 20, states=2, actions=1
    )
    steps = ddim(discretize(vp_level, np.linspace(0.001, 1, 40)))

    def drawn(ahead):
        prepared = supporting(
            lambda data, frozen, key: jax.tree.map(jnp.asarray, data),
            Normal(),
            steps,
            count=50,
            ahead=ahead,
        )(batch, {"behaviour": finished()}, jax.random.key(0))
        np.testing.assert_array_equal(prepared.inputs, batch.inputs)
        return np.asarray(prepared.drawn)

    here, there = drawn(False), drawn(True)
    assert here.shape == (40, 50, 1)
    own = np.asarray(batch.inputs[:, 0])
    for label in (0, 1):
        means = [each[own == label].mean() for each in (here, there)]
        np.testing.assert_allclose(means, [MEAN + label, MEAN + 1 - label], atol=0.05)
    # Every draw is another.
    assert len(np.unique(here)) == here.size


@pytest.mark.parametrize(
    ("kind", "wrong", "option"),
    [
        (QGPOConfig, {"support_actions": 0}, "`support_actions`"),
        (QGPOConfig, {"support_steps": 0}, "`support_steps`"),
        (QGPOConfig, {"temperature": -1.0}, "`temperature`"),
        (QGPOActing, {"sampling_steps": 0}, "`sampling_steps`"),
        (QGPOActing, {"guide_scale": -1.0}, "`guide_scale`"),
    ],
)
def test_options_are_checked(kind, wrong, option):
    with pytest.raises(UserError, match=option):
        kind(**wrong)
