"""The action between two states, where it is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from planners import keys_of

from jaxdiff.algorithms.base import Averaging
from jaxdiff.algorithms.planning.inverse_dynamics import (
    Inverse,
    Moves,
    autoregressive,
    direct,
    inverse_learner,
)
from jaxdiff.host_program import call
from jaxdiff.networks import AutoregressiveBins

PUSH = np.array([[0.5, 0.2, -0.1], [0.0, 0.4, 0.3]])  # what two actions do to a state


def linear_moves(count=512):
    rng = np.random.default_rng(0)
    before, actions = rng.uniform(-1, 1, (count, 3)), rng.uniform(-1, 1, (count, 2))
    drift = before + np.roll(before, 1, axis=-1) / 5
    arrays = (before, drift + actions @ PUSH, actions)
    return Moves(*(jnp.asarray(x, jnp.float32) for x in arrays))


def train(inverse: Inverse, moves: Moves, steps: int, rate: float):
    """Averaged parameters after some updates of 64 moves, and the last losses."""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))
    learner = inverse_learner(
        inverse, lambda moves: moves, optimizer, averaging=Averaging(0.9)
    )

    @jax.jit
    def run(data):
        def update(state, key):
            keys = jax.random.split(key, 64)
            batch = jax.vmap(learner.draw, (None, 0))(data, keys)
            state, metrics = learner.update(state, keys, batch, {}, {})
            return state, metrics["loss"]

        first = jax.vmap(learner.draw, (None, 0))(data, jax.random.split(keys[0], 64))
        state = learner.init(keys[0], first, {})
        return jax.lax.scan(update, state, keys)

    keys = jax.random.split(jax.random.key(0), steps)
    state, losses = run(learner.prepare(moves, {}, keys[0]))
    return state.slow["ema"], losses


def pairs(moves):
    return jnp.concatenate([moves.before, moves.after], axis=-1)


def test_linear_dynamics_are_inverted_exactly():
    moves = linear_moves()
    inverse = direct(2, widths=())
    params, losses = train(inverse, moves, 1500, 0.05)
    found = inverse.act(params, keys_of(512, 1), pairs(moves))
    np.testing.assert_allclose(found, moves.actions, atol=2e-3)
    assert losses[-1] < 1e-5
    # The matrix itself: a = (s' - s M) PUSH^+, whatever M is, on the rows of PUSH.
    kernel = np.asarray(params["params"]["Linear_0"]["kernel"])
    np.testing.assert_allclose(PUSH @ kernel[3:], np.eye(2), atol=5e-3)


def test_hidden_layers_invert_what_is_not_linear():
    moves = linear_moves()
    moves = Moves(moves.before, moves.after, jnp.abs(moves.actions))
    _, losses = train(direct(2, widths=(32, 32)), moves, 600, 1e-2)
    assert losses[-50:].mean() < 0.01
    _, linear = train(direct(2, widths=()), moves, 600, 1e-2)
    assert linear[-50:].mean() > 0.02


def two_ways(count=512):
    """From a state to itself, by (0.5, 0.5) or by (-0.5, -0.5)."""
    side = np.where(np.arange(count) % 4 == 0, -0.5, 0.5).astype(np.float32)
    still = jnp.zeros((count, 3))
    return Moves(still, still, jnp.asarray(np.stack([side, side], axis=1)))


def test_bins_keep_to_one_of_two_ways():
    inverse = autoregressive(2, hidden=32, depth=1, bins=10)
    moves = two_ways()
    params, losses = train(inverse, moves, 300, 1e-2)
    found = np.asarray(inverse.act(params, keys_of(512, 1), pairs(moves)))
    # Uniform within the bin of the way that was taken, in both dimensions.
    negative = (found >= -0.6 - 1e-6) & (found <= -0.4 + 1e-6)
    positive = (found >= 0.4 - 1e-6) & (found <= 0.6 + 1e-6)
    whole = negative.all(-1) | positive.all(-1)
    assert whole.mean() > 0.95  # bins drawn apart: 0.63
    np.testing.assert_allclose(negative[:, 0].mean(), 0.25, atol=0.08)
    assert found[positive[:, 0], 0].std() == pytest.approx(0.2 / np.sqrt(12), rel=0.2)
    # Where the other dimension is not seen, what is left to know is one coin's entropy.
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    np.testing.assert_allclose(losses[-50:].mean(), entropy, atol=0.05)
    # The mean of both ways is what a direct model answers: neither.
    middle = direct(2, widths=(8,))
    params, _ = train(middle, moves, 300, 1e-2)
    answer = middle.act(params, keys_of(1), pairs(moves)[:1])
    np.testing.assert_allclose(answer, 0.25, atol=0.1)


def test_the_ends_of_the_range_have_bins():
    inverse = autoregressive(1, hidden=8, depth=1, bins=4)
    pair = jnp.zeros((4, 2))
    params = call(inverse.init, jax.random.key(0), pair)
    actions = jnp.array([[-1.0], [-0.99], [0.99], [1.0]])
    loss = inverse.loss(params, pair, actions)
    np.testing.assert_allclose(loss[0], loss[1])
    np.testing.assert_allclose(loss[2], loss[3])
    assert np.isfinite(loss).all()


def test_a_dimension_is_told_of_those_before_it_alone():
    network = AutoregressiveBins(bins=5, hidden=16, depth=1)
    inputs = jax.random.normal(jax.random.key(0), (1, 4))
    actions = jnp.zeros((1, 3))
    params = call(network.init, jax.random.key(1), inputs, actions)

    def logits(actions):
        return np.asarray(network.apply(params, inputs, actions))[0]

    base = logits(actions)
    assert base.shape == (3, 5)
    for i in range(3):
        moved = logits(actions.at[0, i].add(1.0))
        np.testing.assert_array_equal(moved[: i + 1], base[: i + 1])
        if i < 2:
            assert np.abs(moved[i + 1 :] - base[i + 1 :]).max() > 1e-4


def test_it_has_the_released_size():
    params = direct(3, (256, 256)).init(jax.random.key(0), jnp.zeros((1, 22)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 72_451


def test_a_drawn_action_depends_on_its_own_key_alone():
    inverse = autoregressive(2, hidden=8, depth=1, bins=5)
    pair = jax.random.normal(jax.random.key(0), (3, 4))
    params = call(inverse.init, jax.random.key(1), pair)
    keys = keys_of(3)
    together = inverse.act(params, keys, pair)
    for b in range(3):
        alone = inverse.act(params, keys[b : b + 1], pair[b : b + 1])
        np.testing.assert_allclose(together[b], alone[0], atol=1e-6)
    assert len(np.unique(together)) == 6
