import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.devices import first_replica, replicate, select_devices, share, split_batch
from jaxdiff.errors import UserError

TREE = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "step": np.int32(7),
    "nested": {"flags": np.array([True, False])},
}


@pytest.mark.parametrize("count", [1, 3, 8])
def test_replicas_go_out_and_come_back(count):
    devices = jax.devices()[:count]
    placed = replicate(TREE, devices)
    for leaf, original in zip(
        jax.tree.leaves(placed), jax.tree.leaves(TREE), strict=True
    ):
        assert leaf.shape == (count, *np.shape(original))
        assert leaf.devices() == set(devices)
        np.testing.assert_array_equal(leaf, np.stack([original] * count))
    back = first_replica(placed)
    chex.assert_trees_all_equal(back, TREE)
    chex.assert_trees_all_equal_dtypes(back, TREE)
    assert not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(back))


def test_replicas_are_where_pmap_wants_them(compilations):
    devices = jax.devices()[:4]
    # The axis must have this name: what comes out of a pmap over another one is laid
    # out in a way of its own, and putting it in again compiles a second time.
    total = jax.pmap(lambda x: jax.lax.psum(x, "data"), "data", devices=devices)
    placed = replicate(np.float32(2.0), devices)
    np.testing.assert_array_equal(total(placed), [8.0] * 4)
    compilations.clear()
    # What pmap returns may go in again: nothing is laid out or compiled anew.
    np.testing.assert_array_equal(total(total(placed)), [32.0] * 4)
    assert not compilations


def test_first_replica_reads_the_first():
    devices = jax.devices()[:3]
    own = jax.pmap(lambda x: x + jax.lax.axis_index("data"), "data", devices=devices)
    assert first_replica(own(replicate(np.int32(5), devices))) == 5


def test_split_batch_gives_each_device_its_share():
    devices = jax.devices()[:4]
    batch = {"x": np.arange(16.0).reshape(8, 2), "reset": np.ones(8, bool)}
    placed = split_batch(batch, devices)
    chex.assert_trees_all_equal(placed, jax.tree.map(jnp.asarray, batch))
    shards = sorted(placed["x"].addressable_shards, key=lambda s: s.index[0].start)
    assert [shard.data.shape for shard in shards] == [(2, 2)] * 4
    np.testing.assert_array_equal(shards[1].data, batch["x"][2:4])


@pytest.mark.parametrize("sizes", [(6, 6), (8, 6), (3, 3)])
def test_split_batch_needs_what_divides(sizes):
    batch = [np.arange(float(size)) for size in sizes]
    with pytest.raises(ValueError, match="axis 0"):
        split_batch(batch, jax.devices()[:4])


def test_split_batch_passes_over_what_is_not_there():
    devices = jax.devices()[:2]
    observation, goal = split_batch((np.zeros((4, 2)), None), devices)
    assert goal is None
    assert not observation.sharding.is_fully_replicated


def test_share_gives_everyone_everything():
    devices = jax.devices()[:2]
    shared = share({"x": np.arange(3.0), "key": jax.random.key(1)}, devices)
    assert shared["x"].sharding.is_fully_replicated
    assert shared["x"].devices() == set(devices)
    assert jax.random.bits(shared["key"]) == jax.random.bits(jax.random.key(1))


def test_selection():
    assert select_devices() == jax.devices()
    assert select_devices(2) == jax.devices()[:2]
    for count in (0, -1, len(jax.devices()) + 1):
        with pytest.raises(UserError, match=f"{count} devices.*offers 8"):
            select_devices(count)
