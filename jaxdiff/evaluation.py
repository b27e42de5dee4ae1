"""Closed-loop evaluation: policies act in simulators, and the scores they earn."""

from typing import Any

from jaxdiff.errors import UserError
from jaxdiff.rollouts import MakePolicy, Policy, Rollouts, agent, random_policy, rollout
from jaxdiff.run import Run, maze_of
from jaxdiff.scoring import bootstrap, save_evaluation, score
from jaxdiff.tasks.claw.scores import claw_of, evaluate_claw
from jaxdiff.tasks.control import evaluate_control
from jaxdiff.tasks.doom.scores import evaluate_doom, is_doom
from jaxdiff.tasks.kitchen.scores import evaluate_kitchen, is_kitchen
from jaxdiff.tasks.pointmaze.scores import (
    d4rl_score,
    evaluate_maze,
    expert_policy,
    maze_references,
    plan_paths,
    play_maze,
)
from jaxdiff.tasks.pointmaze.world import Setting, setting_of_dataset


def evaluate_run(
    run: Run,
    *,
    setting: Setting | None = None,
    episodes: int = 100,
    latency: float | None = None,
    live: bool = False,
    **options: Any,
) -> tuple[dict[str, Any], Any]:
    """Score a run in the task of its dataset.

    Args:
      run: a trained planner or policy.
      setting: of a maze; by default that of the dataset.
      episodes: how many; of a claw machine, plays of every scene; of Doom, minutes.
      latency: of decisions at Doom, see `evaluate_doom`.
      live: play Doom by its own clock.
      **options: what all of them take, such as `seed`, `num_envs` and `devices`.

    Returns:
      What `evaluate_maze`, `evaluate_claw`, `evaluate_kitchen`, `evaluate_doom` or
      `evaluate_control` returns: a record of the scores, and what was played.

    Raises:
      UserError: a latency or live play of a task that is played in no real time.
    """
    if is_doom(run):
        return evaluate_doom(
            run, episodes=episodes, latency=latency, live=live, **options
        )
    if live or latency is not None:
        raise UserError(
            f"{run.path} was trained on {run.document['dataset']['name']}, which waits "
            "for every action; leave out --live and --latency"
        )
    if maze_of(run) is not None:
        setting = setting or setting_of_dataset(run.document["dataset"]["name"])
        return evaluate_maze(run, setting=setting, episodes=episodes, **options)
    if claw_of(run) is not None:
        return evaluate_claw(run, samples=episodes, **options)
    if is_kitchen(run):
        return evaluate_kitchen(run, episodes=episodes, **options)
    return evaluate_control(run, episodes=episodes, **options)


__all__ = [
    "MakePolicy",
    "Policy",
    "Rollouts",
    "Setting",
    "agent",
    "bootstrap",
    "d4rl_score",
    "evaluate_claw",
    "evaluate_control",
    "evaluate_doom",
    "evaluate_kitchen",
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
