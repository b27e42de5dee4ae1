"""Many policies trained at once are those trained one by one."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import temperatures
from tests.algorithms.offline.test_srpo import BATCH, FROZEN, learner, rest

BETAS = (0.0, 0.05, 0.5)
DATA = jax.tree.map(jnp.asarray, BATCH)


def swept(betas, seeds, count):
    advance, states = temperatures.side_by_side(
        learner(), DATA, FROZEN, betas=betas, seeds=seeds, batch_size=64, updates=count
    )
    return advance(states, 0, count)


def test_each_comes_to_rest_where_its_temperature_says():
    states, metrics = swept(BETAS, 2, 400)
    found = np.asarray(states.params["mean"])[..., 0]
    assert found.shape == (3, 2, 2)
    expected = np.stack([rest(beta) for beta in BETAS])[:, None]
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=0.03)
    assert metrics["q"].shape == (3, 2)
    # Seeds are different ones.
    assert (found[:, 0] != found[:, 1]).all()


def test_company_changes_nothing():
    states, _ = swept(BETAS, 2, 20)
    alone, _ = swept(BETAS[1:2], 1, 20)
    np.testing.assert_allclose(
        states.params["mean"][1, 0], alone.params["mean"][0, 0], atol=1e-6
    )


def test_rows():
    metrics = {"q": jnp.asarray([[1.0, 3.0], [5.0, 5.0]])}
    rows = temperatures.make_rows(
        "hopper", (0.1, 1.0), metrics, alone=10.0, together=35.0
    )
    named = {(row["method"], row["metric"]): row for row in rows}
    assert named["beta 0.1", "q"]["value"] == 2
    assert named["beta 1", "q"]["low"] == named["beta 1", "q"]["high"] == 5
    assert named["4 at once", "policy_updates_per_second"]["value"] == 35
    assert named["one policy", "policy_updates_per_second"]["value"] == 10
