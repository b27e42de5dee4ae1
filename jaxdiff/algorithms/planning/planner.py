"""From problems to plans: one planner for every network.

A plan is a sample of the learned distribution of trajectories whose known entries are
clamped: the history up to the present state, the goal, and whatever else is known. The
algorithms say how a network predicts and, where actions are not diffused, how the
action between two states is found. More can be asked of a plan than was trained:

- a `value` of trajectories is climbed by every estimate, and a `project` is applied to
  every estimate and to the plan. Both are functions of (trajectories, arrays). The
  arrays travel in the `Problem`, so that other arrays compile nothing if the functions
  are the same objects, as those of a module are;
- a plan may start from another trajectory, noised (Janner et al., 2022, section 5.4),
  in place of pure noise.

All noise of a problem comes from its own key, whatever stands beside it in the batch.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.algorithms.planning.denoiser import noise_levels
from jaxdiff.algorithms.planning.dynamics import dynamics_error
from jaxdiff.algorithms.planning.options import PlannerActing, PlannerConfig
from jaxdiff.algorithms.planning.support import ood_distance
from jaxdiff.algorithms.planning.trajectories import (
    Statistics,
    goal_entries,
    known_mask,
)
from jaxdiff.data.normalizer import normalize, unnormalize
from jaxdiff.data.spec import Spec
from jaxdiff.diffusion import (
    SAMPLERS,
    Clamp,
    add_noise,
    climb,
    denoiser,
    normal,
    repeat_keys,
    sample,
    smooth_covariance,
    split_keys,
    subgrid,
    take,
)
from jaxdiff.diffusion.sampler import Guide
from jaxdiff.pytree import pytree_dataclass

Task: TypeAlias = Callable[[jax.Array, Any], jax.Array]


@pytree_dataclass
class Problem:
    """What plans are made for: B problems, in environment units, arrays only.

    "Rows of a plan" are H - K + 1, for windows of H steps that begin with a history of
    K. Fields that are None ask for nothing.

    Attributes:
      history: `[B, K, O]`, the states seen last, the oldest first. Of fewer than K the
        first is repeated, as at the beginning of an episode.
      goal: `[B, G]`, the first G entries of the goal; others that plans are clamped to
        are zero.
      known: further entries of plans, `[rows, A + O]` or `[B, rows, A + O]`. The
        present state and the goal come first.
      value_args: arrays that `value` is given, for all problems alike.
      value_scale: `[]`, what the gradient of `value` is multiplied by, by default 1,
        which reads it as a log-probability.
      project_args: arrays that `project` is given, for all problems alike.
      guidance: takes the place of acting options: a `Guidance` of Diffuser, or
        `Conditions` of Decision Diffuser.
      init: `[B, rows, A + O]`, trajectories to start from in place of pure noise.
    """

    history: Any
    goal: Any = None
    known: Clamp | None = None
    value_args: Any = None
    value_scale: Any = None
    project_args: Any = None
    guidance: Any = None
    init: Any = None


@pytree_dataclass
class Plans:
    """Candidate plans, from the present state on.

    Attributes:
      trajectories: `[B, C, rows, A + O]`, environment units.
      dynamics_error: `[B, C]`, of `trajectories`, normalised again; smaller is better,
        see `jaxdiff.algorithms.planning.dynamics`.
      expected_return: `[B, C]`, by a model of returns, or None without one. It reads
        the windows that the last denoising step gave, normalised, at the least noise.
      value: `[B, C]`, of the value that the plans climbed, or None without one; of
        `trajectories` in environment units.
      ood_distance: `[B, C]`, above 1 where a plan leads where the data never were; see
        `jaxdiff.algorithms.planning.support`. None without goals.
      path: `[S + 1, B, C, rows, A + O]`, the plans at every noise level, or None.
    """

    trajectories: jax.Array
    dynamics_error: jax.Array
    expected_return: jax.Array | None = None
    value: jax.Array | None = None
    ood_distance: jax.Array | None = None
    path: jax.Array | None = None


class Pieces(NamedTuple):
    """What an algorithm gives the planner. N is B times the candidates.

    Attributes:
      predict: `(states, problem of N, length [N] or None) -> network`, `(x_t [N, H,
        D'], time [N]) -> output`, of which the first `length` rows count.
      diffused: the entries of a row that the network denoises, D'.
      guide: `(states, problem, horizon) -> Guide` or None.
      guide_options: `guide_at` and `guide_steps` of `sample`.
      expected_return: `(states, x [N, H, D]) -> [N]` of normalised trajectories.
      actions: `(states, keys [N], before [N, O], after [N, O]) -> [N, A]`, the action
        between two states, where actions are not diffused.
    """

    predict: Callable[..., Any]
    diffused: slice = slice(None)
    guide: Callable[..., Guide | None] = lambda states, problem, horizon: None
    guide_options: Mapping[str, Any] = {}
    expected_return: Callable[..., jax.Array] | None = None
    actions: Callable[..., jax.Array] | None = None


def planner(
    config: PlannerConfig,
    acting: PlannerActing,
    statistics: Statistics,
    spec: Spec,
    pieces: Pieces,
) -> Callable[..., Plans]:
    """Build `plan` of an `Algorithm`.

    Returns:
      `plan(states, keys [B], problem, *, horizon=None, length=None, candidates=None,
      return_path=False, value=None, project=None, value_span=None, init_level=None) ->
      Plans`. All keywords but `length` are static under jit.

      `horizon` is that of the window, by default the option. With `length` [B], an
      array, windows end after so many rows of it, as if `horizon` were that short, and
      one program serves all lengths. Rows beyond repeat the last; those of the `path`
      hold anything. `value` and `project` see all rows, so they need plans without a
      `length`.

      `value(trajectories [N, rows, A + O], value_args) -> [N]` and
      `project(trajectories, project_args)` are in environment units. A pull of `value`
      on a row spreads over `value_span` rows, by default a fifth of the horizon; see
      `climb` and `smooth_covariance`. From `init` plans are noised so that `init_level`
      of the sampler's steps remain, by default `warm_start`, or all.
    """
    normalizer, size = statistics.normalizer, spec.action_dim
    diffused, past = pieces.diffused, config.history - 1
    dim = size + spec.observation_dim
    walked = noise_levels(config)
    if acting.sampling_steps is not None:
        walked = subgrid(walked, acting.sampling_steps, spacing=acting.spacing)
    supported = size + goal_entries(spec, statistics.support.states.shape[-1])
    tabulate = SAMPLERS[acting.sampler]
    first_noise = acting.init_temperature
    first_noise = acting.temperature if first_noise is None else first_noise

    def whole(x):
        """Fill in actions of zero, in data units, where none are diffused."""
        missing = dim - x.shape[-1]
        if not missing:
            return unnormalize(normalizer, x)
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(missing, 0)])
        return unnormalize(normalizer, x).at[..., :missing].set(0.0)

    def projected(project, args):
        """Apply a projection to normalised windows, where it changes anything."""

        def apply(x):
            rows = whole(x)
            moved = rows.at[:, past:].set(project(rows[:, past:], args))
            back = normalize(normalizer, moved)[..., diffused]
            return jnp.where((moved == rows)[..., diffused], x, back)

        return apply

    def climbing(denoise, value, problem, horizon, span):
        scale = 1.0 if problem.value_scale is None else problem.value_scale
        return climb(
            denoise,
            lambda x: value(whole(x)[:, past:], problem.value_args),
            scale=scale,
            covariance=smooth_covariance(
                horizon, horizon / 5 if span is None else span
            ),
        )

    def warm_start(keys, init, shape, level):
        """Noise `init` to a level; return where to start and the steps from there."""
        count = level or acting.warm_start or len(walked.alpha) - 1
        # What came before the plan is clamped, whatever stands there.
        rows = jnp.pad(init, ((0, 0), (past, 0), (0, 0)), mode="edge")
        clean = normalize(normalizer, rows)[..., diffused]
        noise = first_noise * normal(keys, shape)
        start = jnp.asarray(add_noise(clean, noise, take(walked, count)))
        return start, tabulate(take(walked, np.arange(count + 1)))

    def plan(
        states: Mapping[str, Any],
        keys: jax.Array,
        problem: Problem,
        *,
        horizon: int | None = None,
        length: jax.Array | None = None,
        candidates: int | None = None,
        return_path: bool = False,
        value: Task | None = None,
        project: Task | None = None,
        value_span: float | None = None,
        init_level: int | None = None,
    ) -> Plans:
        horizon = config.horizon if horizon is None else horizon
        candidates = acting.candidates if candidates is None else candidates
        batch = len(problem.history)
        ends = None if length is None else jnp.repeat(length, candidates)
        rows = None if ends is None else ends - past
        one = _for_candidates(problem, config.history, candidates)
        init_keys, keys, action_keys = split_keys(repeat_keys(keys, candidates), 3)
        known = _known(config, spec, one, horizon, ends)
        shape = (batch * candidates, horizon, len(range(dim)[diffused]))
        denoise = denoiser(
            pieces.predict(states, one, ends),
            prediction=config.prediction,
            clip=config.clip,
        )
        if value is not None:
            denoise = climbing(denoise, value, one, horizon, value_span)
        start, steps = None, tabulate(walked)
        if one.init is not None:
            start, steps = warm_start(init_keys, one.init, shape, init_level)
        out = sample(
            keys,
            denoise,
            steps,
            shape,
            guide=pieces.guide(states, problem, horizon),
            **pieces.guide_options,
            clamp=Clamp(
                values=normalize(normalizer, known.values)[..., diffused],
                mask=known.mask[..., diffused],
            ),
            project=project and projected(project, problem.project_args),
            init=start,
            temperature=acting.temperature,
            init_temperature=first_noise,
            return_path=return_path,
        )
        trajectories = whole(out.x)[:, past:]
        if project is not None:
            # Data units are held within the data's bounds, perhaps back into a region.
            trajectories = project(trajectories, problem.project_args)
        # What is known stays as it was given, also beyond the bounds of the data.
        trajectories = jnp.where(
            known.mask[..., past:, :], known.values[:, past:], trajectories
        )
        trajectories = _ended(trajectories, rows)
        if pieces.actions is not None:
            actions = _actions_between(pieces.actions, states, action_keys)
            found = actions(trajectories[..., size:])
            trajectories = _ended(trajectories.at[..., :size].set(found), rows)

        def by_problem(x):
            return x.reshape(batch, candidates, *x.shape[1:])

        x = normalize(normalizer, trajectories)
        expected = worth = away = path = None
        if pieces.expected_return is not None:
            expected = by_problem(pieces.expected_return(states, out.x))
        if value is not None:
            worth = by_problem(value(trajectories, problem.value_args))
        if len(supported):
            # Where there are no goals, there is nowhere to lead away.
            away = by_problem(ood_distance(statistics.support, x[..., supported]))
        if out.path is not None:
            path = jax.vmap(by_problem)(whole(out.path)[..., past:, :])
        return Plans(
            trajectories=by_problem(trajectories),
            dynamics_error=by_problem(dynamics_error(statistics.dynamics, x, rows)),
            expected_return=expected,
            value=worth,
            ood_distance=away,
            path=path,
        )

    return plan


def _for_candidates(problem: Problem, history: int, candidates: int) -> Problem:
    """Repeat what is each problem's own for all of its candidates: B becomes N."""
    seen = jnp.asarray(problem.history)
    missing = ((0, 0), (history - seen.shape[1], 0), (0, 0))
    known = problem.known
    if known is not None:
        shape = (len(seen), *np.shape(known.values)[-2:])
        known = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, shape), known)
    own = {
        "history": jnp.pad(seen, missing, mode="edge"),
        "goal": problem.goal,
        "known": known,
        "init": problem.init,
    }
    own = jax.tree.map(lambda leaf: jnp.repeat(leaf, candidates, axis=0), own)
    return dataclasses.replace(problem, **own)


