"""The PyTorch that training is timed beside: does it do the same work?"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.algorithms.planning.diffuser import DiffuserConfig
from jaxdiff.algorithms.planning.trajectories import known_mask
from jaxdiff.data.spec import Spec
from jaxdiff.diffusion import cosine_schedule, denoising_loss, take
from jaxdiff.networks import TemporalUNet

torch = pytest.importorskip("torch")

from benchmarks import pytorch, turns, updates  # noqa: E402

BATCH, HORIZON, WIDTH = 3, 8, 5


def draw(seed=0):
    return torch.from_numpy(
        np.random.default_rng(seed).normal(size=(BATCH, WIDTH, HORIZON))
    ).float()


@pytest.fixture(scope="module")
def pair():
    """One function twice: ours, its parameters, and torch's."""
    size = {"dim": 8, "dim_mults": (1, 2, 4)}
    ours, theirs = TemporalUNet(**size), pytorch.TemporalUNet(WIDTH, **size)
    inputs = jnp.zeros((1, HORIZON, WIDTH)), jnp.zeros(1)
    shapes = jax.eval_shape(ours.init, jax.random.key(0), *inputs)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / 4, shapes
    )
    return ours.apply, params, theirs


def test_networks_are_one_function(pair):
    apply, params, theirs = pair
    pytorch.copy_weights(params, theirs)
    assert updates.check_same(functools.partial(apply, params), theirs, draw()) < 1e-5


def test_another_function_is_noticed():
    def negative(x, time):
        return -x

    updates.check_same(negative, negative, draw())
    with pytest.raises(SystemExit, match=r"the networks differ by"):
        updates.check_same(lambda x, time: x, negative, draw())


def test_losses_and_gradients_agree(pair):
    apply, params, theirs = pair
    pytorch.copy_weights(params, theirs)
    levels, row, spec = cosine_schedule(10), 3, Spec((WIDTH - 2,), action_dim=2)
    clamped = known_mask(DiffuserConfig(goal_dim=2), spec, HORIZON)
    x0, keys = draw(1), jax.random.split(jax.random.key(1), BATCH)
    shown = []

    def loss(params, network=apply, clamp=True):
        return denoising_loss(
            keys,
            lambda x, time: network(params, x, time),
            lambda key: take(levels, jnp.int32(row)),
            jnp.asarray(x0.mT.numpy()),
            prediction="x0",
            mask=clamped if clamp else None,
        ).mean()

    # What is shown to a network without a mask tells which noise was drawn.
    loss(params, network=lambda params, x, time: shown.append(x) or x, clamp=False)
    noised = torch.from_numpy(np.array(shown[0])).mT
    noise = (noised - levels.alpha[row] * x0) / levels.sigma[row]
    ours, slopes = jax.jit(jax.value_and_grad(loss))(params)
    value = pytorch.denoising_loss(
        theirs,
        x0,
        torch.full((BATCH,), row),
        noise.float(),
        tables=pytorch.level_tables(levels),
        mask=pytorch.clamp_mask(WIDTH, HORIZON, action_dim=2, goal_dim=2),
    )
    value.backward()
    np.testing.assert_allclose(value.item(), ours, rtol=1e-5)
    found = [param.grad.clone() for param in theirs.parameters()]
    pytorch.copy_weights(slopes, theirs)
    for slope, param in zip(found, theirs.parameters(), strict=True):
        np.testing.assert_allclose(slope, param.detach(), atol=2e-4)


@pytest.mark.parametrize(
    ("dim_mults", "width", "count"),
    [((1, 4, 8), 6, 3_682_118), ((1, 2, 4, 8), 14, 3_956_302)],
)
def test_sizes_are_those_of_the_released_networks(dim_mults, width, count):
    with torch.device("meta"):
        network = pytorch.TemporalUNet(width, dim=32, dim_mults=dim_mults)
    assert sum(param.numel() for param in network.parameters()) == count
    ours = jax.eval_shape(
        TemporalUNet(dim=32, dim_mults=dim_mults).init,
        jax.random.key(0),
        jnp.zeros((1, 32, width)),
        jnp.zeros(1),
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(ours)) == count


def test_torch_updates_are_adam_and_an_average():
    network = torch.nn.Linear(2, 1)
    before = [param.detach().clone() for param in network.parameters()]
    advance, slow = pytorch.updates(
        network,
        lambda: network(torch.ones(1, 2)).sum(),
        learning_rate=0.01,
        ema_decay=0.9,
    )
    advance(1)
    # Adam's first step is the learning rate, whatever the slope is.
    for start, now, mean in zip(before, network.parameters(), slow, strict=True):
        np.testing.assert_allclose(now.detach(), start - 0.01, atol=1e-6)
        np.testing.assert_allclose(mean, start - 0.001, atol=1e-6)


@pytest.mark.slow
def test_rows_of_a_small_setting(monkeypatch, tmp_path, capsys):
    small = updates._diffuser((2, 4), 16, (1,), dim=8, goal_dim=4)
    monkeypatch.setattr(updates, "BATCH_SIZE", 8)
    monkeypatch.setitem(updates.SETTINGS, "small", small)
    monkeypatch.setattr(turns, "use_cores", lambda count: None)
    turns.main(
        ["--settings", "small", "--budget", "0.05"],
        experiment="updates",
        settings=updates.SETTINGS,
        directory=tmp_path,
    )
    found = json.loads((tmp_path / "updates.json").read_text())
    named = {(row["method"], row["metric"]): row for row in found}
    assert set(named) == {
        ("jaxdiff", "updates_per_second"),
        ("torch", "updates_per_second"),
        ("jaxdiff", "times_torch"),
    }
    assert len({row["n"] for row in found}) == 1
    for row in found:
        assert 0 < row["low"] <= row["value"] <= row["high"]
    told = capsys.readouterr().out
    assert told.count("load average") == 2
    assert told.count("other processes") == len(found)
