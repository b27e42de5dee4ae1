"""Acting: which plan is taken, when it is renewed, and what is done of it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planners import MOVING, POINT, keys_of, replaced

from jaxdiff.algorithms.planning.options import (
    PlannerActing,
    PlannerConfig,
    joint_faults,
)
from jaxdiff.algorithms.planning.planner import Plans
from jaxdiff.algorithms.planning.receding_horizon import receding_horizon
from jaxdiff.data.spec import Layout
from jaxdiff.tasks.pointmaze import world as pointmaze
from jaxdiff.tasks.pointmaze.environment import make_maze
from jaxdiff.tasks.pointmaze.recipe import record_stream

CONFIG = PlannerConfig(horizon=8, horizons=(4, 8, 12), dim_mults=(1, 2), goal_dim=2)


def actor(planner, spec=MOVING, **options):
    """Acting with plans that we make up, compiled."""
    config, acting = replaced(CONFIG, PlannerActing(), options)
    act, init_carry, follow = receding_horizon(planner, config, acting, spec)
    act, follow = jax.jit(act), jax.jit(follow)

    def play(observations, resets):
        """Acts through `[T, B, 4]` observations; the outputs of every step."""
        carry = init_carry(observations.shape[1])
        outputs = []
        for t, observation in enumerate(observations):
            now = {}, carry, keys_of(len(observation), t), observation, resets[t]
            output, carry = act(*now)
            *followed, nothing_due = follow(*now)
            if nothing_due:
                jax.tree.map(np.testing.assert_array_equal, followed, [output, carry])
            # A plan that was made is dropped if it would put the arrival off.
            assert not (nothing_due and output.planned.any())
            assert nothing_due or output.planned.any() or acting.choose == "earliest"
            outputs.append(jax.tree.map(np.asarray, output))
        return outputs

    return play


def needing(table):
    """A planner whose plans need as many steps as the observation's first entry says.

    Every entry of a plan is its horizon. `table(horizon, need)` is its dynamics_error.
    """

    def plan(states, keys, problem, *, horizon):
        observation = problem.history[:, -1]
        need = observation[:, 0]
        strain = jnp.broadcast_to(table(horizon, need), need.shape)
        return Plans(
            trajectories=jnp.full((len(need), 1, horizon, 6), float(horizon)),
            dynamics_error=strain[:, None],
        )

    return plan


def once(play, needs):
    observation = np.zeros((1, len(needs), 4), np.float32)
    observation[0, :, 0] = needs
    return play(observation, np.ones((1, len(needs)), bool))[0]


def test_earliest_takes_the_shortest_feasible_horizon():
    planner = needing(lambda horizon, need: jnp.where(horizon >= need, 1.0, 100.0))
    play = actor(planner, choose="earliest", horizons=(4, 6, 8, 10, 12), slack=2.5)
    output = once(play, [3, 4, 5, 8, 9, 12])
    np.testing.assert_array_equal(output.plan[:, 0, 0], [4, 4, 6, 8, 10, 12])
    assert output.planned.all()
    assert output.plan.shape == (6, 12, 6)


def test_earliest_measures_against_the_longest_horizon():
    # Consistent only in comparison: what is asked of a plan is 2.5 times what the
    # longest horizon has, 4 here.
    strains = {4: 10.2, 6: 10.1, 8: 9.9, 10: 50.0, 12: 4.0}
    planner = needing(lambda horizon, need: jnp.float32(strains[horizon]))
    play = actor(planner, choose="earliest", horizons=(4, 6, 8, 10, 12), slack=2.5)
    assert once(play, [0]).plan[0, 0, 0] == 8
    strains[8] = 10.3
    play = actor(planner, choose="earliest", horizons=(4, 6, 8, 10, 12), slack=2.5)
    assert once(play, [0]).plan[0, 0, 0] == 12


def test_fixed_takes_its_own_horizon():
    planner = needing(lambda horizon, need: jnp.where(horizon >= need, 1.0, 100.0))
    play = actor(planner, choose="fixed")
    np.testing.assert_array_equal(once(play, [3, 8, 12]).plan[:, 0, 0], [8, 8, 8])


@pytest.mark.parametrize("choose", ["fixed", "earliest"])
def test_the_most_consistent_candidate_is_followed(choose):
    order = jnp.array([[3.0, 1.0, 2.0], [5.0, 6.0, 4.0]])

    def planner(states, keys, problem, *, horizon):
        which = jnp.arange(3.0)[None, :, None, None]
        return Plans(
            trajectories=jnp.broadcast_to(which, (2, 3, horizon, 6)),
            dynamics_error=order,
        )

    play = actor(planner, choose=choose, candidates=3)
    output = play(np.zeros((1, 2, 4), np.float32), np.ones((1, 2), bool))[0]
    np.testing.assert_array_equal(output.plan[:, 0, 0], [1, 2])


def test_an_environment_that_begins_anew_disturbs_no_other():
    def planner(states, keys, problem, *, horizon):
        observation = problem.history[:, -1]
        begun = observation[:, :1, None, None]
        rows = jnp.arange(horizon)[None, None, :, None]
        x = jnp.broadcast_to(begun + rows, (len(observation), 1, horizon, 6))
        return Plans(trajectories=x, dynamics_error=jnp.zeros((len(observation), 1)))

    play = actor(planner)
    observations = np.zeros((4, 2, 4), np.float32)
    observations[:, :, 0] = 100 * np.arange(4)[:, None]
    resets = np.array([[True, True], [False, False], [False, True], [False, False]])
    outputs = play(observations, resets)
    np.testing.assert_array_equal([o.planned for o in outputs], resets)
    # With the "action" controller the planned actions come one after another.
    np.testing.assert_array_equal(
        [o.action[:, 0] for o in outputs], [[0, 0], [1, 1], [2, 200], [3, 201]]
    )


@pytest.mark.parametrize("choose", ["fixed", "earliest"])
@pytest.mark.parametrize("lost", [0.35, 0.0])
def test_whoever_strays_from_a_plan_is_given_a_new_one(choose, lost):
    def planner(states, keys, problem, *, horizon):
        observation = problem.history[:, -1]
        begun = observation[:, None, None, :1]  # and onwards by 0.1 a row
        rows = 0.1 * jnp.arange(horizon)[None, None, :, None]
        x = jnp.broadcast_to(begun + rows, (len(observation), 1, horizon, 6))
        x = x.at[..., 3].set(0.0)
        return Plans(trajectories=x, dynamics_error=jnp.zeros((len(observation), 1)))

    play = actor(
        planner, choose=choose, horizons=(12,), horizon=12, lost=lost,
        controller="track",
    )  # fmt: skip
    observations = np.zeros((10, 2, 4), np.float32)
    observations[:, 0, 0] = 0.1 * np.arange(10)  # follows; the other one is stuck
    outputs = play(observations, np.arange(10)[:, None] == [0, 0])
    times = [np.flatnonzero([o.planned[i] for o in outputs]).tolist() for i in (0, 1)]
    assert times == [[0], [0, 4, 8] if lost else [0]]


def replanned(steps, *, need=None, every=2, **options):
    """Times at which plans are made, and the horizons of the plans followed."""

    def feasible(horizon, observed):
        return jnp.where(horizon >= observed, 1.0, 100.0)

    play = actor(needing(feasible), replan_every=every, horizon=12, **options)
    observations = np.zeros((steps, 1, 4), np.float32)
    if need is not None:
        observations[:, 0, 0] = need
    resets = np.arange(steps)[:, None] == 0
    outputs = play(observations, resets)
    times = [t for t, output in enumerate(outputs) if output.planned[0]]
    return times, [int(outputs[t].plan[0, 0, 0]) for t in times]


def test_plans_shrink_towards_the_arrival():
    times, horizons = replanned(30)
    assert times == [0, 2, 4, 6, 8, 10]
    # Of the declared horizons 4, 8 and 12 the shortest that covers what remains.
    assert horizons == [12, 12, 8, 8, 4, 4]
    # The last of them arrives no later than its rounding up to a declared horizon.
    assert times[-1] + horizons[-1] - 1 <= 11 + 4


def test_a_shorter_plan_covers_all_that_remains():
    times, horizons = replanned(20, every=1)
    assert times == list(range(11))
    assert horizons == [12] * 4 + [8] * 4 + [4] * 3


def test_earliest_arrivals_come_nearer_and_then_planning_ends():
    # The way ahead shrinks by a row a step, as it does where plans are followed.
    need = np.maximum(12 - np.arange(30), 1)
    times, horizons = replanned(30, need=need, choose="earliest")
    assert times[0] == 0
    assert horizons[0] == 12
    assert horizons == sorted(horizons, reverse=True)
    assert times[-1] <= 12


def test_the_arrival_is_not_put_off_for_ever():
    # At the goal, or stuck: however often one looks, a plan of 4 rows is feasible.
    times, _ = replanned(30, choose="earliest")
    assert times == [0]


@pytest.mark.parametrize(
    ("every", "eased", "taken"),
    [
        # The first plan has 8 rows and arrives at 7. At 3 that takes 4 more steps, and
        # the shortest feasible plan 7; at 6 it takes one, and the shortest 3.
        (3, 4, [0, 1, 2, 3, 4, 5, 6, 7, 0, 0]),
        # At 3 a plan takes 3 steps, within the 4 that are left.
        (3, 3, [0, 1, 2, 300, 301, 302, 303, 0, 0, 0]),
        # At 4 a plan takes the 3 that are left.
        (4, 4, [0, 1, 2, 3, 400, 401, 402, 403, 0, 0]),
    ],
)
def test_a_plan_that_arrives_later_is_not_taken_up(every, eased, taken):
    def planner(states, keys, problem, *, horizon):
        observation = problem.history[:, -1]
        asked, need = observation[:, :1], observation[:, 1]
        rows = 100 * asked + jnp.arange(horizon)
        x = jnp.broadcast_to(rows[:, None, :, None], (len(need), 1, horizon, 6))
        strain = jnp.where(horizon >= need, 1.0, 100.0)
        return Plans(trajectories=x, dynamics_error=strain[:, None])

    play = actor(
        planner, choose="earliest", controller="action",
        replan_every=every, horizons=(4, 8, 12), horizon=12,
    )  # fmt: skip
    observations = np.zeros((10, 1, 4), np.float32)
    observations[:, 0, 0], observations[:, 0, 1] = np.arange(10), 8
    observations[eased:, 0, 1] = 4
    outputs = play(observations, np.arange(10)[:, None] == 0)
    assert [float(output.action[0, 0]) for output in outputs] == taken
    planned = [t for t, output in enumerate(outputs) if output.planned[0]]
    assert planned == sorted({action // 100 for action in taken})


# --- control -------------------------------------------------------------------------

ROWS = np.random.default_rng(3).uniform(-1, 1, (8, 6)).astype(np.float32)


def made_up(states, keys, problem, *, horizon):
    observation = problem.history
    x = jnp.broadcast_to(ROWS[:horizon], (len(observation), 1, horizon, 6))
    return Plans(trajectories=x, dynamics_error=jnp.zeros((len(observation), 1)))


def test_tracking_follows_the_planned_states():
    play = actor(made_up, controller="track", kp=0.3, kd=0.1)
    observations = (
        np.random.default_rng(4).uniform(-1, 1, (11, 2, 4)).astype(np.float32)
    )
    outputs = play(observations, np.arange(11)[:, None] + np.zeros((1, 2)) == 0)
    for t, output in enumerate(outputs):
        # After the last planned state the point rests where that was.
        target, speed = (ROWS[t + 1, 2:4], ROWS[t + 1, 4:]) if t < 7 else (
            ROWS[7, 2:4], 0.0)  # fmt: skip
        position, velocity = observations[t, :, :2], observations[t, :, 2:]
        force = 0.3 * (target - position) + 0.1 * (speed - velocity)
        np.testing.assert_allclose(output.action, force, atol=1e-5)


def test_tracking_keeps_to_the_bounds_of_the_force():
    play = actor(made_up, controller="track", kp=1000.0, kd=0.0)
    observation = np.random.default_rng(4).uniform(-1, 1, (1, 2, 4)).astype(np.float32)
    (output,) = play(observation, np.ones((1, 2), bool))
    np.testing.assert_array_equal(
        output.action, np.sign(ROWS[1, 2:4] - observation[0, :, :2])
    )


def test_actions_are_those_planned():
    play = actor(made_up, controller="action")
    observations = np.zeros((11, 2, 4), np.float32)
    outputs = play(observations, np.arange(11)[:, None] + np.zeros((1, 2)) == 0)
    for t, output in enumerate(outputs):
        # After the plan there is nothing to do.
        action = ROWS[t, :2] if t < 8 else np.zeros(2)
        np.testing.assert_array_equal(output.action, [action] * 2)


def test_tracking_needs_a_velocity_for_each_action():
    track = PlannerActing(controller="track")
    assert not [*joint_faults(CONFIG, track, MOVING)]
    assert not [*joint_faults(CONFIG, PlannerActing(), POINT)]
    (fault,) = joint_faults(CONFIG, track, POINT)
    assert "2 positions and 2 velocities" in fault
    assert "choose `controller='action'`" in fault


def test_positions_and_velocities_may_stand_anywhere():
    layout = Layout(position=(3, 0), velocity=(1, 2), goal=(3, 0))
    spec = dataclasses.replace(MOVING, layout=layout)
    options = {"controller": "track", "kp": 0.3, "kd": 0.1, "lost": 0.5}
    play = actor(made_up, spec, **options)
    row, place, speed = ROWS[1, 2:], [3, 0], [1, 2]
    observations = np.stack([ROWS[:1, 2:], ROWS[:1, 2:]])
    observations[1, 0, 3] += 0.6  # strays
    outputs = play(observations, np.array([[True], [False]]))
    start = observations[0, 0]
    force = 0.3 * (row - start)[place] + 0.1 * (row - start)[speed]
    np.testing.assert_allclose(outputs[0].action[0], force, atol=1e-5)
    assert [bool(output.planned[0]) for output in outputs] == [True, _strays(spec)]


def _strays(spec):
    """Whether the second observation above is more than 0.5 from the plan's row."""
    place = np.array(spec.layout.position)
    there = ROWS[0, 2:].copy()
    there[3] += 0.6
    return bool(np.linalg.norm((ROWS[1, 2:] - there)[place]) > 0.5)


