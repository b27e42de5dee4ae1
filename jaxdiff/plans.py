"""A start and a goal, in environment units, become ranked plans.

More can be asked of a plan than was trained: a value to climb, a projection to obey, or
entries that are known.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff.algorithms.planning.network import NETWORKS
from jaxdiff.algorithms.planning.options import declared_horizons
from jaxdiff.algorithms.planning.planner import Plans, Problem, cost
from jaxdiff.algorithms.planning.trajectories import goal_entries
from jaxdiff.compilation import compiling
from jaxdiff.diffusion import Clamp
from jaxdiff.errors import UserError, require_at_least, writing
from jaxdiff.files import write_whole
from jaxdiff.progress import note
from jaxdiff.run import Run

ABOUT_AS_GOOD = 1.0  # as log-probabilities, a factor of e


@dataclasses.dataclass(frozen=True)
class RankedPlans:
    """Plans for one problem, the best first.

    The acting option `rank` says which is the best. Among plans that climbed a value,
    those within `ABOUT_AS_GOOD` of the largest value come first; the least
    out-of-distribution of them leads.

    Attributes:
      observations: `[C, H, O]`, environment units.
      actions: `[C, H, A]`, environment units.
      dynamics_error: `[C]`, see `jaxdiff.algorithms.planning.dynamics`.
      path: `[S + 1, H, O]`, the best plan at every noise level, noisiest first.
      expected_return: `[C]`, by the model of returns, or None without one.
      value: `[C]`, of the value that the plans climbed, or None without one.
      ood_distance: `[C]`, above 1 for a plan that leads where the data never were, see
        `jaxdiff.algorithms.planning.support`; None without goals.
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
    value: Callable[[jax.Array, Any], jax.Array] | None = None,
    value_args: Any = None,
    value_scale: float = 1.0,
    value_span: float | None = None,
    project: Callable[[jax.Array, Any], jax.Array] | None = None,
    project_args: Any = None,
    known: Clamp | None = None,
    guidance: Any = None,
) -> RankedPlans:
    """Plan from `start`, to `goal` if there is one, guided if the run's options say so.

    `value` and `project` are given trajectories `[N, H, A + O]` in environment units,
    actions first, and arrays. Pass functions of a module: the same function compiles
    once for all arrays, and a new lambda compiles again.

    Args:
      run: a trained planner.
      start: `[O]` observation.
      goal: `[G]`, as the dataset has goals; its first `goal_dim` entries are met. None
        for no goal.
      horizon: steps of the plan, one of those the run declares; default its own.
      candidates: plans made, C.
      seed: of the plans' noise.
      value: `(trajectories, value_args) -> [N]`; estimates of the plan climb it at
        every denoising step. See `keep_out_value` and `pass_by_value` in
        `jaxdiff.diffusion`.
      value_args: arrays for `value`.
      value_scale: times the gradient of `value`; 1 reads it as a log-probability, and
        what the data speak against may need 30.
      value_span: rows of a plan that follow a row that is pulled, by default a fifth of
        the horizon; see `climb`.
      project: `(trajectories, project_args) -> trajectories`, applied to every estimate
        and to the plans, before start, goal and known entries are written over them;
        see `keep_out` and `clip_box` in `jaxdiff.diffusion`.
      project_args: arrays for `project`.
      known: further entries, values and mask `[H, A + O]`, such as a position at row
        60. Start and goal come first.
      guidance: arrays that take the place of acting options, see `Problem`.

    Raises:
      UserError: the run is no planner, a start or goal of another size or not finite, a
        horizon that was not declared, or known entries of another shape.
    """
    planner = _planner(run)
    size, past = run.spec.action_dim, run.config.history - 1
    start, goal = _checked(run, start, goal)
    declared = declared_horizons(run.config)
    require_at_least(1, candidates=candidates)
    if horizon is not None and horizon not in declared:
        raise UserError(
            f"the horizon {horizon} is not one that {run.path} declares; choose one of "
            f"{', '.join(map(str, declared))}"
        )
    rows = (horizon or run.config.horizon) - past
    _check_known(known, rows, size + run.spec.observation_dim)
    problem = Problem(
        history=start[None, None],
        goal=None if goal is None else goal[None],
        known=known,
        value_args=value_args,
        value_scale=None if value is None else np.float32(value_scale),
        project_args=project_args,
        guidance=guidance,
    )
    plain = value is None and project is None and known is None
    shape, length = _shape(run, rows + past) if plain else (horizon, None)
    with compiling(f"plans of up to {shape or rows} steps"):
        out = planner(
            run.states,
            jax.random.key(seed)[None],
            problem,
            horizon=shape,
            length=length,
            candidates=candidates,
            return_path=True,
            value=value,
            project=project,
            value_span=value_span,
        )
    order = ranking(out, run.acting)

    def ordered(numbers: jax.Array | None) -> np.ndarray | None:
        return None if numbers is None else np.asarray(numbers[0])[order]

    assert out.path is not None  # it was asked for
    trajectories = np.asarray(out.trajectories[0])[order, :rows]
    return RankedPlans(
        observations=trajectories[..., size:],
        actions=trajectories[..., :size],
        dynamics_error=np.asarray(out.dynamics_error[0])[order],
        path=np.asarray(out.path[:, 0, order[0], :rows, size:]),
        expected_return=ordered(out.expected_return),
        value=ordered(out.value),
        ood_distance=ordered(out.ood_distance),
    )


