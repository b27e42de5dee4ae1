"""A start and a goal, in environment units, become ranked plans.

What else a plan should do is said when it is asked for: by a value to climb, a
projection to obey, or entries that are known. None of them needs training.
"""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.algorithms.planning.diffuser import declared_horizons
from jaxdiff.algorithms.planning.receding_horizon import Plans, cost
from jaxdiff.data.normalizer import Normalizer
from jaxdiff.diffusion import Clamp, keep_out, keep_out_value, pass_by_value
from jaxdiff.errors import UserError, writing
from jaxdiff.progress import note
from jaxdiff.run import Run, maze_of
from jaxdiff.tasks.pointmaze import world as pointmaze

ABOUT_AS_GOOD = 1.0  # as log-probabilities, a factor of e


@dataclasses.dataclass(frozen=True)
class RankedPlans:
    """Plans for one problem, the best first.

    The best is what `rank` in `DiffuserConfig` says. Of plans that climbed a value,
    those within `ABOUT_AS_GOOD` of the largest value come before all others, and among
    them those that depart least from where the data have been.

    Attributes:
      observations: `[C, H, O]`, environment units.
      actions: `[C, H, A]`, environment units.
      dynamics_error: `[C]`, see `jaxdiff.algorithms.planning.dynamics`.
      path: `[S + 1, H, O]`, the best plan at every noise level, noisiest first.
      expected_return: `[C]`, of the model of returns, or None without one.
      value: `[C]`, of the value that the plans climbed, or None without one.
      ood_distance: `[C]`, above 1 for a plan that leads where the data never were, see
        `jaxdiff.algorithms.planning.support`.
    """

    observations: np.ndarray
    actions: np.ndarray
    dynamics_error: np.ndarray
    path: np.ndarray
    expected_return: np.ndarray | None = None
    value: np.ndarray | None = None
    ood_distance: np.ndarray | None = None


