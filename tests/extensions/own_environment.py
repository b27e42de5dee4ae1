"""An environment that nobody has seen: move a point to the origin of three axes."""

import gymnasium
import numpy as np


class Reach(gymnasium.Env):
    """Six observations (position, and its past), two actions, a `success` key."""

    def __init__(self, step: float = 0.2, render_mode=None):
        self.step_size, self.render_mode = step, render_mode
        self.observation_space = gymnasium.spaces.Box(-4, 4, (6,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def _observe(self):
        return np.concatenate([self.here, self.past, self.here - self.past]).astype(
            np.float32
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.here = self.past = self.np_random.uniform(-1, 1, 2)
        return self._observe(), {}

    def step(self, action):
        self.past = self.here
        self.here = self.here + self.step_size * np.clip(action, -1, 1)
        distance = float(np.linalg.norm(self.here))
        return self._observe(), -distance, False, False, {"success": distance < 0.2}


gymnasium.register(
    "Reach-v0", entry_point="own_environment:Reach", max_episode_steps=100
)


def record(episodes, *, seed=0, steps=100):
    """Record a noisy controller: lists of observations, actions and rewards."""
    env, rng = gymnasium.make("Reach-v0").unwrapped, np.random.default_rng(seed)
    found = []
    for i in range(episodes):
        observation, _ = env.reset(seed=seed + i)
        rows, actions, rewards = [observation], [], []
        for _ in range(steps):
            wanted = -observation[:2] + 0.2 * rng.standard_normal(2)
            action = np.clip(wanted, -1, 1).astype(np.float32)
            observation, reward, *_ = env.step(action)
            rows.append(observation)
            actions.append(action)
            rewards.append(reward)
        found.append((np.stack(rows), np.stack(actions), np.array(rewards, np.float32)))
    return found
