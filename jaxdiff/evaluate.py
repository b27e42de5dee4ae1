"""Closed-loop evaluation: policies act in simulators, and the scores they earn.

With R a mean return over episodes, on a scale where 0 is a random policy and 100 the
reference expert, both on the same starts and goals as the policy,

(1) score = 100 (R - R_random) / (R_expert - R_random),

and beside it D4RL's score, which has constants in place of the two references. D4RL's
expert for mazes keeps its first path for all episodes and bumps into walls, so 100 on
that scale is no ceiling: the expert here stands far above it. Scores by constants of
another environment's version say nothing about the policy; (1) does.

Intervals are percentile bootstrap intervals over episodes.
"""

import dataclasses
import functools
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium
import jax
import numpy as np

from jaxdiff.algorithms.base import Algorithm, TrainState
from jaxdiff.devices import Device, share, split_batch
from jaxdiff.envs import pointmaze
from jaxdiff.errors import UserError, writing
from jaxdiff.progress import progress
from jaxdiff.run import Run, require_maze

# (observation [B, O], goal [B, G] or None, reset [B]) -> (action [B, A], plan or None)
Policy = Callable[[np.ndarray, Any, np.ndarray], tuple[np.ndarray, Any]]
# (number of environments, seed of the policy's own randomness) -> Policy
MakePolicy = Callable[[int, int], Policy]


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """Episodes played, in the order of their seeds.

    Attributes:
      returns: `[N]`, sum of the environment's rewards.
      successes: `[N]` bool, whether the environment ever reported success.
      lengths: `[N]`, steps until the episode ended.
      observations: `[N, T + 1, O]`; after an episode's end its last one is repeated.
      goals: `[N, G]`, or None where the environment has no goals.
      plans: `[N, H, A + O]`, the first plan of each episode, or None.
    """

    returns: np.ndarray
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


def expert_policy(maze: pointmaze.Maze, *, num_envs: int, seed: int = 0) -> Policy:
    """Follow the waypoint expert that also makes the maze datasets, without noise."""
    rng = np.random.default_rng(seed)
    state = pointmaze.expert_init(num_envs)

    def policy(observation, goal, reset):
        nonlocal state
        action, state = pointmaze.expert_action(maze, state, observation, goal, rng)
        return action, None

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
            wave = _wave(make_policy(num_envs, seeds[0]), envs, seeds, options)
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


