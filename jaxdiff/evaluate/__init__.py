"""Closed-loop evaluation: policies act in simulators, and the scores they earn."""

from typing import Any

from jaxdiff.evaluate.control import evaluate_control
from jaxdiff.evaluate.mazes import (
    Setting,
    d4rl_score,
    evaluate_maze,
    expert_policy,
    maze_references,
    plan_paths,
    play_maze,
)
from jaxdiff.evaluate.playing import (
    MakePolicy,
    Policy,
    Rollouts,
    agent,
    random_policy,
    rollout,
)
from jaxdiff.evaluate.scoring import bootstrap, save_evaluation, score
from jaxdiff.run import Run, maze_of


def evaluate_run(
    run: Run, *, setting: Setting = "multi", **options: Any
) -> tuple[dict[str, Any], Rollouts]:
    """Score a run in its maze (`evaluate_maze`) or task (`evaluate_control`).

    Args:
      run: a trained planner or policy.
      setting: of a maze.
      **options: what both take.
    """
    if maze_of(run) is not None:
        return evaluate_maze(run, setting=setting, **options)
    return evaluate_control(run, **options)


__all__ = [
    "MakePolicy",
    "Policy",
    "Rollouts",
    "Setting",
    "agent",
    "bootstrap",
    "d4rl_score",
    "evaluate_control",
    "evaluate_maze",
    "evaluate_run",
    "expert_policy",
    "maze_references",
    "plan_paths",
    "play_maze",
    "random_policy",
    "rollout",
    "save_evaluation",
    "score",
]
