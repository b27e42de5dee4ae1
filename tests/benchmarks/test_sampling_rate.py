"""The rate of decisions: are the two policies that are timed one function?"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import sampling_rate as benchmark
from jaxdiff.algorithms.imitation.diffusion_bc import (
    DiffusionBCActing,
    DiffusionBCConfig,
    diffusion_head,
)
from jaxdiff.algorithms.imitation.policy import preparing
from jaxdiff.errors import UserError

STEPS = 4


@pytest.mark.parametrize("extra", [{}, {"extra_steps": 3}, {"candidates": 5}])
def test_encoding_once_is_the_same_function_and_really_once(extra):
    config, acting = (
        DiffusionBCConfig(diffusion_steps=STEPS),
        DiffusionBCActing(**extra),
    )
    head = diffusion_head(config, acting, 3)
    shown = jnp.arange(4.0).reshape(1, 2, 2)
    found, calls = {}, {}
    for every_step in (False, True):
        seen = []

        def look(x, seen=seen):
            seen.append(x.shape)
            return np.asarray(x) ** 2

        # A call that is pure may be taken out of a loop, as a network would be.
        def encode(x, look=look):
            return jax.pure_callback(look, x, x)

        def denoise(embedding, action, time):
            return jnp.tanh(action + embedding.sum((1, 2))[:, None] + time[:, None])

        act = benchmark.acting_of(
            head,
            encode,
            preparing(lambda *given: given, denoise),
            every_step=every_step,
        )
        found[every_step] = np.asarray(jax.jit(act)(jax.random.key(0)[None], shown))
        calls[every_step] = seen
    np.testing.assert_allclose(found[True], found[False], rtol=1e-5)
    assert calls[False] == [(1, 2, 2)]
    width = extra.get("candidates", 1)
    assert calls[True] == [(width, 2, 2)] * (STEPS + extra.get("extra_steps", 0))


@pytest.fixture
def small(monkeypatch):
    sizes = {"MLP": {"hidden": 8}, "Sieve": {"hidden": 8, "embed": 4}}
    for name, size in sizes.items():
        network = functools.partial(benchmark.NETWORKS[name], **size)
        monkeypatch.setitem(benchmark.NETWORKS, name, network)


@pytest.mark.slow
def test_rows_of_a_small_measurement(tmp_path, monkeypatch, small):
    monkeypatch.setattr(benchmark.os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setattr(benchmark, "BLOCK_SECONDS", 0.001)
    options = benchmark.Options(
        seen=("kitchen",),
        networks=("MLP", "Sieve"),
        ways=("plain",),
        diffusion_steps=(2,),
        budget=0.01,
    )
    benchmark.main(options, directory=tmp_path)
    rows = json.loads((tmp_path / "sampling-rate.json").read_text())
    found = {(row["method"], row["metric"]): row for row in rows}
    assert set(found) == {
        ("MLP, plain", "decisions_per_second"),
        *(
            ("Sieve, plain", metric)
            for metric in ("decisions_per_second", "encoding_every_step", "gain")
        ),
    }
    for row in rows:
        assert row["setting"] == "kitchen, T = 2"
        assert 0 < row["low"] <= row["value"] <= row["high"]
        assert row["seconds"] > 0
    assert "--seen kitchen --networks MLP Sieve" in rows[0]["command"]
    for wrong, words in (
        ({"seen": ("doom",)}, "'doom'; choose among kitchen, claw"),
        ({"budget": 0.0}, "above 0"),
    ):
        with pytest.raises(UserError, match=words):
            benchmark.main(benchmark.Options(**wrong), directory=tmp_path)


def test_a_picture_is_encoded_and_an_action_given(small):
    decide = benchmark.decider(
        benchmark.SEEN["claw"],
        "MLP",
        DiffusionBCConfig(diffusion_steps=2),
        DiffusionBCActing(),
        every_step=False,
    )
    assert decide(0).shape == (1, 2)
    assert not np.array_equal(decide(0), decide(1))
    np.testing.assert_array_equal(decide(1), decide(1))