def simulator():
    """The point of PointMaze: its way of taking steps, and how to place it."""
    pytest.importorskip("gymnasium_robotics")
    point: Any = make_maze(pointmaze.maze_by_name("umaze")).unwrapped.point_env  # pyright: ignore
    return point.step, lambda state: point.set_state(state[:2], state[2:])


def test_default_gains_cancel_an_error_of_velocity_in_one_step():
    step, place = simulator()
    start = np.array([1.0, 1.0, 0.05, -0.1])
    place(start)
    rows = np.zeros((8, 6), np.float32)
    rows[:, 2:4], rows[:, 4:] = start[:2], [0.2, 0.1]

    def planner(states, keys, problem, *, horizon):
        x = jnp.broadcast_to(rows, (1, 1, 8, 6))
        return Plans(trajectories=x, dynamics_error=jnp.zeros((1, 1)))

    play = actor(planner, controller="track")
    (output,) = play(start[None, None].astype(np.float32), np.ones((1, 1), bool))
    state = step(np.asarray(output.action[0]))[0]
    np.testing.assert_allclose(state[2:], [0.2, 0.1], atol=2e-3)


def test_default_gains_track_a_recorded_drive():
    step, place = simulator()
    stream = record_stream(pointmaze.maze_by_name("umaze"), steps=300, seed=1)
    rows = np.concatenate([stream.actions, stream.observations[:-1]], axis=1)

    def planner(states, keys, problem, *, horizon):
        x = jnp.broadcast_to(jnp.asarray(rows), (1, 1, *rows.shape))
        return Plans(trajectories=x, dynamics_error=jnp.zeros((1, 1)))

    def worst(**gains):
        config = PlannerConfig(horizon=300, goal_dim=2)
        acting = PlannerActing(controller="track", **gains)
        act, init_carry, _ = receding_horizon(planner, config, acting, MOVING)
        act, carry = jax.jit(act), init_carry(1)
        state, distances = rows[0, 2:].astype(np.float64), []
        place(state)
        for t, target in enumerate(rows[1:, 2:]):
            observation = state[None].astype(np.float32)
            output, carry = act({}, carry, keys_of(1), observation, np.array([t == 0]))
            state = step(np.asarray(output.action[0]))[0]
            distances.append(np.linalg.norm(state[:2] - target[:2]))
        return np.max(distances)

    default, unit = worst(), worst(kp=1.0, kd=1.0)
    assert default < 0.08
    assert default < unit / 2
