"""Closed-loop play: policies act in simulators, many episodes side by side."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import jax
import numpy as np

from jaxdiff.errors import require_at_least
from jaxdiff.policy import ActingPolicy, MakePolicy
from jaxdiff.progress import progress


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """Episodes played, in the order of their seeds.

    Attributes:
      returns: `[N]`, sum of the environment's rewards.
      peaks: `[N]`, the largest reward.
      successes: `[N]` bool, whether the environment ever reported success, or None if
        it never said whether.
      lengths: `[N]`, steps until the episode ended.
      observations: `[N, T + 1, O]`; after an episode's end its last one is repeated.
      goals: `[N, G]`, the first goal of each episode, or None without goals.
      plans: `[N, H, A + O]`, the first plan of each episode, or None.
    """

    returns: np.ndarray
    peaks: np.ndarray
    successes: np.ndarray | None
    lengths: np.ndarray
    observations: np.ndarray
    goals: np.ndarray | None
    plans: np.ndarray | None


class RandomPolicy:
    """Draws uniform actions.

    Args:
      action_space: of one environment.
      seed: of the actions.
    """

    def __init__(self, action_space: gymnasium.spaces.Box, *, seed: int = 0) -> None:
        self._space, self._rng = action_space, np.random.default_rng(seed)

    def __call__(self, observation: np.ndarray, goal: Any = None) -> np.ndarray:
        """Return actions `[B, A]`, whatever is observed."""
        shape = (len(observation), *self._space.shape)
        return self._rng.uniform(self._space.low, self._space.high, shape)

    def reset(self, mask: Any = None, seeds: Any = None) -> None:
        """Do nothing: nothing is remembered."""


def rollout(
    make_policy: MakePolicy,
    make_env: Callable[[], gymnasium.Env],
    *,
    episodes: int,
    num_envs: int = 50,
    seed: int = 0,
    options: dict[str, Any] | None = None,
    label: str = "evaluate",
) -> Rollouts:
    """Play episodes to their end, many side by side.

    Episode `i` is reset with seed `seed + i`, and so is the noise of the policy in it.
    All policies meet the same starts and goals, and one policy draws the same noise,
    whatever `num_envs` is.

    Args:
      make_policy: `(number of environments, their seeds) -> ActingPolicy`.
      make_env: makes one environment, with Box or goal-dictionary observations.
      episodes: N.
      num_envs: environments side by side; a wave plays one episode in each.
      seed: of the first episode.
      options: passed to every reset.
      label: shown beside the progress bar.
    """
    require_at_least(1, episodes=episodes, num_envs=num_envs)
    num_envs = min(num_envs, episodes)
    # Plain environments in lock-step: Gymnasium's vector environments either restart
    # by themselves, adding steps of the next episode, or refuse to step past an end.
    envs = [make_env() for _ in range(num_envs)]
    policy = make_policy(num_envs, [seed + i for i in range(num_envs)])
    waves = []
    with progress(episodes, label, unit="episode") as bar:
        for first in range(0, episodes, num_envs):
            seeds = [seed + first + i for i in range(num_envs)]
            policy.reset(seeds=seeds)
            wave = play_wave(policy, envs, seeds, options)
            count = min(num_envs, episodes - first)
            waves.append(jax.tree.map(lambda x, n=count: x[:n], wave))
            bar(count)
    for env in envs:
        env.close()
    return Rollouts(
        **{
            field.name: _joined([wave[field.name] for wave in waves])
            for field in dataclasses.fields(Rollouts)
        }
    )


def play_wave(
    policy: ActingPolicy,
    envs: Sequence[gymnasium.Env],
    seeds: Sequence[int],
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Play one episode in every environment, in lock-step.

    Args:
      policy: acts in all of them, also in those whose episode has ended. It was reset.
      envs: B environments.
      seeds: of their resets.
      options: passed to every reset.

    Returns:
      the fields of `Rollouts`.
    """
    starts = [
        _parts(env.reset(seed=seed, options=options)[0])
        for env, seed in zip(envs, seeds, strict=True)
    ]
    observation = np.stack([start[0] for start in starts])
    goal = None if starts[0][1] is None else np.stack([start[1] for start in starts])
    first_goal = None if goal is None else goal.copy()
    count = len(envs)
    returns, lengths = np.zeros(count), np.zeros(count, np.int64)
    peaks, told = np.full(count, -np.inf), False
    successes, running = np.zeros(count, bool), np.ones(count, bool)
    path, plans = [observation], None
    while running.any():
        action = policy(observation, goal)
        if len(path) == 1:
            plans = getattr(getattr(policy, "last", None), "plan", None)
        observation = observation.copy()
        goal = None if goal is None else goal.copy()
        for i in map(int, np.flatnonzero(running)):
            seen, reward, terminated, truncated, info = envs[i].step(action[i])
            observation[i], new_goal = _parts(seen)
            if goal is not None:
                goal[i] = new_goal
            returns[i] += float(reward)
            peaks[i] = max(peaks[i], float(reward))
            lengths[i] += 1
            told |= "success" in info or "is_success" in info
            successes[i] |= bool(info.get("success", info.get("is_success", False)))
            running[i] = not (terminated or truncated)
        path.append(observation)
    return {
        "returns": returns,
        "peaks": peaks,
        "successes": successes if told else None,
        "lengths": lengths,
        "observations": np.stack(path, axis=1).astype(np.float32),
        "goals": first_goal,
        "plans": None if plans is None else np.asarray(plans),
    }


def _parts(observation: Any) -> tuple[np.ndarray, Any]:
    """Separate a goal-dictionary observation into observation and goal."""
    if isinstance(observation, dict):
        return observation["observation"], observation["desired_goal"]
    return observation, None


def _joined(parts: list[Any]) -> Any:
    """Join one field of all waves, `[B, ...]` each, waiting for the longest wave."""
    if any(part is None for part in parts):
        return None
    longest = max(part.shape[1] if part.ndim == 3 else 0 for part in parts)

    def padded(part: np.ndarray) -> np.ndarray:
        missing = longest - part.shape[1] if part.ndim == 3 else 0
        widths = ((0, 0), (0, missing), (0, 0))
        return np.pad(part, widths, mode="edge") if missing else part

    return np.concatenate([padded(part) for part in parts])
