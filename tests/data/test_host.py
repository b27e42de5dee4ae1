"""Rows on the host: programs fetch exactly what is there."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import episodes_of, spec_of

from jaxdiff.algorithms.base import TrainConfig
from jaxdiff.algorithms.imitation.bc import BCActing, BCConfig, bc, measure
from jaxdiff.data.host import HostRows
from jaxdiff.train import train_learners

ROWS = np.arange(30, dtype=np.uint8).reshape(10, 3)


def test_rows_are_those_of_their_index():
    rows = HostRows(ROWS)
    index = jnp.array([[3, 1], [9, 9], [0, 5]])
    np.testing.assert_array_equal(jax.jit(lambda i: rows[i])(index), ROWS[index])
    np.testing.assert_array_equal(jax.vmap(lambda i: rows[i])(index), ROWS[index])
    twice = jax.vmap(jax.vmap(lambda i: rows[i]))(index)
    np.testing.assert_array_equal(twice, ROWS[index])


def test_a_batch_is_fetched_at_once():
    fetched = []

    class Counted(np.ndarray):
        def __getitem__(self, index):
            fetched.append(np.shape(index))
            return np.asarray(self)[index]

    rows = HostRows(ROWS.view(Counted))
    jax.block_until_ready(jax.jit(jax.vmap(lambda i: rows[i]))(jnp.arange(7)))
    assert fetched == [(7,)]


def test_rows_are_no_argument_of_a_program_and_others_are_another_one(compilations):
    one, other = HostRows(ROWS), HostRows(ROWS + 100)
    assert not jax.tree.leaves(one)
    assert jax.tree.map(jnp.asarray, one) is one

    @jax.jit
    def first(rows, index):
        return rows[index]

    index, later = jnp.arange(2), jnp.arange(1, 3)
    np.testing.assert_array_equal(first(one, index), ROWS[:2])
    before = len(compilations)
    np.testing.assert_array_equal(first(one, later), ROWS[1:3])
    assert len(compilations) == before
    np.testing.assert_array_equal(first(other, index), ROWS[:2] + 100)


@pytest.mark.parametrize("devices", [1, 2])
def test_training_from_the_host_is_training_from_the_device(devices):
    rng = np.random.default_rng(0)
    seen, actions = rng.random((24, 2)), rng.random((24, 3))
    episodes = episodes_of([5, 9, 7], lambda i: seen[i], lambda i: actions[i])
    small, spec = BCConfig(hidden=4, history=2), spec_of(episodes)
    states, kept = [], []
    for host_memory in (False, True):
        config = dataclasses.replace(small, host_memory=host_memory)
        statistics = measure(config, episodes, spec)
        algorithm = bc(config, BCActing(), statistics, spec)
        data = algorithm.learners["policy"].prepare(episodes, {}, None)
        kept.append(isinstance(data.inputs, HostRows))
        training = TrainConfig(num_steps=3, batch_size=4, eval_every=3)
        trained = train_learners(
            algorithm,
            episodes,
            configs={"policy": training},
            devices=jax.devices()[:devices],
            held_out=episodes,
        )
        states.append(trained["policy"].params)
    assert kept == [False, True]
    jax.tree.map(np.testing.assert_array_equal, *states)