def plan(
    run: Run,
    start: Any,
    goal: Any = None,
    *,
    horizon: int | None = None,
    candidates: int = 8,
    seed: int = 0,
    value: Callable[[jax.Array], jax.Array] | None = None,
    value_scale: float = 1.0,
    value_span: float | None = None,
    project: Callable[[jax.Array], jax.Array] | None = None,
    known: Clamp | None = None,
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
      value: `trajectories [N, H, A + O] -> [N]`, in environment units, actions first;
        estimates of the plan climb it at every denoising step. Parts are added, as in
        `lambda x: avoid(x) + visit(x)`; see `keep_out_value` and `pass_by_value` in
        `jaxdiff.diffusion`. A new function compiles anew, the same one does not.
      value_scale: times its gradient; 1 reads it as a log-probability, and a task that
        the data speak against may need 30.
      value_span: steps of a plan that follow where one is pulled, by default a fifth of
        the horizon; see `climb`.
      project: a function of such trajectories, applied to every estimate and to the
        plans, before start, goal and known entries are written over them; see
        `keep_out` and `clip_box`.
      known: further entries, values and mask `[H, A + O]`, such as a position at row
        60. Start and goal come first.

    Raises:
      UserError: the run is no planner, a start or goal that cannot be, a horizon that
        was not declared, or known entries of another shape.
    """
    planner = _planner(run)
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
    _check_known(known, horizon or run.config.horizon, normalizer.low.shape[-1])
    task = {"value": value, "project": project, "known": known}
    task = {name: given for name, given in task.items() if given is not None}
    _check_task(run, planner, task)
    if value is not None:
        task |= {"value_scale": value_scale, "value_span": value_span}
    static = ("horizon", "candidates", "return_path")
    functions = tuple(
        name for name in ("value", "value_span", "project") if name in task
    )
    make = jax.jit(planner, static_argnames=static + functions)
    out = make(
        run.states,
        jax.random.key(seed),
        start[None],
        None if goal is None else goal[None],
        horizon=horizon,
        candidates=candidates,
        return_path=True,
        **task,
    )
    order = ranking(out, run.config)

    def ordered(numbers: jax.Array | None) -> np.ndarray | None:
        return None if numbers is None else np.asarray(numbers[0])[order]

    trajectories = np.asarray(out.trajectories[0])[order]
    return RankedPlans(
        observations=trajectories[..., action_dim:],
        actions=trajectories[..., :action_dim],
        dynamics_error=np.asarray(out.dynamics_error[0])[order],
        path=np.asarray(out.path[:, 0, order[0], :, action_dim:]),
        expected_return=ordered(out.expected_return),
        value=ordered(out.value),
        ood_distance=ordered(out.ood_distance),
    )


def _planner(run: Run) -> Callable[..., Plans]:
    if run.algorithm.plan is None:
        raise UserError(f"{run.name} does not plan; act with it by `jaxdiff evaluate`")
    return run.algorithm.plan


def ranking(plans: Plans, config: Any) -> np.ndarray:
    """Rank the candidates of the first problem: indices `[C]`, see `RankedPlans`.

    Args:
      plans: of a planner.
      config: option `rank` of the planner.
    """
    by_cost = np.asarray(cost(plans, config.rank)[0])
    if plans.value is None:
        return np.argsort(by_cost)
    value = np.asarray(plans.value[0])
    ood_distance = np.ones(len(value))
    if plans.ood_distance is not None:
        ood_distance = np.maximum(plans.ood_distance[0], 1.0)
    # A value leads nearly all plans somewhat away from the data; the least away first.
    return np.lexsort((by_cost, ood_distance, value < value.max() - ABOUT_AS_GOOD))


def _check_task(run: Run, planner: Callable[..., Plans], task: dict[str, Any]) -> None:
    unknown = sorted(task.keys() - inspect.signature(planner).parameters.keys())
    if unknown:
        raise UserError(
            f"{run.name} plans for the conditions that it was trained on, and takes no "
            f"{' or '.join(unknown)}; leave them out, or plan with diffuser"
        )


def _check_known(known: Clamp | None, horizon: int, dim: int) -> None:
    if known is None:
        return
    for what, array in (("values", known.values), ("mask", known.mask)):
        if np.shape(array) != (horizon, dim):
            raise UserError(
                f"the {what} of what is known have shape {list(np.shape(array))}; give "
                f"one entry for each of a plan, [{horizon}, {dim}]"
            )


def maze_task(
    avoid: Any = None, via: Any = None, *, by: Sequence[str] = ("value", "project")
) -> dict[str, Any]:
    """Say where a plan in a maze must not and must go: keywords for `plan`.

    Args:
      avoid: `[3]`, centre and radius of a region to keep out of, metres. Plans keep
        0.15 m beside it, for whoever follows them.
      via: `[2]`, a point to pass, metres.
      by: how to keep out: "value" finds ways round, "project" holds the plan to it.
    """
    values, task = [], {}
    if avoid is not None:
        avoid = jnp.asarray(avoid, jnp.float32)
        center, radius = avoid[:2], avoid[2] + _BESIDE
        if "value" in by:
            values.append(keep_out_value(center, radius, dims=_POSITION, width=0.1))
        if "project" in by:
            task["project"] = keep_out(center, radius, dims=_POSITION)
    if via is not None:
        via = jnp.asarray(via, jnp.float32)
        values.append(pass_by_value(via, dims=_POSITION, width=0.3))
    if values:
        task["value"] = lambda x: sum(value(x) for value in values)
        task["value_scale"] = _MAZE_SCALE
    return task


# What rows [action | observation] of a maze begin with, after the actions; and what
# made plans in the medium maze take another way (see benchmarks/properties.py).
_POSITION = (2, 3)
_BESIDE, _MAZE_SCALE = 0.15, 30.0


def interpolate(
    run: Run,
    first: Any,
    second: Any,
    weights: Any,
    *,
    level: int,
    seed: int = 0,
) -> np.ndarray:
    """Mix two plans in noise and denoise the mixtures (Ho et al. 2020, section 4.3).

    Both plans are noised by the same noise until `level` denoising steps are left,
    mixed linearly and denoised, with the same noise for every weight. At a low level
    the mixtures are nearly averages of the plans; at a high one, plans of their own.

    Args:
      run: a trained planner.
      first: trajectory `[H, A + O]`, environment units, of a declared horizon.
      second: another of the same shape. Start and goal, if the run plans to goals, are
        mixed as well.
      weights: `[W]` of the second plan, 0 to 1.
      level: denoising steps to go back, from 1 to those of the run's sampler.
      seed: of all noise.

    Returns:
      Trajectories `[W, H, A + O]`.

    Raises:
      UserError: plans of different shapes, or a level that the sampler does not have.
    """
    planner = _planner(run)
    first, second = np.asarray(first, np.float32), np.asarray(second, np.float32)
    dim = run.statistics.normalizer.low.shape[-1]
    steps = run.config.sampling_steps or run.config.diffusion_steps
    if first.shape != second.shape or first.ndim != 2 or first.shape[1] != dim:
        raise UserError(
            f"plans of shapes {list(first.shape)} and {list(second.shape)} cannot be "
            f"mixed; give two of one shape [H, {dim}]"
        )
    if not 1 <= level <= steps:
        raise UserError(
            f"the level {level} is none of the sampler's {steps} steps; choose 1 to "
            f"{steps}"
        )
    share = np.asarray(weights, np.float32)[:, None, None]
    # Noise that both share makes mixing before it the same as mixing after it.
    mixed = (1 - share) * first + share * second
    action_dim = run.document["dataset"]["action_dim"]
    goal_dim = run.config.goal_dim
    goals = mixed[:, -1, action_dim : action_dim + goal_dim] if goal_dim else None

    def denoised(trajectory, goal):
        out = planner(
            run.states,
            jax.random.key(seed),
            trajectory[None, 0, action_dim:],
            None if goal is None else goal[None],
            horizon=len(first),
            candidates=1,
            init=trajectory[None],
            init_level=level,
        )
        return out.trajectories[0, 0]

    return np.asarray(jax.jit(jax.vmap(denoised))(mixed, goals))


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
