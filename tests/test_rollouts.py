"""Episodes are those of their seeds, and are recorded as environments report them."""

import signal
import time
import types
from collections.abc import Mapping
from types import MappingProxyType

import gymnasium
import numpy as np
import pytest

from jaxdiff.episode_log import EpisodeLog
from jaxdiff.errors import UserError
from jaxdiff.rollouts import (
    Failure,
    RandomPolicy,
    Session,
    joined,
    play_wave,
    rollout,
    select,
)


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


def wave(policy, envs, seeds, **options):
    """Play one wave, and join its episodes."""
    return joined([each for _, each in play_wave(policy, envs, seeds, **options)])


@pytest.mark.parametrize("truncates", [False, True])
@pytest.mark.parametrize("num_envs", [1, 3, 5, 50])
def test_episodes_are_those_of_their_seeds(num_envs, truncates):
    session = Session(
        lambda count, seeds: RandomPolicy(Countdown.action_space),
        episodes=7,
        num_envs=num_envs,
        seed=10,
    )
    played = rollout(session, lambda: Countdown(truncates=truncates))
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

    played = rollout(Session(Still, 5, num_envs=2), make_env, options={"bonus": 1.0})
    np.testing.assert_array_equal(played.returns, 2 * played.lengths)
    assert len(made) == 2
    assert all(env.closed for env in made)


def test_policies_are_told_of_each_beginning_once_with_its_seeds():
    made = []

    def make_policy(num_envs, seeds):
        made.append(Still(num_envs, seeds))
        return made[-1]

    played = rollout(Session(make_policy, 4, num_envs=2, seed=5), Countdown)
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

    session = Session(
        lambda count, seeds: RandomPolicy(Countdown.action_space, seed=seeds[0]),
        episodes=6,
        num_envs=2,
    )
    played = rollout(session, Shown)
    assert len(np.unique(played.observations[:, 1, 0])) == 6


@pytest.mark.parametrize("name", ["episodes", "num_envs"])
def test_counts_must_be_positive(name):
    with pytest.raises(UserError, match=f"`{name}` is 0; it must be at least 1"):
        rollout(Session(Still, **{"episodes": 1, "num_envs": 1, name: 0}), Countdown)


def test_success_is_read_under_either_name():
    def env_of(info):
        return types.SimpleNamespace(
            reset=lambda seed, options: (np.zeros(3), {}),
            step=lambda action: (np.zeros(3), 0.0, True, False, info),
        )

    infos = [{"success": True}, {"is_success": True}, {"is_success": False}, {}]
    envs = [env_of(info) for info in infos]
    played = wave(lambda *_: np.zeros((4, 2)), envs, [0, 1, 2, 3])
    assert played.successes.tolist() == [True, True, False, False]


def test_no_word_of_success_is_no_failure():
    env = types.SimpleNamespace(
        reset=lambda seed, options: (np.zeros(3), {}),
        step=lambda action: (np.zeros(3), 0.0, True, False, {}),
    )
    assert wave(lambda *_: np.zeros((1, 2)), [env], [0]).successes is None


def test_the_peak_is_the_best_reward_of_an_episode():
    rewards = iter([-2.0, 0.75, 0.25])
    left = [2, 1, 0]

    def step(action):
        return np.zeros(3), next(rewards), left.pop(0) == 0, False, {}

    env = types.SimpleNamespace(
        reset=lambda seed, options: (np.zeros(3), {}), step=step
    )
    played = wave(lambda *_: np.zeros((1, 2)), [env], [0])
    assert (played.peaks.tolist(), played.returns.tolist()) == ([0.75], [-1.0])


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

    played = wave(policy, [Moving(), Moving()], [4, 6])
    assert played.goals.tolist() == [[4, 0], [6, 0]]
    assert played.lengths.tolist() == [3, 1]
    # A policy sees the present goal; in an environment that has ended, the last one.
    assert [goal[:, 0].tolist() for goal in seen] == [[4, 6], [5, 7], [6, 7]]