def score(
    returns: np.ndarray,
    random_returns: np.ndarray,
    expert_returns: np.ndarray,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Score returns against references on the same episodes, equation (1).

    Args:
      returns: `[N]`.
      random_returns: `[N]`, of the random policy.
      expert_returns: `[N]`, of the expert.
      confidence: of the bootstrap interval over episodes.
      seed: of the bootstrap.

    Returns:
      Score, and the low and high end of its interval.

    Raises:
      UserError: the expert earned no more than the random policy.
    """
    _require_scale(random_returns, expert_returns)
    table = np.stack([returns, random_returns, expert_returns])

    def of(drawn: np.ndarray) -> float:
        own, chance, expert = drawn.mean(1)
        # Of few episodes some draws hold only such as pay expert and random policy
        # alike: 0 / 0, a draw that says nothing about the score.
        return 100 * (own - chance) / (expert - chance) if expert > chance else np.nan

    low, high = bootstrap(table, of, confidence=confidence, seed=seed)
    return of(table), low, high


def _require_scale(random_returns: np.ndarray, expert_returns: np.ndarray) -> None:
    """Check that equation (1) has a denominator."""
    chance, expert = np.mean(random_returns), np.mean(expert_returns)
    if expert <= chance:
        raise UserError(
            f"in {len(expert_returns)} episodes the expert earned {expert:g} and the "
            f"random policy {chance:g}, between which there is no score; play more "
            "episodes with --episodes"
        )


def bootstrap(
    table: np.ndarray,
    statistic: Callable[[np.ndarray], Any] = np.mean,
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return a percentile bootstrap interval, resampling the last axis of a table.

    Args:
      table: `[N]`, or `[K, N]` where K numbers belong to one episode.
      statistic: maps a resampled table to a number, or to NaN for a draw to leave out.
      confidence: of the interval.
      draws: how often to resample.
      seed: of the bootstrap.
    """
    table = np.asarray(table, np.float64)
    rng = np.random.default_rng(seed)
    n = table.shape[-1]
    picks = rng.integers(n, size=(draws, n))
    values = [statistic(table[..., pick]) for pick in picks]
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def d4rl_score(maze: pointmaze.Maze, mean_return: float) -> float:
    """Score a mean return by D4RL's constants; see the head of this module."""
    span = maze.d4rl_expert - maze.d4rl_random
    return 100 * (mean_return - maze.d4rl_random) / span


def _wave(
    policy: Policy,
    envs: list[gymnasium.Env],
    seeds: list[int],
    options: dict[str, Any] | None,
) -> dict[str, Any]:
    """Play one episode in every environment, in lock-step."""
    starts = [
        _split(env.reset(seed=seed, options=options)[0])
        for env, seed in zip(envs, seeds, strict=True)
    ]
    observation = np.stack([start[0] for start in starts])
    goal = None if starts[0][1] is None else np.stack([start[1] for start in starts])
    count = len(envs)
    returns, lengths = np.zeros(count), np.zeros(count, np.int64)
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
            lengths[i] += 1
            successes[i] |= bool(info.get("success", False))
            running[i] = not (terminated or truncated)
        path.append(observation)
    return {
        "returns": returns,
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


Setting = Literal["multi", "single"]


def evaluate_maze(
    run: Run,
    *,
    episodes: int = 100,
    setting: Setting = "multi",
    seed: int = 0,
    num_envs: int = 100,
    devices: Sequence[Device] | None = None,
    references: tuple[Rollouts, Rollouts] | None = None,
) -> tuple[dict[str, Any], Rollouts]:
    """Score a run in its maze, beside the expert and the random policy.

    Args:
      run: a trained planner or policy.
      episodes: N, of the environment's full length each.
      setting: "multi" draws a goal at each reset, "single" keeps D4RL's goal cell.
      seed: of the first episode.
      num_envs: environments side by side.
      devices: the batch of environments is split over them.
      references: of `maze_references` with the same arguments, to play them once for
        several runs.

    Returns:
      A record of the scores, and the run's episodes.

    Raises:
      UserError: the run's dataset is not of a maze, or the expert earned no more than
        the random policy, as may happen in very few episodes.
      ValueError: the references are of other starts or goals.
    """
    maze = require_maze(run)
    game: dict[str, Any] = {"episodes": episodes, "setting": setting, "seed": seed}
    expert, chance = references or maze_references(maze, num_envs=num_envs, **game)
    _require_scale(chance.returns, expert.returns)
    started = time.monotonic()
    own = play_maze(run, num_envs=num_envs, devices=devices, **game)
    for other in (expert, chance):
        _require_same_problems(own, other)
    value, low, high = score(own.returns, chance.returns, expert.returns)
    record = {
        "setting": f"{maze.name}-{setting}",
        "episodes": episodes,
        "score": value,
        "score_low": low,
        "score_high": high,
        "success_rate": float(own.successes.mean()),
        "success_interval": bootstrap(own.successes),
        "mean_return": float(own.returns.mean()),
        "return_interval": bootstrap(own.returns),
        "expert_return": float(expert.returns.mean()),
        "expert_success_rate": float(expert.successes.mean()),
        "random_return": float(chance.returns.mean()),
        "d4rl_score": d4rl_score(maze, float(own.returns.mean())),
        "seconds": time.monotonic() - started,
    }
    return record, own


def _require_same_problems(own: Rollouts, other: Rollouts) -> None:
    """Check that scores are of the same starts and goals."""

    def problems(played: Rollouts) -> list[Any]:
        return [played.observations[:, 0].tolist(), np.asarray(played.goals).tolist()]

    if problems(own) != problems(other):
        raise ValueError("the references were played from other starts or goals")


def maze_references(
    maze: pointmaze.Maze,
    *,
    episodes: int,
    setting: Setting = "multi",
    seed: int = 0,
    num_envs: int = 100,
) -> tuple[Rollouts, Rollouts]:
    """Play the expert and the random policy: what a score of 100 and of 0 mean."""
    box = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    policies: dict[str, MakePolicy] = {
        "expert": lambda n, seed: expert_policy(maze, num_envs=n, seed=seed),
        "random": lambda _, seed: random_policy(box, seed=seed),
    }
    expert, chance = (
        rollout(
            make_policy,
            lambda: pointmaze.make_env(maze.name),
            episodes=episodes,
            num_envs=num_envs,
            seed=seed,
            options=_reset_options(maze, setting),
            label=label,
        )
        for label, make_policy in policies.items()
    )
    return expert, chance


def play_maze(
    run: Run,
    *,
    episodes: int,
    setting: Setting = "multi",
    seed: int = 0,
    num_envs: int = 100,
    devices: Sequence[Device] | None = None,
) -> Rollouts:
    """Play a run in its maze; see `evaluate_maze` for the arguments."""
    maze = require_maze(run)
    return rollout(
        lambda n, seed: agent(
            run.algorithm, run.states, num_envs=n, seed=seed, devices=devices
        ),
        lambda: pointmaze.make_env(maze.name),
        episodes=episodes,
        num_envs=num_envs,
        seed=seed,
        options=_reset_options(maze, setting),
        label=run.name,
    )


def _reset_options(maze: pointmaze.Maze, setting: Setting) -> dict[str, Any] | None:
    return {"goal_cell": np.asarray(maze.goal_cell)} if setting == "single" else None


def save_evaluation(run: Run, record: dict[str, Any]) -> Path:
    """Write a record of `evaluate_maze` into the run folder, under the next number.

    Raises:
      UserError: the folder cannot be written.
      ValueError: the record holds a NaN or an infinity, which JSON does not have.
    """
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    folder = run.path / "evaluations"
    taken = [int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal()]
    path = folder / f"{max(taken, default=-1) + 1:03d}.json"
    partial = path.with_suffix(".partial")
    with writing(path, "mend the permissions of the run folder or free some space"):
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    return path


def plan_paths(rollouts: Rollouts, *, action_dim: int) -> list[np.ndarray]:
    """Cut the positions out of first plans, `[H, 2]` each, up to their arrival.

    A plan shorter than the longest is filled up by repetitions of its last row.

    Args:
      rollouts: of a planner in a maze.
      action_dim: A.
    """
    if rollouts.plans is None:
        raise ValueError("these episodes were played without plans")
    paths = []
    for plan in rollouts.plans[..., action_dim : action_dim + 2]:
        moving = np.flatnonzero((plan[1:] != plan[:-1]).any(-1))
        paths.append(plan[: moving[-1] + 2] if len(moving) else plan[:1])
    return paths
