"""The benchmark of Doom: rows and pictures of players."""

import json
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from stubs import stub_run

from benchmarks import doom as benchmark
from benchmarks import methods
from jaxdiff.algorithms.base import ActOutput
from jaxdiff.errors import UserError
from jaxdiff.tasks.doom import world as doom
from jaxdiff.tasks.doom.environment import make_env


def installed():
    try:
        make_env()
    except UserError:
        return False
    return True


simulated = pytest.mark.skipif(not installed(), reason="vizdoom is not installed")


def still_run(path, environment=doom.ENVIRONMENTS[4]):
    """A run whose policy shoots straight ahead."""

    def act(states, carry, keys, observation, reset, goal=None, guidance=None):
        ahead = jnp.tile(jnp.array([0.0, 0.0, 1.0]), (len(observation), 1))
        return ActOutput(action=ahead), carry

    return stub_run(
        path, act, environment, observation_shape=(38, 70, 3), action_dim=3,
        dataset="doom-quarter", references={"random": 10.0, "expert": 80.0},
        config=types.SimpleNamespace(encoder="strided"),
    )  # fmt: skip


@simulated
@pytest.mark.slow
def test_the_benchmark_writes_rows_and_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "load_run", lambda path, overrides: still_run(path))
    monkeypatch.setattr(benchmark, "select_devices", lambda: jax.devices()[:1])
    options = benchmark.Options(
        runs=(Path("a"),), methods=("ahead",), minutes=1, in_turn=True, repeats=8
    )
    benchmark.main(options, directory=tmp_path)
    rows = json.loads((tmp_path / "doom.json").read_text())
    found = {(r["setting"], r["method"], r["metric"]): r["value"] for r in rows}
    kills = {
        key[:2]: value for key, value in found.items() if key[2] == "kills_per_10min"
    }
    nobody, strided = "no encoder, in turn", "strided, 38 x 70, in turn"
    assert kills[nobody, "demonstrator"] > 600
    assert kills[nobody, "random"] < 300
    assert kills[strided, "ahead"] < 600
    assert found[nobody, "random", "decisions_per_second"] == 35
    assert 0 < found[strided, "ahead", "milliseconds"] < 1000
    for name in ("doom-sights", "doom-turns-strided-38x70"):
        assert (tmp_path / "figures" / f"{name}.png").is_file()


def test_the_benchmark_refuses_other_runs(monkeypatch):
    monkeypatch.setattr(
        methods, "load_run", lambda path, overrides: still_run(path, "Other-v0")
    )
    with pytest.raises(UserError, match="no run of Doom"):
        list(benchmark.players(benchmark.Options(runs=(Path("a"),))))
    with pytest.raises(UserError, match="`in_turn=True`"):
        benchmark.main(benchmark.Options(latency=0.1))