class Faulty(Countdown):
    """Goes wrong in its second step, in the way that `how` says for its seed."""

    how: Mapping = MappingProxyType({})

    def reset(self, *, seed=None, options=None):
        what = self.how.get(seed)
        if what == "raises in its reset":
            raise RuntimeError("no such start\nand more")
        # Five steps, whatever the seed, but for one that never ends.
        start, info = super().reset(seed=seed, options=options)
        self.left = self.length = 5
        return start, info

    def step(self, action):
        seen, reward, terminated, truncated, info = super().step(action)
        what = self.how.get(self.seed) if self.left == 3 else None
        if what == "raises":
            raise RuntimeError("the engine is on fire")
        if what == "is slow":
            time.sleep(60)
        if what == "never ends":
            self.left = 10**9
        odd = {
            "sends a NaN": np.array([np.nan, 0], np.float32),
            "sends another shape": np.zeros(3, np.float32),
        }
        if what == "pays infinity":
            reward = np.inf
        return odd.get(what, seen), reward, terminated, truncated, info


WRONG = {
    "raises in its reset": "reset: RuntimeError: no such start",
    "raises": "step 2: RuntimeError: the engine is on fire",
    "sends a NaN": "step 2: the observation was not finite",
    "sends another shape": "step 2: the observation had shape [3] in place of [2]",
    "pays infinity": "step 2: the reward was inf",
    "never ends": "step 40: the episode was still not over",
    "is slow": "step 2: the episode took longer than 0.2 s",
}


def faulty(monkeypatch, how):
    monkeypatch.setattr(Faulty, "how", how)
    monkeypatch.setattr("jaxdiff.rollouts.MOST_STEPS", 40)


def zeros(count, seeds):
    return RandomPolicy(Countdown.action_space)


@pytest.mark.parametrize("num_envs", [1, 2, 4])
@pytest.mark.parametrize("what", WRONG)
def test_an_episode_that_goes_wrong_is_lost_alone(monkeypatch, what, num_envs):
    faulty(monkeypatch, {11: what})
    session = Session(zeros, 4, num_envs, seed=10, timeout=0.2)
    played = rollout(session, Faulty)
    assert played.failed == (Failure(11, WRONG[what]),)
    assert played.seeds.tolist() == [10, 12, 13]
    assert played.returns.tolist() == [5, 5, 5]
    assert played.lengths.tolist() == [5, 5, 5]


def test_an_environment_may_write_over_its_own_arrays():
    class Reusing(Countdown):
        """Shows one array, which every step changes."""

        def reset(self, *, seed=None, options=None):
            seen, info = super().reset(seed=seed)
            self.shown = {"observation": seen, "desired_goal": seen.copy()}
            return self.shown, info

        def step(self, action):
            seen, *rest = super().step(action)
            self.shown["observation"][:] = seen
            self.shown["desired_goal"][:] = seen
            return self.shown, *rest

    played = rollout(Session(zeros, 3, num_envs=2), Reusing)
    plain = rollout(Session(zeros, 3, num_envs=2), Countdown)
    np.testing.assert_array_equal(played.observations, plain.observations)
    np.testing.assert_array_equal(played.goals, plain.observations[:, 0])


def test_a_goal_that_goes_wrong_loses_its_episode_alone():
    class Goals(Countdown):
        def reset(self, *, seed=None, options=None):
            seen, info = super().reset(seed=seed)
            self.left = self.length = 3
            return {"observation": seen, "desired_goal": np.zeros(2)}, info

        def step(self, action):
            seen, *rest = super().step(action)
            goal = {1: np.zeros(3), 2: np.full(2, np.nan)}.get(self.seed, np.zeros(2))
            return {"observation": seen, "desired_goal": goal}, *rest

    played = rollout(Session(zeros, 4, num_envs=4), Goals)
    assert [failure.reason for failure in played.failed] == [
        "step 1: the goal had shape [3] in place of [2]",
        "step 1: the goal was not finite",
    ]
    assert played.seeds.tolist() == [0, 3]


