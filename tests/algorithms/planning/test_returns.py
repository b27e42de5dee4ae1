"""The model of returns: what it is shown and what it is told to say."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdiff.algorithms.base import Averaging
from jaxdiff.algorithms.planning.returns import (
    expected_return,
    return_value,
    returns_learner,
)
from jaxdiff.data.episodes import Episodes, starts_of
from jaxdiff.data.windows import padded_windows
from jaxdiff.diffusion import cosine_schedule, take
from jaxdiff.host_program import call

HORIZON, DIM, STEPS = 4, 3, 6
LEVELS = cosine_schedule(STEPS)
MASK = np.zeros((HORIZON, DIM), bool)
MASK[0, 1:] = True


def counting(lengths, terminated, *, reward=1.0):
    """Episodes of a constant reward, whose observations count the steps that are left.

    The second observation says which episode it is.
    """
    lengths = np.array(lengths)
    left = np.concatenate([np.arange(n, -1, -1) for n in lengths]).astype(np.float32)
    which = np.repeat(np.arange(len(lengths)), lengths + 1).astype(np.float32)
    return Episodes(
        observations=np.stack([left, which], 1),
        actions=np.zeros((len(left), 1), np.float32),
        rewards=np.where(left > 0, reward, 0).astype(np.float32),
        starts=starts_of(lengths),
        lengths=lengths,
        terminated=np.array(terminated),
    )


def cut(episodes):
    rows = np.concatenate([episodes.actions, episodes.observations], axis=1)
    return padded_windows(rows, episodes, 1, fill=np.full(DIM, -7.0, np.float32))


class Spy:
    """A network that remembers what it was shown, and says one number of all."""

    def __init__(self, answer=0.0):
        self.answer = answer

    def init(self, key, x, time):
        return {"answer": jnp.float32(self.answer)}

    def apply(self, params, x, time):
        self.x, self.time = x, time
        return jnp.broadcast_to(params["answer"], x.shape[:1])


def learner(network, **options):
    options = {
        "horizon": HORIZON,
        "mask": MASK,
        "discount": 0.5,
        "termination_penalty": 0.0,
        "averaging": Averaging(0.9),
        **options,
    }
    return returns_learner(network, cut, LEVELS, optax.adam(0.1), **options)


def drawn(made, episodes, count=300):
    data = made.prepare(episodes, {}, jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), count)
    windows, returns = jax.vmap(made.draw, (None, 0))(data, keys)
    return np.asarray(windows), np.asarray(returns)


@pytest.mark.parametrize("discount", [0.5, 0.997, 1.0])
def test_target_is_the_geometric_sum_to_the_end_of_the_episode(discount):
    # Both episodes are longer than the window: what lies beyond it counts.
    lengths, terminated = [9, 12], [True, False]
    made = learner(Spy(), discount=discount, termination_penalty=-100.0)
    windows, returns = drawn(made, counting(lengths, terminated, reward=2.0))
    left, which = windows[:, 0, 1].astype(np.float64), windows[:, 0, 2]
    whole = left if discount == 1.0 else (1 - discount**left) / (1 - discount)
    # The end of the first episode costs 100, once, at its last step; a time limit
    # costs nothing.
    penalty = np.where(which == 0, -100 * discount ** (left - 1), 0)
    np.testing.assert_allclose(returns, 2 * whole + penalty, rtol=1e-5)
    # Every step of every episode begins a window, the last one too.
    assert {*zip(which, left, strict=True)} == {
        (e, n) for e, length in enumerate(lengths) for n in range(1, length + 1)
    }


def test_windows_past_the_end_are_filled():
    windows, _ = drawn(learner(Spy()), counting([5], [True]))
    for window in windows:
        left = int(window[0, 1])
        inside = min(left, HORIZON)
        np.testing.assert_array_equal(window[:inside, 1], left - np.arange(inside))
        np.testing.assert_array_equal(window[inside:], -7.0)


def shown(noised, count=2000):
    """What the network sees of random windows in one update."""
    spy = Spy()
    made = learner(spy, noised=noised)
    x = jax.random.normal(jax.random.key(3), (count, HORIZON, DIM))
    batch = (x, jnp.zeros(count))
    state = call(made.init, jax.random.key(0), batch, {})
    made.update(state, jax.random.split(jax.random.key(4), count), batch, {}, {})
    return np.asarray(x), np.asarray(spy.x), np.asarray(spy.time)


def test_the_network_sees_noise_everywhere_but_in_what_is_known():
    x, seen, time = shown(noised=True)
    np.testing.assert_array_equal(seen[:, MASK], x[:, MASK])
    np.testing.assert_array_equal(np.unique(time), np.arange(STEPS))
    counts = np.bincount(time.astype(int))
    np.testing.assert_allclose(counts / len(x), 1 / STEPS, atol=0.04)
    level = take(LEVELS, time.astype(int) + 1)
    alpha, sigma = (np.asarray(v)[:, None] for v in (level.alpha, level.sigma))
    noise = (seen[:, ~MASK] - alpha * x[:, ~MASK]) / sigma
    # Normal, and independent of the data and between entries.
    flat = np.concatenate([noise, x[:, ~MASK]], axis=1)
    np.testing.assert_allclose(flat.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(np.cov(flat.T), np.eye(flat.shape[1]), atol=0.15)


def test_without_noise_the_network_sees_clean_windows_at_the_clean_level():
    x, seen, time = shown(noised=False, count=8)
    np.testing.assert_array_equal(seen, x)
    np.testing.assert_array_equal(time, np.full(8, LEVELS.time[0]))


def test_loss_is_the_mean_square_in_raw_units():
    made = learner(Spy(answer=3.0))
    batch = (jnp.zeros((4, HORIZON, DIM)), jnp.array([3.0, 103.0, 3.0, -97.0]))
    state = call(made.init, jax.random.key(0), batch, {})
    keys = jax.random.split(jax.random.key(1), 4)
    state, metrics = made.update(state, keys, batch, {}, {})
    assert metrics["loss"] == 5000.0
    # Targets above and below alike: the gradient is zero.
    assert state.params["answer"] == 3.0
    state, _ = made.update(state, keys, (batch[0], batch[1] + 50), {}, {})
    assert state.params["answer"] > 3.0
    expected = 0.9 * 3.0 + 0.1 * float(state.params["answer"])
    np.testing.assert_allclose(state.slow["ema"]["answer"], expected, rtol=1e-6)


class Affine:
    """Reads the present state and nothing else."""

    def init(self, key, x, time):
        return {"w": jnp.zeros(DIM - 1), "b": jnp.zeros(())}

    def apply(self, params, x, time):
        return x[:, 0, 1:] @ params["w"] + params["b"]


def test_learns_a_return_that_is_known():
    # Undiscounted, with a reward of 2 a step, what is left is worth twice its number.
    made = learner(Affine(), discount=1.0)
    data = made.prepare(counting([9, 12], [True, False], reward=2.0), {}, None)

    @jax.jit
    def train(state):
        def body(n, state):
            keys = jax.random.split(jax.random.fold_in(jax.random.key(0), n), 32)
            batch = jax.vmap(made.draw, (None, 0))(data, keys)
            return made.update(state, keys, batch, {}, {})[0]

        return jax.lax.fori_loop(0, 500, body, state)

    batch = (jnp.zeros((1, HORIZON, DIM)), jnp.zeros(1))
    params = train(made.init(jax.random.key(0), batch, {})).slow["ema"]
    np.testing.assert_allclose(params["w"], [2, 0], atol=0.05)
    np.testing.assert_allclose(params["b"], 0, atol=0.3)


@pytest.mark.parametrize(("noised", "told"), [(True, [4.0, 0.0]), (False, [-1.0] * 2)])
def test_plans_are_judged_as_the_model_was_trained(noised, told):
    spy = Spy(answer=7.0)
    value = return_value(spy, {"answer": jnp.float32(7)}, LEVELS, noised=noised)
    x = jnp.ones((2, HORIZON, DIM))
    np.testing.assert_array_equal(value(x, take(LEVELS, 5)), [7.0, 7.0])
    np.testing.assert_array_equal(spy.time, [told[0]] * 2)
    # A finished plan has the least noise that was ever seen.
    np.testing.assert_array_equal(expected_return(value, LEVELS, x), [7.0, 7.0])
    np.testing.assert_array_equal(spy.time, [told[1]] * 2)
    np.testing.assert_array_equal(spy.x, x)
