"""The PyTorch side of the offline updates: the same functions, update for update."""

import json

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks import (  # noqa: E402
    offline_updates,
    pytorch,
    pytorch_offline,
    turns,
    updates,
)
from jaxdiff.algorithms.offline.iql import IQLConfig  # noqa: E402
from jaxdiff.algorithms.offline.td3_bc import TD3BCConfig  # noqa: E402

ROWS = 64
PAIRS = {
    "iql": (
        offline_updates.iql_pair,
        IQLConfig(actor="dirac", widths=(16, 16), expectile=0.8),
    ),
    "td3-bc": (
        offline_updates.td3_bc_pair,
        TD3BCConfig(widths=(16, 16), smoothing=0.0),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_updates_are_the_same(name):
    pair, config = PAIRS[name]
    data = updates.random_episodes(2, 3)
    data.rewards[:] = np.random.default_rng(0).normal(size=data.rewards.shape)
    data.terminated[:] = True
    learner, make = pair(config, data, (2, 3))
    prepared = learner.prepare(data, {}, jax.random.key(0))
    # The last rows of an episode, so that one of them is terminal.
    ends = data.lengths[0] - ROWS + np.arange(ROWS)
    batch = jax.tree.map(lambda leaf: leaf[ends], prepared)
    assert batch.terminals.sum() == 1
    keys = jax.random.split(jax.random.key(0), ROWS)
    state = learner.init(jax.random.key(1), batch, {})
    theirs = make(state)
    table = pytorch_offline.table(batch)
    update = jax.jit(lambda state: learner.update(state, keys, batch, {}, {}))
    for _ in range(4):
        state, metrics = update(state)
        found = theirs.update(table)
        np.testing.assert_allclose(found, metrics["loss"], rtol=1e-4)
    # The policy and what follows the critics, too.
    params, slow = (
        (state["policy"].params, state["critic"].slow["target"])
        if name == "iql"
        else (state.params["actor"], state.slow["target"]["q"])
    )
    target = theirs.target if name == "iql" else theirs.slow["q"]
    for ours, module in ((params, theirs.actor), (slow, target)):
        found = [each.detach().clone() for each in module.parameters()]
        pytorch.copy_weights(ours, module)
        for mine, param in zip(found, module.parameters(), strict=True):
            np.testing.assert_allclose(mine, param.detach(), atol=1e-4)


def test_rows_are_drawn_from_the_table():
    data = updates.random_episodes(1, 2)
    config = IQLConfig()
    learner, _ = offline_updates.iql_pair(config, data, (1, 2))
    table = pytorch_offline.table(learner.prepare(data, {}, jax.random.key(0)))
    drawn = pytorch_offline.draw(table, 50)
    assert drawn["inputs"].shape == (50, 2)
    assert drawn["terminals"].dtype == torch.bool
    # Each row is one of the table, whole.
    both = torch.cat([table["inputs"], table["actions"]], dim=1)
    mine = torch.cat([drawn["inputs"], drawn["actions"]], dim=1)
    assert (mine[:, None] == both).all(-1).any(-1).all()


@pytest.mark.slow
def test_rows_of_a_short_run(monkeypatch, tmp_path):
    monkeypatch.setattr(turns, "use_cores", lambda count: None)
    small = {
        "iql": turns.Setting(
            lambda devices: offline_updates.methods(
                offline_updates.iql_pair,
                IQLConfig(actor="dirac", widths=(8,)),
                devices,
            )
        )
    }
    turns.main(
        ["--budget", "0.05"],
        directory=tmp_path,
        experiment="offline_updates",
        settings=small,
    )
    rows = json.loads((tmp_path / "offline_updates.json").read_text())
    assert {row["method"] for row in rows} == {"jaxdiff", "torch"}
    assert all("benchmarks.offline_updates" in row["command"] for row in rows)
    assert {row["setting"] for row in rows} == {"iql"}