def _known(
    config: PlannerConfig,
    spec: Spec,
    problem: Problem,
    horizon: int,
    length: jax.Array | None,
) -> Clamp:
    """Collect what is known of windows `[N, H, A + O]`, in environment units."""
    size, past = spec.action_dim, config.history - 1
    given = problem.goal is not None
    mask = known_mask(config, spec, horizon, goal=given, length=length)
    values = jnp.zeros((len(problem.history), *mask.shape[-2:]))
    if problem.goal is not None:
        # In every row, because the mask says which row is the last.
        entries = size + goal_entries(spec, config.goal_dim)[: problem.goal.shape[-1]]
        values = values.at[:, :, entries].set(problem.goal[:, None, : len(entries)])
    values = values.at[:, : past + 1, size:].set(problem.history)
    if problem.known is not None:
        rows = ((0, 0), (past, 0), (0, 0))
        values = jnp.where(mask, values, jnp.pad(problem.known.values, rows))
        mask = mask | jnp.pad(problem.known.mask, rows)
    return Clamp(values=values, mask=mask)


def _ended(x: jax.Array, length: jax.Array | None) -> jax.Array:
    """Repeat row `length [N]` - 1 of trajectories `[N, rows, D]` in all after it."""
    if length is None:
        return x
    rows = jnp.minimum(jnp.arange(x.shape[1]), length[:, None] - 1)
    return jnp.take_along_axis(x, rows[:, :, None], axis=1)


