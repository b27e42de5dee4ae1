import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.algorithms.base import Algorithm
from jaxdiff.algorithms.planning.diffuser import DiffuserActing, DiffuserConfig
from jaxdiff.algorithms.planning.planner import Plans
from jaxdiff.data.normalizer import fit_normalizer
from jaxdiff.data.spec import Layout, Spec
from jaxdiff.errors import UserError
from jaxdiff.plans import plan, save_plans
from jaxdiff.run import Run

ACTIONS, OBSERVATIONS = 2, 4
LEVELS = 3


def imagine(
    states, keys, problem, *, horizon, candidates, return_path, value, project,
    value_span, init_level=None, length=None,
):  # fmt: skip
    """Plans whose every entry tells whose it is: candidates by their dynamics_error."""
    horizon = 8 if horizon is None else horizon
    dynamics_error = jax.random.uniform(keys[0], (1, candidates))
    goal = problem.goal
    x = jnp.broadcast_to(
        dynamics_error[..., None, None],
        (1, candidates, horizon, ACTIONS + OBSERVATIONS),
    )
    x = x.at[:, :, 0, ACTIONS:].set(problem.history[:, -1])
    if goal is not None:
        last = -1 if length is None else length[0] - 1
        x = x.at[:, :, last, ACTIONS : ACTIONS + goal.shape[-1]].set(goal)
    path = jnp.stack([x + level for level in reversed(range(LEVELS + 1))])
    return Plans(
        trajectories=x,
        dynamics_error=dynamics_error,
        path=path if return_path else None,
    )


def planning_run(*, normalizer="limits", planner=imagine, goal_dim=2, data_goals=2):
    # Data within two metres of the centre, no faster than five metres a second.
    limits = np.array([[1, 1, 2, 2, 5, 5]], np.float32)
    rows = np.concatenate([-limits, limits])
    config = DiffuserConfig(
        horizon=8, horizons=(4, 8, 12), dim_mults=(1, 2), normalizer=normalizer,
        goal_dim=goal_dim, clip=None if normalizer == "gaussian" else 1.0,
    )  # fmt: skip
    return Run(
        path="runs/here",
        name="planner",
        config=config,
        acting=DiffuserActing(),
        spec=Spec((OBSERVATIONS,), ACTIONS, data_goals, Layout(goal=(0, 1, 2, 3))),
        statistics=types.SimpleNamespace(normalizer=fit_normalizer(normalizer, rows)),
        algorithm=Algorithm({}, None, None, planner),
        states={},
        document={},
    )


START, GOAL = (1.0, 1.0, 0.0, 0.0), (-1.0, -1.0)


def test_the_most_consistent_plan_comes_first():
    ranked = plan(planning_run(), START, GOAL, candidates=6)
    assert ranked.dynamics_error.shape == (6,)
    assert (np.diff(ranked.dynamics_error) > 0).all()
    # Rows stayed with their plan.
    own = ranked.dynamics_error[:, None, None]
    np.testing.assert_array_equal(ranked.actions, own + np.zeros((6, 8, ACTIONS)))
    np.testing.assert_array_equal(
        ranked.observations[:, 1:-1], own + np.zeros((6, 6, OBSERVATIONS))
    )
    assert ranked.path.shape == (LEVELS + 1, 8, OBSERVATIONS)
    np.testing.assert_array_equal(ranked.path[-1], ranked.observations[0])
    np.testing.assert_allclose(ranked.path[0], ranked.observations[0] + LEVELS)


def test_the_plan_worth_most_comes_first_if_that_is_asked(tmp_path):
    def worth(*args, **options):
        plans = imagine(*args, **options)
        # The less consistent, the better.
        return plans.replace(expected_return=10 * plans.dynamics_error)

    run = planning_run(planner=worth)
    acting = dataclasses.replace(run.acting, rank="return")
    ranked = plan(run._replace(acting=acting), START, GOAL, candidates=5)
    assert (np.diff(ranked.expected_return) < 0).all()
    np.testing.assert_allclose(ranked.expected_return, 10 * ranked.dynamics_error)
    np.testing.assert_array_equal(ranked.observations[:, 1, 0], ranked.dynamics_error)
    save_plans(ranked, tmp_path / "plan.npz")
    with np.load(tmp_path / "plan.npz") as stored:
        np.testing.assert_array_equal(stored["expected_return"], ranked.expected_return)


def test_a_goal_may_be_left_out():
    ranked = plan(planning_run(), START)
    np.testing.assert_array_equal(
        ranked.observations[:, -1], ranked.dynamics_error[:, None] + np.zeros((8, 4))
    )