def test_an_action_that_is_not_finite_ends_its_episode_alone():
    class Partly(Still):
        def __call__(self, observation, goal=None):
            action = super().__call__(observation)
            return np.where(observation[:, 1:] == 1, np.nan, action)

    played = rollout(Session(Partly, 3, num_envs=3), Countdown)
    assert played.failed == (Failure(1, "step 1: the action was not finite"),)
    assert played.seeds.tolist() == [0, 2]


def test_nothing_is_scored_if_every_episode_goes_wrong(monkeypatch):
    faulty(monkeypatch, dict.fromkeys(range(3), "raises"))
    wanted = "all 3 episodes went wrong; the first, of seed 0: step 2: Run"
    with pytest.raises(UserError, match=wanted):
        rollout(Session(zeros, 3, num_envs=2), Faulty)


def test_an_environment_that_failed_is_made_anew(monkeypatch):
    faulty(monkeypatch, {0: "raises"})
    made = []

    def make_env():
        made.append(Faulty())
        return made[-1]

    rollout(Session(zeros, 4, num_envs=1), make_env)
    assert [env.closed for env in made] == [True, True]
    assert made[1].seed == 3


def test_time_of_the_policy_does_not_count(monkeypatch):
    faulty(monkeypatch, {})

    class Slow(Still):
        def __call__(self, observation, goal=None):
            time.sleep(0.1)
            return super().__call__(observation)

    played = rollout(Session(Slow, 2, num_envs=2, timeout=0.2), Faulty)
    assert played.failed == ()


def test_a_timeout_leaves_no_alarm_behind(monkeypatch):
    before = signal.getsignal(signal.SIGALRM)
    rollout(Session(zeros, 2, num_envs=2, timeout=5.0), Countdown)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_longer_limit_of_the_environment_counts(monkeypatch):
    faulty(monkeypatch, {0: "never ends"})
    spec = gymnasium.envs.registration.EnvSpec("Faulty-v0", entry_point=Faulty)
    for limit in (30, 60):
        spec.max_episode_steps = limit
        played = rollout(Session(zeros, 1), lambda: gymnasium.make(spec))
        assert played.lengths.tolist() == [limit]


def test_episodes_are_kept_as_they_end_and_not_played_again(tmp_path):
    class Dying(Countdown):
        """Ctrl-C comes in the fourth step, when shorter episodes are over."""

        def step(self, action):
            if self.seed == 12 and self.left == 2:
                raise KeyboardInterrupt
            return super().step(action)

    def session(log):
        return Session(Still, 4, num_envs=4, seed=10, log=log)

    whole = rollout(session(None), Countdown)
    log = EpisodeLog(tmp_path / "kept")
    with pytest.raises(KeyboardInterrupt):
        rollout(session(log), Dying)
    kept = sorted(log.read())
    assert kept == [seed for seed in range(10, 14) if 1 + 7 * seed % 5 < 4]
    assert kept
    resets = []

    class Counted(Countdown):
        def reset(self, *, seed=None, options=None):
            resets.append(seed)
            return super().reset(seed=seed, options=options)

    resumed = rollout(session(log), Counted)
    assert sorted(resets) == [seed for seed in range(10, 14) if seed not in kept]
    for name in ("returns", "peaks", "successes", "lengths", "observations", "seeds"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))
    assert resumed.goals is None
    # All are kept now, so nothing is played.
    again = rollout(session(log), lambda: pytest.fail("an environment was made"))
    np.testing.assert_array_equal(again.returns, whole.returns)


def test_some_of_the_episodes():
    played = rollout(Session(Still, 5, seed=20), Countdown)
    some = select(played, np.array([1, 4]))
    assert some.seeds.tolist() == [21, 24]
    np.testing.assert_array_equal(some.returns, played.returns[[1, 4]])
    np.testing.assert_array_equal(some.observations, played.observations[[1, 4]])
    assert some.goals is None
    same = select(played, np.array([False, True, False, False, True]))
    np.testing.assert_array_equal(same.seeds, some.seeds)