_STATIC = (
    *("horizon", "candidates", "return_path", "value", "project", "value_span"),
    "init_level",
)


def _shape(run: Run, horizon: int) -> tuple[int, np.ndarray | None]:
    """Return the horizon of the program that plans, and the length of its plans.

    One program serves all horizons of a run, if its network knows lengths.
    """
    declared = declared_horizons(run.config)
    if len(declared) == 1 or not NETWORKS[run.config.network].takes_length:
        return horizon, None
    return declared[-1], np.full(1, horizon)


def _planner(run: Run) -> Callable[..., Plans]:
    if run.algorithm.plan is None:
        raise UserError(f"{run.name} does not plan; act with it by `jaxdiff evaluate`")
    return _compiled(run.algorithm.plan)


@functools.lru_cache(maxsize=8)  # programs are large, so the oldest may go
def _compiled(planner: Callable[..., Plans]) -> Callable[..., Plans]:
    return jax.jit(planner, static_argnames=_STATIC)


def ranking(plans: Plans, acting: Any) -> np.ndarray:
    """Rank the candidates of the first problem: indices `[C]`, see `RankedPlans`.

    Args:
      plans: of a planner.
      acting: option `rank` of the planner.
    """
    by_cost = np.asarray(cost(plans, acting.rank)[0])
    if plans.value is None:
        return np.argsort(by_cost)
    value = np.asarray(plans.value[0])
    ood_distance = np.ones(len(value))
    if plans.ood_distance is not None:
        ood_distance = np.maximum(plans.ood_distance[0], 1.0)
    # A value leads nearly all plans somewhat away from the data; the least away first.
    return np.lexsort((by_cost, ood_distance, value < value.max() - ABOUT_AS_GOOD))


def _check_known(known: Clamp | None, horizon: int, dim: int) -> None:
    if known is None:
        return
    for what, array in (("values", known.values), ("mask", known.mask)):
        if np.shape(array) != (horizon, dim):
            raise UserError(
                f"the {what} of `known` have shape {list(np.shape(array))}; give one "
                f"entry for each of a plan, [{horizon}, {dim}]"
            )


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
    size = run.spec.action_dim
    dim = size + run.spec.observation_dim
    steps = run.acting.sampling_steps or run.config.diffusion_steps
    if first.shape != second.shape or first.ndim != 2 or first.shape[1] != dim:
        raise UserError(
            f"plans of shapes {list(first.shape)} and {list(second.shape)} cannot be "
            f"mixed; give two of one shape [H, {dim}]"
        )
    if not 1 <= level <= steps:
        raise UserError(
            f"`level` is {level}, and the sampler has {steps} steps; choose 1 to "
            f"{steps}"
        )
    share = np.asarray(weights, np.float32)[:, None, None]
    # Noise that both share makes mixing before it the same as mixing after it.
    mixed = (1 - share) * first + share * second
    goals = size + goal_entries(run.spec, run.config.goal_dim)
    problem = Problem(
        history=mixed[:, :1, size:],
        goal=mixed[:, -1, goals] if len(goals) else None,
        init=mixed,
    )
    with compiling(f"mixtures of plans of {len(first)} steps"):
        out = planner(
            run.states,
            jax.numpy.repeat(jax.random.key(seed)[None], len(mixed)),
            problem,
            horizon=len(first) + run.config.history - 1,
            candidates=1,
            init_level=level,
        )
    return np.asarray(out.trajectories[:, 0])


def _checked(run: Run, start: Any, goal: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Check a start and a goal, and give them as arrays."""
    start = np.asarray(start, np.float32)
    size = run.spec.observation_dim
    if start.shape != (size,) or not np.isfinite(start).all():
        raise UserError(
            f"the start {start.tolist()} is not an observation of {run.path}; give "
            f"{size} finite numbers"
        )
    _warn_of_range(run, start)
    if goal is None:
        return start, None
    goal = np.asarray(goal, np.float32)
    most = run.config.goal_dim
    least = min(most, run.spec.goal_dim or most)
    if getattr(run.config, "condition", None) == "goal":
        least = most = run.spec.goal_dim
    if most == 0:
        raise UserError(
            f"{run.path} plans without goals (its `goal_dim` is 0); leave the goal out"
        )
    # Entries that are not given are zero.
    fits = goal.ndim == 1 and least <= len(goal) <= most
    if not fits or not np.isfinite(goal).all():
        count = f"{most}" if least == most else f"{least} to {most}"
        raise UserError(
            f"the goal {goal.tolist()} is none that {run.path} can plan for; give the "
            f"first {count} entries of a goal, all finite"
        )
    return start, goal


def _warn_of_range(run: Run, start: np.ndarray) -> None:
    """Note in which dimensions a start lies outside the data."""
    if run.config.normalizer == "gaussian":  # which knows no range
        return
    knots = np.asarray(run.statistics.normalizer.knots)[:, run.spec.action_dim :]
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
    fields = {k: v for k, v in dataclasses.asdict(plans).items() if v is not None}
    with writing(path, "name another file with `out`"):
        write_whole(Path(path).resolve(), lambda file: np.savez(file, **fields))
