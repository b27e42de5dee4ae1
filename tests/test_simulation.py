"""Episodes in one program are those that a policy plays in the environment."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stubs import stub_run

from jaxdiff.algorithms.base import ActOutput
from jaxdiff.data.spec import Spec
from jaxdiff.diffusion import normal
from jaxdiff.errors import UserError
from jaxdiff.rollouts import Session, rollout
from jaxdiff.simulation import Simulator, simulate

LENGTH = 4
WIND = np.float32([0.25, -0.5])


class Drift(gymnasium.Env):
    """Moves by the action and the wind, toward a goal, from where its seed says."""

    observation_space = gymnasium.spaces.Dict(
        {
            name: gymnasium.spaces.Box(-100, 100, (2,), np.float32)
            for name in ("observation", "desired_goal")
        }
    )
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.at, self.goal = np.random.default_rng(seed).normal(size=(2, 2))
        self.at, self.left = np.float32(self.at), LENGTH
        return self.seen(), {}

    def step(self, action):
        self.at, self.left = self.at + np.clip(action, -1, 1) + WIND, self.left - 1
        distance = float(np.linalg.norm(self.at - self.goal))
        done = self.left == 0
        return self.seen(), -distance, False, done, {"success": distance < 0.5}

    def seen(self):
        return {"observation": self.at, "desired_goal": np.float32(self.goal)}


def drift(wind, state, goal, action):
    state = state + jnp.clip(action, -1, 1) + wind
    distance = jnp.linalg.norm(state - goal)
    return state, -distance, distance < 0.5


def starts(seeds):
    seen = [Drift().reset(seed=seed)[0] for seed in seeds]
    return tuple(
        np.stack([each[name] for each in seen])
        for name in ("observation", "desired_goal")
    )


SIMULATOR = Simulator(starts, drift, WIND, LENGTH)


def wander(states, carry, keys, observation, reset, goal=None, guidance=None):
    """Goes to its goal with noise; its plans tell the steps since the last reset."""
    carry = jnp.where(reset, 0, carry + 1)
    target = 0.0 if goal is None else goal
    action = 0.5 * normal(keys, (len(keys), 2)) + target - observation
    if guidance is not None:
        action = 0 * action + guidance
    plan = jnp.broadcast_to(carry[:, None, None], (len(keys), 3, 4))
    return ActOutput(action=action, plan=plan), carry


def wandering_run(path, act=wander, goal_dim=2):
    run = stub_run(path, act, None, observation_shape=(2,), action_dim=2)
    return run._replace(spec=Spec((2,), 2, goal_dim=goal_dim))


def assert_same(played, other):
    for name in ("returns", "peaks", "observations", "goals", "plans"):
        np.testing.assert_allclose(
            getattr(played, name), getattr(other, name), rtol=1e-5, atol=1e-5
        )
    for name in ("successes", "lengths", "seeds"):
        np.testing.assert_array_equal(getattr(played, name), getattr(other, name))


@pytest.mark.parametrize("goal_dim", [2, 0])
def test_episodes_are_those_of_the_environment(tmp_path, goal_dim):
    run = wandering_run(tmp_path, goal_dim=goal_dim)
    played = simulate(run, SIMULATOR, episodes=5, num_envs=5, seed=3)
    session = Session(lambda count, seeds: run.policy(count, seeds=seeds), 5, 5, 3)
    assert_same(played, rollout(session, Drift))
    assert played.seconds > 0
    assert (played.plans == 0).all()  # the first ones
    assert 0 < played.successes.sum() < 5


def test_episodes_do_not_depend_on_how_many_are_played_side_by_side(tmp_path):
    run = wandering_run(tmp_path)
    played = simulate(run, SIMULATOR, episodes=5, num_envs=5, seed=3)
    assert_same(simulate(run, SIMULATOR, episodes=5, num_envs=2, seed=3), played)
    later = simulate(run, SIMULATOR, episodes=4, num_envs=9, seed=4)
    np.testing.assert_allclose(later.returns, played.returns[1:], rtol=1e-5)


def test_two_devices_play_as_one(tmp_path):
    run = wandering_run(tmp_path)
    played = simulate(run, SIMULATOR, episodes=4)
    assert_same(simulate(run, SIMULATOR, episodes=4, devices=jax.devices()[:3]), played)


def test_other_waves_and_another_world_compile_nothing(compilations, tmp_path):
    run = wandering_run(tmp_path)
    simulate(run, SIMULATOR, episodes=2)
    compilations.clear()
    calm = SIMULATOR._replace(world=np.zeros(2, np.float32))
    played = simulate(run, calm, episodes=6, num_envs=2)
    assert not compilations
    windy = simulate(run, SIMULATOR, episodes=6, num_envs=2)
    assert not np.allclose(played.observations[:, 1], windy.observations[:, 1])


def test_policies_may_make_no_plans_and_take_guidance(tmp_path):
    def act(*args, **kwargs):
        output, carry = wander(*args, **kwargs)
        return ActOutput(action=output.action), carry

    run = wandering_run(tmp_path, act)
    push = np.float32([1.0, -0.5])
    played = simulate(run, SIMULATOR, episodes=2, guidance=push)
    assert played.plans is None
    moved = np.diff(played.observations, axis=1)
    np.testing.assert_allclose(
        moved, np.broadcast_to(push + WIND, moved.shape), rtol=1e-4
    )


@pytest.mark.parametrize("lost", [1, 3])
def test_an_episode_that_is_not_finite_is_lost_alone(tmp_path, lost):
    rightmost = np.sort(starts(range(3))[0][:, 0])[-lost]

    def act(states, carry, keys, observation, reset, goal=None, guidance=None):
        output, carry = wander(states, carry, keys, observation, reset, goal)
        bad = reset & (observation[:, 0] >= rightmost)
        action = jnp.where(bad[:, None], jnp.nan, output.action)
        return ActOutput(action=action), carry

    run = wandering_run(tmp_path, act)
    if lost == 3:
        with pytest.raises(UserError, match="all 3 episodes went wrong"):
            simulate(run, SIMULATOR, episodes=3)
        return
    played = simulate(run, SIMULATOR, episodes=3)
    ((seed, reason),) = played.failed
    assert seed == np.argmax(starts(range(3))[0][:, 0])
    assert reason == "step 1: the simulation was not finite"
    assert played.seeds.tolist() == [each for each in range(3) if each != seed]


def test_counts_must_be_positive(tmp_path):
    for name in ("episodes", "num_envs"):
        with pytest.raises(UserError, match=name):
            simulate(wandering_run(tmp_path), SIMULATOR, **{"episodes": 1, name: 0})
