"""Habits beside their planner: who plays, and what is timed."""

import json
import types

import gymnasium
import numpy as np
import pytest
from stubs import stub_run

from benchmarks import habit as benchmark
from benchmarks import playing
from jaxdiff.algorithms.base import ActOutput
from jaxdiff.errors import UserError


def rest(states, carry, keys, observation, reset, goal=None, guidance=None):
    return ActOutput(action=0 * observation[:, :1]), carry


def planner(path):
    references = {"random": -2000.0, "expert": 0.0}
    return stub_run(
        path, rest, "Pendulum-v1", observation_shape=(3,), action_dim=1,
        references=references,
    )  # fmt: skip


OPTIONS = benchmark.Options(
    "planner", episodes=2, timed=2, recorded=3, updates=7, preset="generic"
)


@pytest.fixture
def distilled(monkeypatch, tmp_path):
    """What was recorded and trained, in turn."""
    made = []

    def record(run, habit, *, num_envs):
        assert num_envs == 2
        if habit.habit_noise:  # without noise it was recorded before
            (run.path / "habits").mkdir(parents=True)
            (run.path / "habits" / "noisy.npz").touch()
        made.append(habit)
        return habit

    def train(algorithm, data, path, *, preset, training, resume):
        made.append((algorithm, data, path.name, preset, training, resume))
        return planner(path)

    monkeypatch.setattr(benchmark, "load_run", lambda path: planner(tmp_path / "own"))
    monkeypatch.setattr(benchmark, "record_run", record)
    monkeypatch.setattr(benchmark, "train_run", train)
    return made


def test_all_play_the_same_episodes(distilled, tmp_path):
    benchmark.main(OPTIONS, directory=tmp_path)
    rows = json.loads((tmp_path / "habit.json").read_text())
    found = {(row["method"], row["metric"]): row["value"] for row in rows}
    methods = ["stub (planner)", "bc, noise 0", "bc, noise 0.3"]
    assert list(dict.fromkeys(row["method"] for row in rows)) == methods
    for method in methods[1:]:
        # The stubs act alike.
        assert found[method, "return"] == found[methods[0], "return"]
        assert found[method, "train_seconds"] >= 0
        rates = [found[each, "decisions_per_second"] for each in (method, methods[0])]
        np.testing.assert_allclose(found[method, "faster"], rates[0] / rates[1])
    assert found[methods[0], "faster"] == 1
    timed = [each for each, metric in found if metric == "record_seconds"]
    assert timed == methods[2:]
    assert (methods[0], "train_seconds") not in found
    quiet, _, noisy, last = distilled
    assert (quiet.habit_noise, noisy.habit_noise) == (0.0, 0.3)
    assert quiet.habit_episodes == 3
    assert last == ("bc", noisy, "own-bc-0.3", "generic", {"num_steps": 7}, True)


def test_the_seconds_of_decisions_are_those_of_the_policy(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(playing, "clock", lambda: now[0])

    class Slow:
        last = None

        def reset(self, mask=None, seeds=None):
            self.first = True

        def __call__(self, observation, goal=None):
            now[0] += 0.9 if self.first else 0.001
            self.first = False
            return np.zeros((1, 1), np.float32)

    class Slept(gymnasium.Wrapper):
        def step(self, action):
            now[0] += 5
            return self.env.step(action)

    run = types.SimpleNamespace(policy=Slow)
    env = gymnasium.make("Pendulum-v1", max_episode_steps=101)
    monkeypatch.setattr(benchmark, "make_env", lambda run: Slept(env))
    rates, slowest = benchmark._timed(run, OPTIONS)
    np.testing.assert_allclose(rates, [101 / 1.0] * 2)
    np.testing.assert_allclose(slowest, [900.0] * 2)


@pytest.mark.parametrize("name", ["episodes", "timed"])
def test_a_count_below_one_is_refused(distilled, tmp_path, name):
    options = benchmark.Options("planner", **{name: 0})
    with pytest.raises(UserError, match=f"`{name}` is 0"):
        benchmark.main(options, directory=tmp_path)
