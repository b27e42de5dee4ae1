"""The benchmark of PushT: ways round, successes and what they are compared with."""

import json
from pathlib import Path

import jax
import pytest
from stubs import stub_run

from benchmarks import methods
from benchmarks import pusht as benchmark
from jaxdiff.algorithms.base import ActOutput
from jaxdiff.errors import UserError
from jaxdiff.tasks.pusht import world as pusht
from jaxdiff.tasks.pusht.environment import make_raw


def installed():
    try:
        make_raw()
    except UserError:
        return False
    return True


simulated = pytest.mark.skipif(not installed(), reason="gym-pusht is not installed")


def idle_run(path, environment=pusht.ENVIRONMENT):
    """A run whose policy stays where it is."""

    def act(states, carry, keys, observation, reset, goal=None, guidance=None):
        return ActOutput(action=observation[:, :2]), carry

    return stub_run(
        path, act, environment, observation_shape=(5,), action_dim=2, dataset="pusht"
    )


@simulated
def test_the_benchmark_counts_ways_and_successes(tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "load_run", lambda path, overrides: idle_run(path))
    monkeypatch.setattr(benchmark, "select_devices", lambda: jax.devices()[:1])
    options = benchmark.Options(
        runs=(Path("a"),), methods=("still",), episodes=1, repeats=6
    )
    benchmark.main(options, directory=tmp_path)
    rows = json.loads((tmp_path / "pusht.json").read_text())
    found = {(r["setting"], r["method"], r["metric"]): r["value"] for r in rows}
    assert found["pusht-one-start", "demonstrator", "success"] == 1.0
    assert 0 < found["pusht-one-start", "demonstrator", "right_hand"] < 1
    assert found["pusht", "still", "success"] == 0.0
    assert found["pusht", "still", "steps"] == 300
    # Who never touches the block covers what it lay on; who succeeds all but 5%.
    assert 0 <= found["pusht", "still", "coverage"] < 0.95
    assert found["pusht", "demonstrator", "coverage"] == pytest.approx(0.95)
    assert (tmp_path / "figures" / "pusht.png").is_file()


def test_the_benchmark_refuses_other_runs(monkeypatch):
    monkeypatch.setattr(
        methods, "load_run", lambda path, overrides: idle_run(path, "Other-v0")
    )
    one = (Path("a"),)
    for options, words in (
        (benchmark.Options(runs=one), "no run of PushT"),
        (benchmark.Options(runs=one, methods=("x", "y")), "2 entries for 1 runs"),
        (benchmark.Options(methods=("x",)), "1 entries for 0 runs"),
    ):
        with pytest.raises(UserError, match=words):
            list(benchmark._players(options))
