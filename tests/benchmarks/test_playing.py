"""Runs that are played: their rows, whatever their task scores them by."""

import types

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from points import straight_lines
from stubs import stub_run
from toy import spec_of

from benchmarks import playing
from jaxdiff.algorithms.base import ActOutput
from jaxdiff.algorithms.planning.diffuser import ENTRY, DiffuserActing, DiffuserConfig
from jaxdiff.errors import UserError
from jaxdiff.rollouts import Rollouts
from jaxdiff.tasks.claw.world import ENVIRONMENTS

GAME = types.SimpleNamespace(episodes=12, seed=3)


def stay(states, carry, keys, observation, reset, goal=None, guidance=None):
    return ActOutput(action=jnp.full((len(keys), 1), 0.5)), carry


def test_a_task_of_control_has_a_score_and_a_return():
    run = stub_run(
        "stub", stay, "Pendulum-v1", observation_shape=(3,), action_dim=1,
        references={"random": -2000.0, "expert": 0.0},
    )  # fmt: skip
    setting, rows = playing.play_run(run, GAME)
    score, earned = rows
    assert setting == "stub"
    assert (score["metric"], earned["metric"]) == ("score", "return")
    np.testing.assert_allclose(score["value"], 100 + earned["value"] / 20, rtol=1e-6)
    for row in rows:
        assert row["low"] < row["value"] < row["high"]
        assert (row["n"], row["seeds"]) == (12, 1)


def test_a_task_without_returns_has_its_score_alone():
    def point(states, carry, keys, observation, reset, goal=None, guidance=None):
        return ActOutput(action=jnp.full((len(keys), 2), 0.5)), carry

    run = stub_run(
        "stub", point, ENVIRONMENTS["biased"], observation_shape=(32, 32, 3),
        action_dim=2,
    )  # fmt: skip
    _, rows = playing.play_run(run, GAME)
    # The toy in the middle is in every picture.
    assert [(row["metric"], row["value"]) for row in rows] == [("score", 100)]


def test_a_task_that_scores_nothing_is_named(monkeypatch):
    record = {"setting": "quiet", "seconds": 0.0}
    monkeypatch.setattr(playing, "evaluate", lambda *_, **__: (record, None))
    run = stub_run("r", stay, None, observation_shape=(3,), action_dim=1)
    with pytest.raises(UserError, match="neither a score nor a return"):
        playing.play_run(run, GAME)


def test_episodes_of_several_runs_are_scored_together():
    def played(first):
        return Rollouts(
            returns=first + np.arange(2.0), peaks=np.zeros(2), successes=None,
            lengths=np.array([5, 6]), observations=np.zeros((2, 7, 3)), goals=None,
            plans=None,
        )  # fmt: skip

    joined = playing.join_rollouts([played(0.0), played(10.0)])
    np.testing.assert_array_equal(joined.returns, [0, 1, 10, 11])
    np.testing.assert_array_equal(joined.lengths, [5, 6, 5, 6])
    assert joined.successes is None


def test_a_run_acts_as_if_trained_for_another_horizon():
    config = DiffuserConfig(horizon=8, dim=8, dim_mults=(1,), diffusion_steps=2)
    episodes = straight_lines(20)
    spec = spec_of(episodes)
    statistics = ENTRY.measure(config, episodes, spec)
    run = stub_run(
        "stub", stay, None, observation_shape=(2,), action_dim=2, config=config
    )._replace(
        name="diffuser", acting=DiffuserActing(), statistics=statistics, spec=spec
    )
    other = playing.with_config(run, horizon=4)
    assert (run.config.horizon, other.config.horizon) == (8, 4)
    assert other.algorithm.init_carry(3).plan.shape == (3, 4, 4)


def test_what_is_seen_first_may_have_a_goal(monkeypatch):
    class Goal(gymnasium.ObservationWrapper):
        def observation(self, observation):
            return {"observation": observation, "desired_goal": observation[:2]}

    run = stub_run("stub", stay, "Pendulum-v1", observation_shape=(3,), action_dim=1)
    seen, goal = playing.first_observation(run, seed=4)
    assert (seen.shape, goal) == ((1, 3), None)
    env = gymnasium.make("Pendulum-v1")
    np.testing.assert_array_equal(seen[0], env.reset(seed=4)[0])
    monkeypatch.setattr(playing, "make_env", lambda run: Goal(env))
    again, goal = playing.first_observation(run, seed=4)
    np.testing.assert_array_equal(again, seen)
    np.testing.assert_array_equal(goal, seen[:, :2])
