"""From plans to actions: which plan is chosen, when it is renewed, how it is followed.

A plan of fixed horizon arrives at its last step, however near the goal is. So there are
two ways to choose one:

- `choose="fixed"`: plan for the declared horizon; when planning anew on the way, for
  the shortest horizon that covers the steps remaining, or arrival would be put off
  for ever (without a goal there is no arrival, and the horizon stays what it is);
- `choose="earliest"`: make plans of every horizon at once and take the shortest that
  is feasible, that is, leads nowhere that the data never were (see
  `jaxdiff.algorithms.planning.support`) and is about as consistent with the dynamics (see
  `jaxdiff.algorithms.planning.dynamics`) as the plan of the longest horizon, which leaves most
  time. When planning anew, a plan that would arrive later than the one being followed
  is dropped.

Whoever strays from a plan by more than `lost`, pushing against a wall for instance that
the plan cuts through, is given a new one, as at the start of an episode.

With `warm_start` a plan that is renewed on the way begins from what is left of the old
one (Janner et al., 2022, section 5.4): the rows to come, the last of them repeated.

Row k of a plan is the state k steps on. Following it, with position p and velocity v,

(1) action = clip(kp (p[k+1] - p) + kd (v[k+1] - v), -1, 1)

tracks the planned states; after its last row the target stands still there. Diffuser
(Janner et al., 2022, arXiv:2205.09991) has unit gains. In PointMaze one step changes
the velocity by (100 N / 4.2 kg) 0.01 s = 0.238 m/s per unit of action, so kd = 4.2
cancels a velocity error in one step.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.algorithms.base import ActOutput
from jaxdiff.errors import UserError
from jaxdiff.pytree import pytree_dataclass


@pytree_dataclass
class Plans:
    """Candidate plans.

    Attributes:
      trajectories: `[B, C, H, A + O]`, environment units.
      dynamics_error: `[B, C]`, see `jaxdiff.algorithms.planning.dynamics`; smaller is better.
      expected_return: `[B, C]`, what a model of returns expects, or None without one.
      value: `[B, C]`, of the value that the plans climbed, or None without one.
      ood_distance: `[B, C]`, see `jaxdiff.algorithms.planning.support`; above 1 a plan leads where
        the data never were. None where nobody looked.
      path: `[S + 1, B, C, H, A + O]`, the plans at every noise level, or None.
    """

    trajectories: jax.Array
    dynamics_error: jax.Array
    expected_return: jax.Array | None = None
    value: jax.Array | None = None
    ood_distance: jax.Array | None = None
    path: jax.Array | None = None


def strain(plans: Plans) -> jax.Array:
    """How far plans are from what can be driven, `[B, C]`.

    That is their dynamics_error, and a thousand times more for a plan that leads where
    the data never were, the farther the more.
    """
    if plans.ood_distance is None:
        return plans.dynamics_error
    away = 1e3 * plans.ood_distance
    return plans.dynamics_error * jnp.where(plans.ood_distance > 1, away, 1.0)


def cost(plans: Plans, rank: str) -> jax.Array:
    """What candidates are ranked by, `[B, C]`, the smallest first.

    Args:
      plans: the candidates.
      rank: "consistency", or "return" for the expected return, largest first.
    """
    if rank == "consistency":
        return strain(plans)
    assert plans.expected_return is not None
    return -plans.expected_return


@pytree_dataclass
class Carry:
    """What acting remembers.

    Attributes:
      plan: `[B, max(horizons), A + O]`, environment units, its last row repeated.
      last: `[B]`, row at which the plan ends.
      index: `[B]`, row of the plan that the present observation corresponds to.
      remaining: `[B]`, steps left until the arrival: with `choose="fixed"` that of the
        first plan, whatever plans come later, and with "earliest" that of the plan
        being followed. Without a goal it does not run out.
    """

    plan: jax.Array
    last: jax.Array
    index: jax.Array
    remaining: jax.Array


def follow(
    plan: Callable[..., Plans],
    config: Any,
    horizons: Sequence[int],
    *,
    dim: int,
    action_dim: int,
) -> tuple[Callable[..., Any], Callable[[int], Carry]]:
    """Build the acting pair of a planner.

    Args:
      plan: `(states, key, observation, goal, *, horizon) -> Plans`, which for warm
        starts also takes `init [B, horizon, A + O]`, the plans to start from, and a
        `guidance` if `act` was given one.
      config: options `horizon`, `goal_dim`, `rank`, `choose`, `slack`, `replan_every`,
        `lost`, `warm_start`, `controller`, `kp` and `kd`, as in `DiffuserConfig`.
      horizons: horizons that may be planned for, in increasing order; each is compiled
        into the program of `act`.
      dim: A + O.
      action_dim: A.

    Returns:
      `act` and `init_carry` of an `Algorithm`; `act` also takes a `guidance` and hands
      it to `plan`, and a `history [B, K, O]` that `plan` gets in place of the
      observation. A plan's last action is followed by zeros.

    Raises:
      UserError: the controller is "track", and observations are not made of as many
        positions, then as many velocities, as there are actions.
    """
    if config.controller == "track" and dim - action_dim != 2 * action_dim:
        raise UserError(
            f"the controller 'track' needs {action_dim} positions and {action_dim} "
            f"velocities to observe, one each for an action, and an observation has "
            f"{dim - action_dim} numbers; choose --controller action"
        )
    rows = horizons[-1]
    every = config.replan_every
    if not config.goal_dim:
        # There is no arrival to wait for, and nothing to do when a plan is at its end.
        every = min(every, config.horizon) or config.horizon
    choose = _earliest if config.choose == "earliest" else _fitting

    def init_carry(batch: int) -> Carry:
        return Carry(
            plan=jnp.zeros((batch, rows, dim)),
            last=jnp.zeros(batch, jnp.int32),
            index=jnp.zeros(batch, jnp.int32),
            remaining=jnp.zeros(batch, jnp.int32),
        )

    def best_plan(states, key, seen, goal, given, horizon, *, warm=None):
        """Make the best plan `[B, rows, D]`, padded, and tell its strain `[B]`."""
        key = jax.random.fold_in(key, horizon)
        if warm is not None:
            given = {**given, "init": warm[:, :horizon]}
        plans = plan(states, key, seen, goal, horizon=horizon, **given)
        best = jnp.argmin(cost(plans, config.rank), axis=1)
        pick = jax.vmap(lambda candidates, i: candidates[i])
        missing = ((0, 0), (0, rows - horizon), (0, 0))
        padded = jnp.pad(pick(plans.trajectories, best), missing, mode="edge")
        return padded, pick(strain(plans), best)

    def act(
        states,
        carry,
        key,
        observation,
        reset,
        goal=None,
        *,
        guidance=None,
        history=None,
    ):
        seen = observation if history is None else history
        given = {} if guidance is None else {"guidance": guidance}
        if config.lost:
            reset |= _distance(carry, observation, action_dim) > config.lost
        remaining = jnp.where(reset, config.horizon - 1, carry.remaining)
        wanted = reset
        if every:
            # Near the arrival the last plan is followed to its end; planning anew
            # would put the arrival off for ever. A plan that outlives its renewal is
            # due again as many steps later.
            due = carry.index % every == 0
            wanted |= due & (remaining > 0)

        def solve(key, problem):
            seen, goal, wanted, reset, remaining, index, *plans = problem
            cold = functools.partial(best_plan, states, key, seen, goal, given)
            renew = functools.partial(choose, horizons=horizons, slack=config.slack)
            if not config.warm_start:
                return renew(cold, wanted, remaining, *plans)
            # An episode that begins has nothing to go on from. Both ways to plan stand
            # behind `cond`: where nobody begins, only the warm plans are made.
            warm = functools.partial(cold, warm=_shifted(index, *plans))
            plans = jax.lax.cond(
                jnp.any(reset),
                lambda: renew(cold, reset, remaining, *plans),
                lambda: tuple(plans),
            )
            return renew(warm, wanted & ~reset, remaining, *plans)

        followed = carry.plan, carry.last
        problem = seen, goal, wanted, reset, remaining, carry.index, *followed
        trajectory, last = jax.lax.cond(
            jnp.any(wanted),
            lambda: _in_turns(solve, key, problem),
            lambda: followed,
        )
        adopted = wanted
        if config.choose == "earliest":
            # A new plan may bring the arrival forward and never puts it off.
            adopted &= reset | (last <= remaining)
            trajectory = jnp.where(adopted[:, None, None], trajectory, carry.plan)
            last = jnp.where(adopted, last, carry.last)
            remaining = jnp.where(adopted, last, remaining)
        index = jnp.where(adopted, 0, carry.index)
        action = control(config, trajectory, last, index, observation, action_dim)
        carry = Carry(
            plan=trajectory,
            last=last,
            index=index + 1,
            remaining=remaining - 1 if config.goal_dim else remaining,
        )
        return ActOutput(action=action, plan=trajectory, planned=adopted), carry

    return act, init_carry


def _in_turns(
    solve: Callable[..., tuple[jax.Array, jax.Array]],
    key: jax.Array,
    problems: tuple[Any, ...],
) -> tuple[jax.Array, jax.Array]:
    """Solve all problems at once, or on a CPU two at a time.

    There a batch is hardly faster than its parts, and the parts that want no plan, or
    found one early, cost nothing. The two lie in different halves of the batch, which
    is how it is split over two devices.

    Args:
      solve: `(key, problems) -> arrays`, all with a leading axis of problems.
      key: of the noise.
      problems: leaves `[B, ...]`.
    """
    batch = len(problems[0])
    if jax.default_backend() != "cpu" or batch < 2 or batch % 2:
        return solve(key, problems)
    turns = jax.tree.map(
        lambda x: jnp.swapaxes(x.reshape(2, batch // 2, *x.shape[1:]), 0, 1), problems
    )
    keys = jax.random.split(key, batch // 2)
    solved = jax.lax.map(lambda turn: solve(*turn), (keys, turns))
    return jax.tree.map(
        lambda x: jnp.swapaxes(x, 0, 1).reshape(batch, *x.shape[2:]), solved
    )


def _shifted(index: jax.Array, plan: jax.Array, last: jax.Array) -> jax.Array:
    """Begin plans `[B, rows, D]` at row `index [B]`, row `last [B]` repeated."""
    ahead = index[:, None] + jnp.arange(plan.shape[1])
    rows = jnp.minimum(ahead, last[:, None])
    return jnp.take_along_axis(plan, rows[:, :, None], axis=1)


def _distance(carry: Carry, observation: jax.Array, action_dim: int) -> jax.Array:
    """How far each position is from where its plan wants it now, `[B]`."""
    row = jnp.minimum(carry.index, carry.last)
    planned = jax.vmap(lambda rows, i: rows[i])(carry.plan, row)
    offset = planned[:, action_dim : 2 * action_dim] - observation[:, :action_dim]
    return jnp.linalg.norm(offset, axis=-1)


# Two ways to choose. `best_plan(horizon)` gives trajectories `[B, rows, D]` and their
# strain `[B]`; `wanted [B]` says who needs a plan; `trajectory` and `last` are
# the plans followed so far and their last rows. Planning stands behind `cond`: a step
# without it is fast.


def _fitting(best_plan, wanted, remaining, trajectory, last, *, horizons, slack):
    """Plan with the shortest horizon that covers the steps that remain."""
    del slack
    fitting = jnp.searchsorted(jnp.asarray(horizons), remaining + 1)
    fitting = jnp.minimum(fitting, len(horizons) - 1)
    for i, horizon in enumerate(horizons):
        chosen = wanted & (fitting == i)
        new = jax.lax.cond(
            jnp.any(chosen),
            lambda horizon=horizon: best_plan(horizon)[0],
            lambda kept=trajectory: kept,
        )
        trajectory = jnp.where(chosen[:, None, None], new, trajectory)
        last = jnp.where(chosen, horizon - 1, last)
    return trajectory, last


def _earliest(best_plan, wanted, remaining, trajectory, last, *, horizons, slack):
    """Plan with the shortest horizon whose plan is feasible.

    The longest horizon leaves most time. How consistent the model is there is what can
    be asked of it at the others: feasible is a plan within `slack` times that.
    """
    del remaining
    nothing = (trajectory, jnp.full(wanted.shape, jnp.inf))
    new, reference = jax.lax.cond(
        jnp.any(wanted), lambda: best_plan(horizons[-1]), lambda: nothing
    )
    trajectory = jnp.where(wanted[:, None, None], new, trajectory)
    last = jnp.where(wanted, horizons[-1] - 1, last)
    searching = wanted
    for horizon in horizons[:-1]:
        new, strain = jax.lax.cond(
            jnp.any(searching),
            lambda horizon=horizon: best_plan(horizon),
            lambda: nothing,
        )
        feasible = searching & (strain <= slack * reference)
        trajectory = jnp.where(feasible[:, None, None], new, trajectory)
        last = jnp.where(feasible, horizon - 1, last)
        searching &= ~feasible
    return trajectory, last


def control(
    config: Any,
    trajectory: jax.Array,
    last: jax.Array,
    index: jax.Array,
    observation: jax.Array,
    action_dim: int,
) -> jax.Array:
    """Turn row `index` of the plans into actions `[B, A]`, equation (1)."""
    at = jax.vmap(lambda rows, i: rows[i])
    if config.controller == "action":
        action = at(trajectory, jnp.minimum(index, last))[:, :action_dim]
        return jnp.where((index > last)[:, None], 0.0, action)
    target = at(trajectory, jnp.minimum(index + 1, last))[:, action_dim:]
    position, velocity = jnp.split(target, 2, axis=-1)
    # The plan ends where the goal is; from then on the goal is to stay there.
    velocity = jnp.where((index >= last)[:, None], 0.0, velocity)
    here, speed = jnp.split(observation, 2, axis=-1)
    action = config.kp * (position - here) + config.kd * (velocity - speed)
    return jnp.clip(action, -1.0, 1.0)
