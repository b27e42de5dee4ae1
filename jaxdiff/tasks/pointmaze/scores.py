"""Play and scores in mazes, beside the expert and the random policy.

Both references are played from the same starts and goals as the policy, and equation
(1) of `jaxdiff.scoring` relates its returns to theirs. D4RL's score, which has
constants in place of the two references, is recorded too. D4RL's expert keeps its first
path for all episodes and bumps into walls, so the expert here earns far more than 100
on D4RL's scale.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from jaxdiff.data.spec import Environment
from jaxdiff.options import Options
from jaxdiff.policy import MakePolicy
from jaxdiff.rollouts import RandomPolicy, Rollouts, Session, rollout, select
from jaxdiff.scoring import bootstrap, on_scale, require_scale
from jaxdiff.scoring import score as score_of
from jaxdiff.tasks.base import Task
from jaxdiff.tasks.control import successes
from jaxdiff.tasks.pointmaze.environment import (
    Setting,
    make_maze,
    reset_options,
)
from jaxdiff.tasks.pointmaze.expert import Expert
from jaxdiff.tasks.pointmaze.world import Maze, maze_of

_REFERENCE_ENVS = 100  # side by side; fixed, so that references depend on seeds alone


@dataclasses.dataclass(frozen=True)
class MazeOptions(Options):
    """How mazes are scored.

    Attributes:
      setting: draw a goal at each reset (multi), or keep the one goal of D4RL's task
        (single); none for what the dataset pays for.
    """

    setting: Setting | None = None


def settle(options: MazeOptions, metadata: Mapping[str, Any]) -> MazeOptions:
    """Fill in the setting that the dataset pays for."""
    if options.setting is not None:
        return options
    return MazeOptions(setting=metadata.get("setting", "multi"))


@dataclasses.dataclass(frozen=True)
class MazeRollouts(Rollouts):
    """Episodes played in a maze.

    Attributes:
      maze: the maze.
      expert: the same episodes, played by the waypoint expert.
      chance: the same episodes, played by uniform actions.
    """

    maze: Maze
    expert: Rollouts
    chance: Rollouts


def play(
    task: Task, environment: Environment, options: MazeOptions, session: Session
) -> MazeRollouts:
    """Play episodes of a maze's full length each, and both references.

    Raises:
      UserError: the expert earned no more than the random policy, as may happen in very
        few episodes.
    """
    maze, setting = maze_of(environment), options.setting or "multi"
    expert, chance = maze_references(
        maze, episodes=session.episodes, setting=setting, seed=session.seed
    )
    require_scale(chance.returns, expert.returns)
    played = rollout(session, lambda: task.make_env(environment, options))
    rows = np.asarray(played.seeds) - session.seed  # without episodes that went wrong
    return MazeRollouts(
        **vars(played),
        maze=maze,
        expert=select(expert, rows),
        chance=select(chance, rows),
    )


@functools.lru_cache(maxsize=8)
def maze_references(
    maze: Maze, *, episodes: int, setting: Setting = "multi", seed: int = 0
) -> tuple[Rollouts, Rollouts]:
    """Play the expert, who scores 100, and the random policy, which scores 0."""
    box = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    policies: dict[str, MakePolicy] = {
        "expert": lambda count, seeds: Expert(maze, count, seeds),
        "random": lambda count, seeds: RandomPolicy(box, seed=seeds[0]),
    }
    expert, chance = (
        rollout(
            Session(make_policy, episodes, _REFERENCE_ENVS, seed, label),
            lambda: make_maze(maze),
            options=reset_options(maze, setting),
        )
        for label, make_policy in policies.items()
    )
    return expert, chance


def score(
    played: MazeRollouts, options: MazeOptions, references: Mapping[str, float]
) -> dict[str, Any]:
    """Score episodes by the references that were played beside them.

    Args:
      played: N episodes.
      options: of the task.
      references: of the dataset; not read.
    """
    value, low, high = score_of(
        played.returns, played.chance.returns, played.expert.returns
    )
    mean = float(played.returns.mean())
    record = {
        "setting": f"{played.maze.name}-{options.setting or 'multi'}",
        "score": value,
        "score_low": low,
        "score_high": high,
        "scale": "0 is the random policy and 100 the waypoint expert, on the same "
        "starts and goals",
        **successes(played),
        "mean_return": mean,
        "return_interval": bootstrap(played.returns),
        "expert_return": float(played.expert.returns.mean()),
        "expert_success_rate": successes(played.expert)["success_rate"],
        "random_return": float(played.chance.returns.mean()),
    }
    if played.maze.d4rl_expert is not None:
        record["d4rl_score"] = d4rl_score(played.maze, mean)
    return record


def d4rl_score(maze: Maze, mean_return: float) -> float:
    """Score a mean return by D4RL's constants; see the head of this module."""
    assert maze.d4rl_random is not None
    assert maze.d4rl_expert is not None
    return on_scale(mean_return, maze.d4rl_random, maze.d4rl_expert)


def plan_paths(played: Rollouts) -> list[Any]:
    """Cut the positions out of first plans, `[H, 2]` each, up to their arrival.

    A plan shorter than the longest is filled up by repetitions of its last row.
    """
    if played.plans is None:
        raise ValueError("these episodes were played without plans")
    paths = []
    for plan in played.plans[..., 2:4]:  # a row is [action | observation]
        moving = np.flatnonzero((plan[1:] != plan[:-1]).any(-1))
        paths.append(plan[: moving[-1] + 2] if len(moving) else plan[:1])
    return paths