def _actions_between(
    actions: Callable[..., jax.Array], states: Mapping[str, Any], keys: jax.Array
) -> Callable[[jax.Array], jax.Array]:
    """Build `[N, rows, O] -> [N, rows, A]`; the last action would stay in its state."""

    def between(here: jax.Array) -> jax.Array:
        rows = here.shape[1]
        after = jnp.concatenate([here[:, 1:], here[:, -1:]], axis=1)
        each = (x.reshape(-1, x.shape[-1]) for x in (here, after))
        found = actions(states, repeat_keys(keys, rows), *each)
        return found.reshape(-1, rows, found.shape[-1])

    return between


def strain(plans: Plans) -> jax.Array:
    """Compute how far plans are from what can be followed, `[B, C]`.

    That is their dynamics error, times 1,000 and the out-of-distribution distance where
    a plan leads where the data never were.
    """
    if plans.ood_distance is None:
        return plans.dynamics_error
    away = 1e3 * plans.ood_distance
    return plans.dynamics_error * jnp.where(plans.ood_distance > 1, away, 1.0)


def cost(plans: Plans, rank: str) -> jax.Array:
    """Compute what candidates are ranked by, `[B, C]`, the smallest first.

    Both ranks are those of finished plans. The released code of Diffuser ranks by the
    value of x_t before the last denoising step.

    Args:
      plans: the candidates.
      rank: "consistency", or "return" for the expected return, largest first.
    """
    if rank == "consistency":
        return strain(plans)
    assert plans.expected_return is not None
    return -plans.expected_return
