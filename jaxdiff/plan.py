"""A start and a goal, in environment units, become ranked plans."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff.algorithms.diffuser import declared_horizons
from jaxdiff.algorithms.following import cost
from jaxdiff.data.normalizer import Normalizer
from jaxdiff.envs import pointmaze
from jaxdiff.errors import UserError, writing
from jaxdiff.progress import note
from jaxdiff.run import Run, maze_of


@dataclasses.dataclass(frozen=True)
class RankedPlans:
    """Plans for one problem, the best first: see `rank` in `DiffuserConfig`.

    Attributes:
      observations: `[C, H, O]`, environment units.
      actions: `[C, H, A]`, environment units.
      inconsistency: `[C]`, see `jaxdiff.algorithms.dynamics`.
      path: `[S + 1, H, O]`, the best plan at every noise level, noisiest first.
      expected_return: `[C]`, of the model of returns, or None without one.
    """

    observations: np.ndarray
    actions: np.ndarray
    inconsistency: np.ndarray
    path: np.ndarray
    expected_return: np.ndarray | None = None


def plan(
    run: Run,
    start: Any,
    goal: Any = None,
    *,
    horizon: int | None = None,
    candidates: int = 8,
    seed: int = 0,
) -> RankedPlans:
    """Plan from `start`, to `goal` if there is one, guided if the run's options say so.

    Args:
      run: a trained planner.
      start: `[O]` observation, or `[2]` position in a maze (at rest there), metres.
      goal: `[G]` leading entries of the last observation, as many as the run was
        trained to meet (`goal_dim`); in a maze a position will do, and the rest is
        zero, a state at rest. None for no goal.
      horizon: steps of the plan, one of those the run declares; default its own.
      candidates: plans made, C.
      seed: of the plans' noise.

    Raises:
      UserError: the run is no planner, a start or goal that cannot be, or a horizon
        that was not declared.
    """
    if run.algorithm.plan is None:
        raise UserError(f"{run.name} does not plan; act with it by `jaxdiff evaluate`")
    action_dim = run.document["dataset"]["action_dim"]
    normalizer = run.statistics.normalizer
    start, goal = _problem(run, normalizer, action_dim, start, goal)
    declared = declared_horizons(run.config)
    if candidates < 1:
        raise UserError(f"--candidates is {candidates}; it must be at least 1")
    if horizon is not None and horizon not in declared:
        raise UserError(
            f"the horizon {horizon} is not one that {run.path} declares; choose one of "
            f"{', '.join(map(str, declared))}"
        )
    make = jax.jit(
        run.algorithm.plan, static_argnames=("horizon", "candidates", "return_path")
    )
    out = make(
        run.states,
        jax.random.key(seed),
        start[None],
        None if goal is None else goal[None],
        horizon=horizon,
        candidates=candidates,
        return_path=True,
    )
    order = np.argsort(cost(out, run.config.rank)[0])
    expected = out.expected_return
    trajectories = np.asarray(out.trajectories[0])[order]
    return RankedPlans(
        observations=trajectories[..., action_dim:],
        actions=trajectories[..., :action_dim],
        inconsistency=np.asarray(out.inconsistency[0])[order],
        path=np.asarray(out.path[:, 0, order[0], :, action_dim:]),
        expected_return=None if expected is None else np.asarray(expected[0])[order],
    )


def _problem(
    run: Run, normalizer: Normalizer, action_dim: int, start: Any, goal: Any
) -> tuple[np.ndarray, np.ndarray | None]:
    """Check a start and a goal and complete them to arrays."""
    start = np.asarray(start, np.float32)
    goal = None if goal is None else np.asarray(goal, np.float32)
    size = normalizer.low.shape[-1] - action_dim
    maze = maze_of(run)
    if maze is not None:
        for point, what in ((start, "start"), (goal, "goal")):
            if point is not None and point.size >= 2:
                pointmaze.require_free(maze, point[:2], what)
        if start.shape == (2,):
            start = np.concatenate([start, np.zeros(2, np.float32)])
    if start.shape != (size,) or not np.isfinite(start).all():
        raise UserError(
            f"the start {start.tolist()} is not an observation of {run.path}; give "
            f"{size} finite numbers"
        )
    _warn_of_range(run, normalizer, action_dim, start)
    if goal is None:
        return start, None
    most = run.config.goal_dim
    if most == 0:
        raise UserError(
            f"{run.path} plans without goals (its goal_dim is 0); leave the goal out"
        )
    # The entries that are not given are zero. Outside mazes that means nothing.
    least = most if maze is None else min(most, 2)
    fits = goal.ndim == 1 and least <= len(goal) <= most
    if not fits or not np.isfinite(goal).all():
        count = f"{most}" if least == most else f"{least} to {most}"
        raise UserError(
            f"the goal {goal.tolist()} is none that {run.path} can plan for; give the "
            f"{count} leading entries of an observation, all finite"
        )
    return start, goal


def _warn_of_range(
    run: Run, normalizer: Normalizer, action_dim: int, start: np.ndarray
) -> None:
    """Note in which dimensions a start lies outside the data."""
    if run.config.normalizer == "gaussian":  # which knows no range
        return
    knots = np.asarray(normalizer.knots)[:, action_dim:]
    outside = (start < knots[0] - 1e-4) | (start > knots[-1] + 1e-4)
    if outside.any():
        found = np.flatnonzero(outside)
        note(
            "the start lies outside the range of the data in "
            f"dimension{'s' if len(found) > 1 else ''} "
            f"{', '.join(map(str, found))}; plans from there are extrapolations"
        )


def save_plans(plans: RankedPlans, path: str | Path) -> None:
    """Write plans as an NPZ file with the fields of `RankedPlans` that are not None."""
    path = Path(path)
    fields = {k: v for k, v in dataclasses.asdict(plans).items() if v is not None}
    with writing(path, "name another file with --out"), path.open("wb") as file:
        np.savez(file, **fields)
