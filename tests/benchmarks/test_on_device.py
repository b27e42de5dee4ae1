"""Episodes on a device beside MuJoCo's: the rows, and what is refused."""

import json

import jax.numpy as jnp
import pytest
from stubs import stub_run

from benchmarks import on_device as benchmark
from jaxdiff.algorithms.base import ActOutput
from jaxdiff.data.spec import Spec
from jaxdiff.errors import UserError
from jaxdiff.tasks.pointmaze.world import MAZES, environment_of

pytest.importorskip("gymnasium_robotics")


def straight(states, carry, keys, observation, reset, goal=None, guidance=None):
    """Drives straight to the goal, also into walls."""
    action = 10 * (goal - observation[:, :2]) - 4 * observation[:, 2:]
    return ActOutput(action=jnp.clip(action, -1, 1)), carry


@pytest.fixture
def run(tmp_path, monkeypatch):
    environment = environment_of(MAZES["umaze"])
    run = stub_run(
        tmp_path, straight, environment.id, observation_shape=(4,), action_dim=2
    )._replace(spec=Spec((4,), 2, goal_dim=2))
    monkeypatch.setattr(benchmark, "load_run", lambda path, overrides=None: run)
    # The cores of this process stay as they are.
    monkeypatch.setattr(benchmark.os, "sched_setaffinity", lambda *_: None)
    return run


def options(run, **changes):
    return benchmark.Options(run.path, **{"batches": (1, 3), "budget": 1e-3, **changes})


@pytest.mark.slow
def test_rows_compare_the_same_episodes(run, tmp_path, capsys):
    benchmark.main(options(run, kinds=("physics", "as trained")), directory=tmp_path)
    rows = json.loads((tmp_path / "on-device.json").read_text())
    found = {(row["setting"], row["method"], row["metric"]): row for row in rows}
    assert len(found) == 4 + 2 * 5
    for batch in (1, 3):
        setting = f"umaze, as trained, batch = {batch}"
        ours, theirs = (
            found[setting, method, "return"] for method in ("on device", "MuJoCo")
        )
        assert ours["n"] == theirs["n"] == batch
        assert abs(ours["value"] - theirs["value"]) <= 2
        assert found[setting, "on device", "return_difference"]["value"] <= 2
    assert found["umaze, as trained, batch = 3", "MuJoCo", "return"]["value"] > 0
    for row in rows:
        assert row["value"] > 0 or row["metric"] != "steps_per_second"
    assert (tmp_path / "figures" / "on-device.png").is_file()


def test_what_takes_too_long_is_left_out(run, tmp_path, capsys):
    asked = options(run, kinds=("8 steps",), batches=(1, 2, 3), limit=1e-6)
    benchmark.main(asked, directory=tmp_path)
    said = capsys.readouterr().out
    assert "left out: on device, batch 3; see --limit" in said
    assert "left out: MuJoCo, batch 3" in said
    rows = json.loads((tmp_path / "on-device.json").read_text())
    settings = {row["setting"] for row in rows}
    # One episode says little of what many cost.
    assert settings == {f"umaze, 8 steps, batch = {batch}" for batch in (1, 2)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kinds": ("9 steps",)}, "choose among physics, as trained, 8 steps"),
        ({"batches": (0,)}, "at least 1"),
        ({"limit": 0.0}, "above 0"),
    ],
)
def test_what_cannot_be_timed_is_refused(run, tmp_path, change, said):
    with pytest.raises(UserError, match=said):
        benchmark.main(options(run, **change), directory=tmp_path)
