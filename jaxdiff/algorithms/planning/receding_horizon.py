"""From plans to actions: which plan is chosen, when it is renewed, how it is followed.

A plan of fixed horizon arrives at its last step, however near the goal is. There are
two ways to choose a horizon:

- `choose="fixed"`: plan for the declared horizon. When planning anew on the way, take
  the shortest horizon that covers the steps that remain; otherwise arrival would be put
  off for ever. Without a goal there is no arrival, and the horizon stays what it is.
- `choose="earliest"`: make plans of every horizon and take the shortest that is
  feasible: it leads nowhere that the data never were
  (`jaxdiff.algorithms.planning.support`), and is about as consistent with the dynamics
  (`jaxdiff.algorithms.planning.dynamics`) as the plan of the longest horizon, which
  leaves most time. When planning anew, a plan that would arrive later than the one
  being followed is dropped.

Plans of several horizons share compiled programs, in arrays of a shape that is longer
than some of them (`jaxdiff.networks.lengths`).

An environment that strays from its plan by more than `lost`, pushing against a wall for
instance that the plan cuts through, is given a new plan, as at the start of an episode.

With `warm_start` a plan that is renewed begins from the rest of the old one (Janner et
al., 2022, section 5.4): the rows to come, the last of them repeated.

Row k of a plan is the state k steps on. The tracking controller, with position p and
velocity v,

(1) action = clip(kp (p[k+1] - p) + kd (v[k+1] - v), -1, 1)

follows the planned states; after its last row the target stands still there. Diffuser
(Janner et al., 2022, arXiv:2205.09991) has unit gains. Where one unit of action changes
the velocity by g in a step, kd = 1/g cancels a velocity error in one step.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.algorithms.base import ActOutput
from jaxdiff.algorithms.planning.options import (
    PlannerActing,
    PlannerConfig,
    acting_horizons,
)
from jaxdiff.algorithms.planning.planner import Plans, Problem, cost, strain
from jaxdiff.algorithms.planning.trajectories import take_rows
from jaxdiff.data.spec import Spec
from jaxdiff.diffusion import split_keys
from jaxdiff.pytree import pytree_dataclass


class Acting(NamedTuple):
    """How a planner acts: `act`, `init_carry` and `follow` of an `Algorithm`."""

    act: Callable[..., tuple[ActOutput, Any]]
    init_carry: Callable[[int], Any]
    follow: Callable[..., tuple[ActOutput, Any, jax.Array]]


@pytree_dataclass
class Carry:
    """What acting remembers.

    Attributes:
      seen: `[B, K, O]`, the history, the oldest first.
      plan: `[B, max(rows), A + O]`, environment units, its last row repeated.
      last: `[B]`, row at which the plan ends.
      index: `[B]`, row of the plan that the present observation corresponds to.
      remaining: `[B]`, steps left until the arrival: with `choose="fixed"` that of the
        first plan, whatever plans come later, and with "earliest" that of the plan
        being followed. Without a goal it does not run out.
    """

    seen: jax.Array
    plan: jax.Array
    last: jax.Array
    index: jax.Array
    remaining: jax.Array


def receding_horizon(
    plan: Callable[..., Plans],
    config: PlannerConfig,
    acting: PlannerActing,
    spec: Spec,
    *,
    action_to: Callable[..., jax.Array] | None = None,
    takes_length: bool = False,
) -> Acting:
    """Build how a planner acts.

    Args:
      plan: `(states, keys, problem, *, horizon, length) -> Plans`, see
        `jaxdiff.algorithms.planning.planner`.
      config: options of training.
      acting: options of acting.
      spec: of the data.
      action_to: `(states, keys [B], observation [B, O], target [B, O]) -> [B, A]`, the
        action that leads from what is observed to the next planned state, for the
        controller "action"; None executes the actions of the plan.
      takes_length: whether `plan` may be given a `length`, so that several horizons
        share a program.

    Returns:
      Functions of an `Algorithm`. A plan's last action is followed by zeros.
    """
    past, size = config.history - 1, spec.action_dim
    horizons = [horizon - past for horizon in acting_horizons(config, acting)]
    own, rows = config.horizon - past, horizons[-1]
    every = acting.replan_every
    if not config.goal_dim:
        # There is no arrival to wait for, and nothing to do when a plan is at its end.
        every = min(every, own) or own
    shapes = _shapes(horizons) if takes_length else horizons
    choose = _earliest if acting.choose == "earliest" else _fitting
    renew = functools.partial(
        choose, horizons=horizons, shapes=shapes, slack=acting.slack
    )

    def init_carry(batch: int) -> Carry:
        dim = size + spec.observation_dim
        return Carry(
            seen=jnp.zeros((batch, config.history, spec.observation_dim)),
            plan=jnp.zeros((batch, rows, dim)),
            last=jnp.zeros(batch, jnp.int32),
            index=jnp.zeros(batch, jnp.int32),
            remaining=jnp.zeros(batch, jnp.int32),
        )

    def best_plan(states, keys, problem, shape, horizon, *, warm=None):
        """Make the best plan `[B, rows, D]`, padded, and compute its strain `[B]`.

        Plans are of `horizon [B]` rows, and they are made in arrays of `shape` rows.
        """
        keys = jax.vmap(jax.random.fold_in)(keys, horizon)
        if warm is not None:
            problem = dataclasses.replace(problem, init=warm[:, :shape])
        length = {"length": horizon + past} if shapes.count(shape) > 1 else {}
        plans = plan(states, keys, problem, horizon=shape + past, **length)
        best = jnp.argmin(cost(plans, acting.rank), axis=1)
        missing = ((0, 0), (0, rows - shape), (0, 0))
        best_rows = take_rows(plans.trajectories, best)
        return jnp.pad(best_rows, missing, mode="edge"), take_rows(strain(plans), best)

    def due(carry, observation, reset):
        """Tell whose plan is renewed: because it was lost, or for any reason."""
        if acting.lost:
            reset = reset | (_distance(carry, observation, spec) > acting.lost)
        remaining = jnp.where(reset, own - 1, carry.remaining)
        if not every:
            return reset, reset, remaining
        # Near the arrival the last plan is followed to its end; planning anew would put
        # the arrival off for ever. A plan that outlives its renewal is due again as
        # many steps later.
        return reset, reset | (carry.index % every == 0) & (remaining > 0), remaining

    def step(states, action_keys, carry, observation, planned):
        """Take one step along the plans that are followed now."""
        followed = carry.plan, carry.last, carry.index
        if acting.controller == "track":
            action = track(acting, spec, *followed, observation)
        elif action_to is not None:
            row = jnp.minimum(carry.index + 1, carry.last)
            target = take_rows(carry.plan, row)[:, size:]
            action = action_to(states, action_keys, observation, target)
        else:
            row = jnp.minimum(carry.index, carry.last)
            action = take_rows(carry.plan, row)[:, :size]
            action = jnp.where((carry.index > carry.last)[:, None], 0.0, action)
        left = carry.remaining - 1 if config.goal_dim else carry.remaining
        after = dataclasses.replace(carry, index=carry.index + 1, remaining=left)
        return ActOutput(action=action, plan=carry.plan, planned=planned), after

    def follow(states, carry, keys, observation, reset, goal=None, guidance=None):
        del goal, guidance
        seen = _remembered(carry.seen, observation, reset)
        _, wanted, _ = due(carry, observation, reset)
        _, action_keys = split_keys(keys)
        carry = dataclasses.replace(carry, seen=seen)
        output, carry = step(states, action_keys, carry, observation, wanted)
        return output, carry, ~jnp.any(wanted)

    def act(states, carry, keys, observation, reset, goal=None, guidance=None):
        seen = _remembered(carry.seen, observation, reset)
        plan_keys, action_keys = split_keys(keys)
        reset, wanted, remaining = due(carry, observation, reset)

        def solve(asked):
            keys, seen, goal, wanted, reset, remaining, index, *plans = asked
            problem = Problem(history=seen, goal=goal, guidance=guidance)
            cold = functools.partial(best_plan, states, keys, problem)
            if not acting.warm_start:
                return renew(cold, wanted, remaining, *plans)
            # An episode that begins has nothing to go on from. Both ways to plan stand
            # behind `cond`: where none begins, only the warm plans are made.
            warm = functools.partial(cold, warm=_shifted(index, *plans))
            plans = jax.lax.cond(
                jnp.any(reset),
                lambda: renew(cold, reset, remaining, *plans),
                lambda: tuple(plans),
            )
            return renew(warm, wanted & ~reset, remaining, *plans)

        followed = carry.plan, carry.last
        asked = plan_keys, seen, goal, wanted, reset, remaining, carry.index, *followed
        trajectory, last = jax.lax.cond(
            jnp.any(wanted), lambda: _in_turns(solve, asked), lambda: followed
        )
        adopted = wanted
        if acting.choose == "earliest":
            # A new plan may bring the arrival forward and never puts it off.
            adopted &= reset | (last <= remaining)
            trajectory = jnp.where(adopted[:, None, None], trajectory, carry.plan)
            last = jnp.where(adopted, last, carry.last)
            remaining = jnp.where(adopted, last, remaining)
        index = jnp.where(adopted, 0, carry.index)
        carry = Carry(
            seen=seen, plan=trajectory, last=last, index=index, remaining=remaining
        )
        return step(states, action_keys, carry, observation, adopted)

    return Acting(act, init_carry, follow)


def track(
    acting: PlannerActing,
    spec: Spec,
    trajectory: jax.Array,
    last: jax.Array,
    index: jax.Array,
    observation: jax.Array,
) -> jax.Array:
    """Track the states of plans, equation (1).

    Args:
      acting: options `kp` and `kd`.
      spec: says which entries are positions and velocities.
      trajectory: `[B, rows, A + O]`, the plans.
      last: `[B]`, rows at which they end.
      index: `[B]`, rows that the observations correspond to.
      observation: `[B, O]`.

    Returns:
      Actions `[B, A]`.
    """
    place, speed = (np.array(e) for e in (spec.layout.position, spec.layout.velocity))
    target = take_rows(trajectory, jnp.minimum(index + 1, last))[:, spec.action_dim :]
    # The plan ends where the goal is; from then on the goal is to stay there.
    velocity = jnp.where((index >= last)[:, None], 0.0, target[:, speed])
    action = acting.kp * (target[:, place] - observation[:, place])
    action += acting.kd * (velocity - observation[:, speed])
    return jnp.clip(action, -1.0, 1.0)


def _remembered(seen: jax.Array, observation: jax.Array, reset: jax.Array) -> jax.Array:
    """Let an observation `[B, O]` join histories `[B, K, O]`, or begin new ones."""
    longer = jnp.concatenate([seen[:, 1:], observation[:, None]], axis=1)
    return jnp.where(reset[:, None, None], observation[:, None], longer)


def _in_turns(
    solve: Callable[..., tuple[jax.Array, jax.Array]], problems: tuple[Any, ...]
) -> tuple[jax.Array, jax.Array]:
    """Solve all problems at once, or on a CPU two at a time.

    There a batch is hardly faster than its parts, and the parts that want no plan, or
    found one early, cost nothing. The two lie in different halves of the batch, which
    is how it is split over two devices.

    Args:
      solve: `problems -> arrays`, all with a leading axis of problems.
      problems: leaves `[B, ...]`.
    """
    batch = len(problems[0])
    if jax.default_backend() != "cpu" or batch < 2 or batch % 2:
        return solve(problems)
    turns = jax.tree.map(
        lambda x: jnp.swapaxes(x.reshape(2, batch // 2, *x.shape[1:]), 0, 1), problems
    )
    solved = jax.lax.map(solve, turns)
    return jax.tree.map(
        lambda x: jnp.swapaxes(x, 0, 1).reshape(batch, *x.shape[2:]), solved
    )


def _shifted(index: jax.Array, plan: jax.Array, last: jax.Array) -> jax.Array:
    """Begin plans `[B, rows, D]` at row `index [B]`, row `last [B]` repeated."""
    ahead = index[:, None] + jnp.arange(plan.shape[1])
    rows = jnp.minimum(ahead, last[:, None])
    return jnp.take_along_axis(plan, rows[:, :, None], axis=1)


def _distance(carry: Carry, observation: jax.Array, spec: Spec) -> jax.Array:
    """Compute how far each position is from where its plan wants it now, `[B]`."""
    place = np.array(spec.layout.position)
    row = jnp.minimum(carry.index, carry.last)
    planned = take_rows(carry.plan, row)[:, spec.action_dim + place]
    return jnp.linalg.norm(planned - observation[:, place], axis=-1)


def _shapes(horizons: list[int]) -> list[int]:
    """Return the rows of the arrays in which plans of these horizons are made.

    A shape takes as long to compile as a horizon of its own would, and a plan takes as
    long as its shape. So horizons up to half of the longest share the largest of them,
    and all others share the longest. With the nine horizons of the U-maze, 24 to 160, a
    problem whose plan is the earliest that arrives then computes 1.3 times the rows
    that it would with nine shapes, and 2.1 times with a single one.
    """
    longest = horizons[-1]
    half = max((each for each in horizons if 2 * each <= longest), default=longest)
    return [half if each <= half else longest for each in horizons]


# Two ways to choose. `best_plan(shape, horizon [B])` gives trajectories `[B, rows, D]`
# and their strain `[B]`; `wanted [B]` marks problems that need a plan; `trajectory` and
# `last` are the plans followed so far and their last rows; `shapes` says for each of
# the `horizons` what shape its plans are made in. Planning stands behind `cond` or in a
# loop that may end at once: a step without it is fast.


def _fitting(
    best_plan, wanted, remaining, trajectory, last, *, horizons, shapes, slack
):
    """Plan with the shortest horizon that covers the steps that remain."""
    del slack
    fitting = jnp.searchsorted(jnp.asarray(horizons), remaining + 1)
    fitting = jnp.minimum(fitting, len(horizons) - 1)
    horizon = jnp.asarray(horizons, last.dtype)[fitting]
    for shape in dict.fromkeys(shapes):
        chosen = wanted & (jnp.asarray(shapes)[fitting] == shape)
        new = jax.lax.cond(
            jnp.any(chosen),
            lambda shape=shape: best_plan(shape, horizon)[0],
            lambda kept=trajectory: kept,
        )
        trajectory = jnp.where(chosen[:, None, None], new, trajectory)
    return trajectory, jnp.where(wanted, horizon - 1, last)


def _earliest(
    best_plan, wanted, remaining, trajectory, last, *, horizons, shapes, slack
):
    """Plan with the shortest horizon whose plan is feasible.

    The plan of the longest horizon has most time, so its strain is the measure: a plan
    is feasible within `slack` times that.
    """
    del remaining
    # The longest horizon comes first, and then the others, the shortest first.
    order = [len(horizons) - 1, *range(len(horizons) - 1)]
    distinct = list(dict.fromkeys(shapes))
    made_in = jnp.array([distinct.index(shapes[i]) for i in order])
    in_turn = jnp.array([horizons[i] for i in order], last.dtype)
    ways = [functools.partial(best_plan, shape) for shape in distinct]

    def goes_on(search):
        turn, _, _, _, searching = search
        return (turn < len(order)) & jnp.any(searching)

    def try_next(search):
        turn, trajectory, last, reference, searching = search
        horizon = jnp.full(wanted.shape, in_turn[turn])
        new, found = jax.lax.switch(made_in[turn], ways, horizon)
        reference = jnp.where(turn == 0, found, reference)
        feasible = searching & ((turn == 0) | (found <= slack * reference))
        trajectory = jnp.where(feasible[:, None, None], new, trajectory)
        last = jnp.where(feasible, horizon - 1, last)
        searching &= (turn == 0) | ~feasible
        return turn + 1, trajectory, last, reference, searching

    first = jnp.zeros((), int), trajectory, last, jnp.zeros(wanted.shape), wanted
    _, trajectory, last, _, _ = jax.lax.while_loop(goes_on, try_next, first)
    return trajectory, last
