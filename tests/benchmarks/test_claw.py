"""The benchmark of the claw machine: rows and pictures of runs and exact densities."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from stubs import stub_run

from benchmarks import claw as benchmark
from benchmarks import methods
from jaxdiff.algorithms.base import ActOutput
from jaxdiff.errors import UserError
from jaxdiff.tasks.claw import world as claw


def middle(states, carry, keys, observation, reset, goal=None, guidance=None):
    return ActOutput(action=jnp.full((len(keys), 2), 0.5)), carry


def test_runs_of_one_name_are_seeds_of_it(monkeypatch, tmp_path):
    asked = []
    run = stub_run(
        tmp_path, middle, claw.ENVIRONMENTS["uniform"], dataset="claw",
        observation_shape=claw.IMAGE_SHAPE, action_dim=2,
    )  # fmt: skip

    def load(path, overrides):
        asked.append((path.name, overrides))
        return run

    monkeypatch.setattr(methods, "load_run", load)
    options = benchmark.Options(
        runs=(Path("a"), Path("b"), Path("a")),
        methods=("one", "one", "two"),
        overrides=("", "", "sampler=ddim sampling_steps=10 clip=None"),
        samples=20,
        guided=(0.0,),
    )
    monkeypatch.setattr(benchmark, "select_devices", lambda: jax.devices()[:1])
    benchmark.main(options, directory=tmp_path)
    changed = {"sampler": "ddim", "sampling_steps": 10, "clip": None}
    assert asked == [("a", {}), ("b", {}), ("a", changed)]
    rows = json.loads((tmp_path / "claw.json").read_text())
    seeds = {row["method"]: (row["seeds"], row["n"]) for row in rows}
    once = dict.fromkeys(("demonstrator", "exact guidance, w = 0", "two"), (1, 140))
    assert seeds == {**once, "one": (2, 280)}
    found = {(row["method"], row["metric"]): row["value"] for row in rows}
    for metric in ("validity", "share_error", "coverage"):
        # Without weight, and of the same seed, it is the demonstrator itself.
        exact = found["exact guidance, w = 0", metric]
        assert exact == found["demonstrator", metric]
    assert "--overrides" in rows[0]["command"]
    three = options.runs
    for wrong, words in (
        ({"runs": ()}, "no run to score"),
        ({"methods": ("one",)}, "1 entries for 3 runs"),
        ({"overrides": ("a", "", "")}, "'a'; write NAME=VALUE"),
        ({"methods": ("demonstrator",) * 3}, "row of its own"),
    ):
        options = benchmark.Options(**{"runs": three, **wrong})
        with pytest.raises(UserError, match=words):
            benchmark.main(options, directory=tmp_path)
