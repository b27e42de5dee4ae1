"""Episodes are those of their seeds, and are recorded as environments report them."""

import types

import gymnasium
import numpy as np
import pytest

from jaxdiff.errors import UserError
from jaxdiff.rollouts import RandomPolicy, play_wave, rollout


class Countdown(gymnasium.Env):
    """Lasts as many steps as its seed says, and pays on after its end."""

    observation_space = gymnasium.spaces.Box(-100, 100, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, *, truncates=False):
        self.truncates = truncates
        self.closed = False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = self.length = 1 + (7 * seed) % 5
        self.seed = seed
        self.bonus = (options or {}).get("bonus", 0.0)
        return np.array([self.left, seed], np.float32), {}

    def step(self, action):
        assert action.shape == (1,)
        self.left -= 1
        over = self.left <= 0
        observation = np.array([self.left, self.seed], np.float32)
        # Success is reported once, in the first step of episodes of even seed.
        first = self.left == self.length - 1
        info = {"success": first and self.seed % 2 == 0}
        reward = 1.0 + self.bonus
        return observation, reward, over and not self.truncates, over, info

    def close(self):
        self.closed = True


class Still:
    """Does nothing, and writes down what it is told."""

    def __init__(self, num_envs, seeds):
        self.made, self.resets, self.acted = (num_envs, seeds), [], 0
        self.last = None

    def __call__(self, observation, goal=None):
        assert goal is None
        assert len(observation) == self.made[0]
        self.acted += 1
        # The first plan of an episode is kept, whatever plans come later.
        plan = np.full((len(observation), 4, 3), self.acted)
        self.last = types.SimpleNamespace(plan=plan)
        return np.zeros((len(observation), 1))

    def reset(self, mask=None, seeds=None):
        assert mask is None
        self.resets.append((self.acted, seeds))


@pytest.mark.parametrize("truncates", [False, True])
@pytest.mark.parametrize("num_envs", [1, 3, 5, 50])
def test_episodes_are_those_of_their_seeds(num_envs, truncates):
    played = rollout(
        lambda count, seeds: RandomPolicy(Countdown.action_space),
        lambda: Countdown(truncates=truncates),
        episodes=7,
        seed=10,
        num_envs=num_envs,
    )
    seeds = 10 + np.arange(7)
    lengths = 1 + (7 * seeds) % 5
    # What is paid after the end of an episode counts for nothing.
    np.testing.assert_array_equal(played.returns, lengths)
    np.testing.assert_array_equal(played.lengths, lengths)
    np.testing.assert_array_equal(played.successes, seeds % 2 == 0)
    assert played.observations.shape == (7, lengths.max() + 1, 2)
    left = np.maximum(lengths[:, None] - np.arange(lengths.max() + 1), 0)
    np.testing.assert_array_equal(played.observations[..., 0], left)
    np.testing.assert_array_equal(
        played.observations[..., 1], seeds[:, None] + 0 * left
    )
    assert played.goals is None
    assert played.plans is None


def test_options_reach_every_reset_and_environments_are_closed():
    made = []

    def make_env():
        made.append(Countdown())
        return made[-1]

    played = rollout(Still, make_env, episodes=5, num_envs=2, options={"bonus": 1.0})
    np.testing.assert_array_equal(played.returns, 2 * played.lengths)
    assert len(made) == 2
    assert all(env.closed for env in made)


def test_policies_are_told_of_each_beginning_once_with_its_seeds():
    made = []

    def make_policy(num_envs, seeds):
        made.append(Still(num_envs, seeds))
        return made[-1]

    played = rollout(make_policy, Countdown, episodes=4, num_envs=2, seed=5)
    (policy,) = made
    assert policy.made == (2, [5, 6])
    waves = [played.lengths[:2].max(), played.lengths[2:].max()]
    # Each wave has noise of its own.
    assert policy.resets == [(0, [5, 6]), (waves[0], [7, 8])]
    assert policy.acted == sum(waves)
    assert played.plans.shape == (4, 4, 3)
    assert (played.plans[:2] == 1).all()
    assert (played.plans[2:] == 1 + waves[0]).all()


def test_random_episodes_of_two_waves_differ():
    class Shown(Countdown):
        """Shows the action, from the same start whatever the seed."""

        def reset(self, *, seed=None, options=None):
            return super().reset(seed=0)

        def step(self, action):
            _, *rest = super().step(action)
            return np.repeat(action, 2).astype(np.float32), *rest

    played = rollout(
        lambda count, seeds: RandomPolicy(Countdown.action_space, seed=seeds[0]),
        Shown,
        episodes=6,
        num_envs=2,
    )
    assert len(np.unique(played.observations[:, 1, 0])) == 6


@pytest.mark.parametrize("name", ["episodes", "num_envs"])
def test_counts_must_be_positive(name):
    with pytest.raises(UserError, match=f"`{name}` is 0; it must be at least 1"):
        rollout(Still, Countdown, **{"episodes": 1, "num_envs": 1, name: 0})


def test_success_is_read_under_either_name():
    def env_of(info):
        return types.SimpleNamespace(
            reset=lambda seed, options: (np.zeros(3), {}),
            step=lambda action: (np.zeros(3), 0.0, True, False, info),
        )

    infos = [{"success": True}, {"is_success": True}, {"is_success": False}, {}]
    wave = play_wave(
        lambda observation, goal: np.zeros((4, 2)),
        [env_of(info) for info in infos],
        [0, 1, 2, 3],
    )
    assert wave["successes"].tolist() == [True, True, False, False]


def test_no_word_of_success_is_no_failure():
    env = types.SimpleNamespace(
        reset=lambda seed, options: (np.zeros(3), {}),
        step=lambda action: (np.zeros(3), 0.0, True, False, {}),
    )
    assert play_wave(lambda *_: np.zeros((1, 2)), [env], [0])["successes"] is None


def test_the_peak_is_the_best_reward_of_an_episode():
    rewards = iter([-2.0, 0.75, 0.25])
    left = [2, 1, 0]

    def step(action):
        return np.zeros(3), next(rewards), left.pop(0) == 0, False, {}

    env = types.SimpleNamespace(
        reset=lambda seed, options: (np.zeros(3), {}), step=step
    )
    wave = play_wave(lambda *_: np.zeros((1, 2)), [env], [0])
    assert (wave["peaks"].tolist(), wave["returns"].tolist()) == ([0.75], [-1.0])


def test_goals_are_those_that_episodes_began_with():
    class Moving:
        """Its goal moves with every step."""

        def reset(self, seed, options):
            self.at = float(seed)
            return self._seen(), {}

        def step(self, action):
            self.at += 1
            return self._seen(), 0.0, self.at > 6, False, {}

        def _seen(self):
            goal = np.array([self.at, 0.0])
            return {"observation": np.zeros(3), "desired_goal": goal}

    seen = []

    def policy(observation, goal):
        seen.append(goal.copy())
        return np.zeros((2, 1))

    wave = play_wave(policy, [Moving(), Moving()], [4, 6])
    assert wave["goals"].tolist() == [[4, 0], [6, 0]]
    assert wave["lengths"].tolist() == [3, 1]
    # A policy sees the present goal; in an environment that has ended, the last one.
    assert [goal[:, 0].tolist() for goal in seen] == [[4, 6], [5, 7], [6, 7]]
