"""Closed-loop play: policies act in simulators, many episodes side by side."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import jax
import numpy as np

from jaxdiff.algorithms.base import Algorithm, TrainState
from jaxdiff.devices import Device, share, split_batch
from jaxdiff.errors import UserError
from jaxdiff.progress import progress
from jaxdiff.run import Run

# (observation [B, O], goal [B, G] or None, reset [B]) -> (action [B, A], plan or None)
Policy = Callable[[np.ndarray, Any, np.ndarray], tuple[np.ndarray, Any]]
# (number of environments, seed of the policy's own randomness) -> Policy
MakePolicy = Callable[[int, int], Policy]


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """Episodes played, in the order of their seeds.

    Attributes:
      returns: `[N]`, sum of the environment's rewards.
      peaks: `[N]`, the largest of them.
      successes: `[N]` bool, whether the environment ever reported success.
      lengths: `[N]`, steps until the episode ended.
      observations: `[N, T + 1, O]`; after an episode's end its last one is repeated.
      goals: `[N, G]`, or None where the environment has no goals.
      plans: `[N, H, A + O]`, the first plan of each episode, or None.
    """

    returns: np.ndarray
    peaks: np.ndarray
    successes: np.ndarray
    lengths: np.ndarray
    observations: np.ndarray
    goals: np.ndarray | None
    plans: np.ndarray | None


def agent(
    algorithm: Algorithm,
    states: Mapping[str, TrainState],
    *,
    num_envs: int,
    seed: int = 0,
    devices: Sequence[Device] | None = None,
) -> Policy:
    """Make a policy of a trained algorithm: one compiled program, called each step.

    All agents of one algorithm share the program, whatever their states and seeds.

    Args:
      algorithm: what was trained.
      states: its states.
      num_envs: B, environments acting side by side.
      seed: of the agent's own randomness.
      devices: the batch is split over as many of them as divide it; by default one.
    """
    devices = list(devices) if devices is not None else jax.devices()[:1]
    devices = devices[: math.gcd(len(devices), num_envs)]
    states = share(dict(states), devices)
    carry = split_batch(algorithm.init_carry(num_envs), devices)
    key = share(jax.random.key(seed), devices)
    step = _compiled_step(algorithm.act)

    def policy(observation, goal, reset):
        nonlocal carry, key
        inputs = (np.asarray(observation, np.float32), reset)
        goal = None if goal is None else np.asarray(goal, np.float32)
        observed, was_reset, goal = split_batch((*inputs, goal), devices)
        output, carry, key = step(states, carry, key, observed, was_reset, goal)
        plan = output.plan if bool(np.any(reset)) else None
        return np.asarray(output.action), plan

    return policy


@functools.lru_cache(maxsize=8)  # programs are large, so the oldest may go
def _compiled_step(act: Callable[..., Any]) -> Callable[..., Any]:
    """Compile acting once for each algorithm, however many agents it serves."""

    @jax.jit
    def step(states, carry, key, observation, reset, goal):
        key, act_key = jax.random.split(key)
        output, carry = act(states, carry, act_key, observation, reset, goal=goal)
        return output, carry, key

    return step


def random_policy(action_space: gymnasium.spaces.Box, *, seed: int = 0) -> Policy:
    """Draw uniform actions."""
    rng = np.random.default_rng(seed)

    def policy(observation, goal, reset):
        shape = (len(observation), *action_space.shape)
        return rng.uniform(action_space.low, action_space.high, shape), None

    return policy


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

    Episode `i` is reset with seed `seed + i`, so that several policies meet the same
    starts and goals whatever `num_envs` is.

    Args:
      make_policy: `(number of environments, seed) -> Policy`, called once a wave with
        the seed of the wave's first episode, so that no two waves share their noise.
      make_env: makes one environment, with Box or goal-dictionary observations.
      episodes: N.
      num_envs: environments side by side; a wave plays one episode in each.
      seed: of the first episode.
      options: passed to every reset.
      label: shown beside the progress bar.
    """
    for flag, count in (("--episodes", episodes), ("--num-envs", num_envs)):
        if count < 1:
            raise UserError(f"{flag} is {count}; it must be at least 1")
    num_envs = min(num_envs, episodes)
    # Plain environments in lock-step: Gymnasium's vector environments either restart
    # by themselves, adding steps of the next episode, or refuse to step past an end.
    envs = [make_env() for _ in range(num_envs)]
    waves = []
    with progress(episodes, label, unit="episode") as bar:
        for first in range(0, episodes, num_envs):
            seeds = [seed + first + i for i in range(num_envs)]
            wave = play_wave(make_policy(num_envs, seeds[0]), envs, seeds, options)
            count = min(num_envs, episodes - first)
            waves.append(jax.tree.map(lambda x, n=count: x[:n], wave))
            bar(count)
    for env in envs:
        env.close()
    return Rollouts(
        **{
            name: _joined([wave[name] for wave in waves])
            for name in Rollouts.__dataclass_fields__
        }
    )


def play(
    run: Run,
    make_env: Callable[[], gymnasium.Env],
    *,
    devices: Sequence[Device] | None = None,
    **options: Any,
) -> Rollouts:
    """Play a run in an environment.

    Args:
      run: a trained planner or policy.
      make_env: as in `rollout`.
      devices: the batch of environments is split over them.
      **options: of `rollout`.
    """
    return rollout(
        lambda n, seed: agent(
            run.algorithm, run.states, num_envs=n, seed=seed, devices=devices
        ),
        make_env,
        label=run.name,
        **options,
    )


def play_wave(
    policy: Policy,
    envs: list[gymnasium.Env],
    seeds: Sequence[int],
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Play one episode in every environment, in lock-step.

    Args:
      policy: acts in all of them, also in those whose episode has ended.
      envs: B environments.
      seeds: of their resets.
      options: passed to every reset.

    Returns:
      the fields of `Rollouts`.
    """
    starts = [
        _split(env.reset(seed=seed, options=options)[0])
        for env, seed in zip(envs, seeds, strict=True)
    ]
    observation = np.stack([start[0] for start in starts])
    goal = None if starts[0][1] is None else np.stack([start[1] for start in starts])
    count = len(envs)
    returns, lengths = np.zeros(count), np.zeros(count, np.int64)
    peaks = np.full(count, -np.inf)
    successes, running = np.zeros(count, bool), np.ones(count, bool)
    path, reset, plans = [observation], np.ones(count, bool), None
    while running.any():
        action, plan = policy(observation, goal, reset)
        plans = plan if plans is None else plans
        reset = np.zeros(count, bool)
        observation = observation.copy()
        for i in np.flatnonzero(running):
            following, reward, terminated, truncated, info = envs[i].step(action[i])
            observation[i] = _split(following)[0]
            returns[i] += float(reward)
            peaks[i] = max(peaks[i], float(reward))
            lengths[i] += 1
            successes[i] |= bool(info.get("success", info.get("is_success", False)))
            running[i] = not (terminated or truncated)
        path.append(observation)
    return {
        "returns": returns,
        "peaks": peaks,
        "successes": successes,
        "lengths": lengths,
        "observations": np.stack(path, axis=1).astype(np.float32),
        "goals": goal,
        "plans": None if plans is None else np.asarray(plans),
    }


def _split(observation: Any) -> tuple[np.ndarray, Any]:
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