def test_seeds_and_horizons():
    run = planning_run()
    one, same = plan(run, START, GOAL), plan(run, START, GOAL)
    np.testing.assert_array_equal(one.observations, same.observations)
    other = plan(run, START, GOAL, seed=1)
    assert (one.dynamics_error != other.dynamics_error).all()
    for horizon in (4, 8, 12):
        ranked = plan(run, START, GOAL, horizon=horizon, candidates=1)
        assert ranked.observations.shape == (1, horizon, OBSERVATIONS)


@pytest.mark.parametrize(
    ("start", "goal", "words"),
    [
        ((np.nan, 1.0, 0.0, 0.0), GOAL, "start"),
        (START, (np.inf, 1.0), "goal"),
        ((1.0, 1.0, np.nan, 0.0), GOAL, "start"),
        ((1.0, 1.0, 0.0), GOAL, "start .*4 finite numbers"),
        ((*START, 0.0), GOAL, "start .*4 finite numbers"),
        ((1.0,), GOAL, "start"),
        (START, (1.0,), "goal"),
        (START, (), "goal"),
        (START, (*GOAL, 0.0, 0.0, 0.0), "goal"),
        (START, (*GOAL, np.nan, 0.0), "goal"),
    ],
)
def test_problems_that_cannot_be_are_refused(start, goal, words):
    with pytest.raises(UserError, match=f"(?i){words}"):
        plan(planning_run(), start, goal)


@pytest.mark.parametrize(
    ("data_goals", "goal_dim", "goal"),
    [
        (2, 2, GOAL),
        (2, 4, GOAL),  # the rest is zero
        (2, 4, (*GOAL, 0.5, 0.0)),
        (2, 1, GOAL[:1]),
        (0, 1, (9.0,)),
        (0, 3, (0.0, 1.0, 2.0)),
    ],
)
def test_goals_that_the_run_was_trained_to_meet(data_goals, goal_dim, goal):
    run = planning_run(data_goals=data_goals, goal_dim=goal_dim)
    ranked = plan(run, START, goal)
    np.testing.assert_array_equal(ranked.observations[0, -1, : len(goal)], goal)


@pytest.mark.parametrize(
    ("data_goals", "goal_dim", "goal", "words"),
    [
        (2, 2, (*GOAL, 0.0, 0.0), "the first 2 entries"),
        (2, 4, GOAL[:1], "the first 2 to 4 entries"),
        (2, 1, GOAL, "the first 1 entries"),
        (0, 3, (0.0, 1.0), "the first 3 entries"),
        (0, 3, (0.0, 1.0, 2.0, 3.0), "the first 3 entries"),
        (2, 0, GOAL, "without goals"),
        (0, 0, (1.0,), "without goals"),
    ],
)
def test_goals_that_would_be_passed_over_are_refused(data_goals, goal_dim, goal, words):
    with pytest.raises(UserError, match=words):
        plan(planning_run(data_goals=data_goals, goal_dim=goal_dim), START, goal)


def test_a_second_plan_compiles_nothing(compilations):
    run = planning_run()
    plan(run, START, GOAL)
    compilations.clear()
    plan(run, (-1.0, 1.0, 0.5, 0.0), (1.0, 0.5), seed=1)
    assert not compilations


def test_a_horizon_must_be_declared():
    with pytest.raises(UserError, match=r"(?i)horizon 16.*4, 8, 12"):
        plan(planning_run(), START, GOAL, horizon=16)


def test_only_planners_plan():
    with pytest.raises(UserError, match="does not plan"):
        plan(planning_run(planner=None), START, GOAL)


def test_a_start_beyond_the_data_is_warned_of(capsys):
    run = planning_run()
    plan(run, (1.0, 1.0, 0.0, 4.9), GOAL)
    assert not capsys.readouterr().err
    plan(run, (1.0, 1.0, 0.0, -5.1), GOAL)
    assert "dimension 3" in capsys.readouterr().err
    plan(run, (1.0, 1.0, 5.1, 0.0), GOAL)
    assert "dimension 2;" in capsys.readouterr().err
    plan(run, (1.0, 1.0, 5.1, -5.1), GOAL)
    assert "dimensions 2, 3;" in capsys.readouterr().err
    # A Gaussian has no range to leave.
    plan(planning_run(normalizer="gaussian"), (1.0, 1.0, 50.0, 0.0), GOAL)
    assert not capsys.readouterr().err


def test_plans_are_saved_by_field(tmp_path):
    ranked = plan(planning_run(), START, GOAL)
    save_plans(ranked, tmp_path / "new" / "plan.npz")
    with np.load(tmp_path / "new" / "plan.npz") as stored:
        # The planner here knows no returns, values or data; nothing is stored of them.
        assert set(stored) == set(ranked.__dataclass_fields__) - {
            "expected_return",
            "value",
            "ood_distance",
        }
        for name in stored:
            np.testing.assert_array_equal(stored[name], getattr(ranked, name))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        save_plans(ranked, tmp_path / "file" / "plan.npz")
