"""Scores in mazes, beside the expert and the random policy.

Both references are played from the same starts and goals as the policy. Beside that
score stands D4RL's, which has constants in place of the two. D4RL's expert for mazes
keeps its first path for all episodes and bumps into walls, so 100 on that scale is no
ceiling: the expert here stands far above it. Scores by constants of another
environment's version say nothing about the policy; equation (1) of
`jaxdiff.scoring` does.
"""

import time
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from jaxdiff.devices import Device
from jaxdiff.rollouts import MakePolicy, Policy, Rollouts, play, random_policy, rollout
from jaxdiff.run import Run, require_maze
from jaxdiff.scoring import bootstrap, on_scale, require_scale, score
from jaxdiff.tasks.pointmaze import world as pointmaze
from jaxdiff.tasks.pointmaze.world import Setting, reset_options


def expert_policy(maze: pointmaze.Maze, *, num_envs: int, seed: int = 0) -> Policy:
    """Follow the waypoint expert that also makes the maze datasets, without noise."""
    rng = np.random.default_rng(seed)
    state = pointmaze.expert_init(num_envs)

    def policy(observation, goal, reset):
        nonlocal state
        action, state = pointmaze.expert_action(maze, state, observation, goal, rng)
        return action, None

    return policy


def d4rl_score(maze: pointmaze.Maze, mean_return: float) -> float:
    """Score a mean return by D4RL's constants; see the head of this module."""
    return on_scale(mean_return, maze.d4rl_random, maze.d4rl_expert)


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
    require_scale(chance.returns, expert.returns)
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
            options=reset_options(maze, setting),
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
    return play(
        run,
        lambda: pointmaze.make_env(maze.name),
        episodes=episodes,
        num_envs=num_envs,
        seed=seed,
        devices=devices,
        options=reset_options(maze, setting),
    )


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
