"""Words become points and discs, and plans obey them."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import keep_out, keep_out_value, pass_by_value
from jaxdiff.errors import UserError
from jaxdiff.tasks.pointmaze.question import (
    MazeQuestion,
    detour,
    project_out,
    read_question,
    value_of,
)
from jaxdiff.tasks.pointmaze.world import MAZES, environment_of

CELLS = [[1] * 6, [1, 0, 0, 0, 0, 1], [1] * 6]


def planning_run(kwargs=None, *, goal_dim=2):
    environment = environment_of(MAZES["umaze"])._replace(kwargs=kwargs or {})
    return types.SimpleNamespace(
        path="runs/here",
        config=types.SimpleNamespace(goal_dim=goal_dim),
        environment=lambda: environment,
    )


def asked(run=None, **options):
    words = {"start": "1,1", "goal": "3,1"} | options
    return read_question(MazeQuestion(**words), run or planning_run())


def test_cells_and_metres_name_the_same_points():
    # The centre of the maze's upper left free cell is (-1, 1).
    cells = asked(avoid=("1,3,0.3",), via=("2,3", "3,3"))
    metres = asked(
        start="-1,1", goal="-1,-1", avoid=("1,1,0.3",), via=("1,0", "1,-1"), xy=True
    )
    for request in (cells, metres):
        np.testing.assert_array_equal(request.start, [-1, 1, 0, 0])
        np.testing.assert_array_equal(request.goal, [-1, -1])
        discs, points = request.options["value_args"]
        np.testing.assert_allclose(discs, [[1, 1, 0.45]])
        np.testing.assert_allclose(points, [[1, 0], [1, -1]])
        np.testing.assert_allclose(request.options["project_args"], discs)


def test_a_plan_need_not_have_a_goal_nor_a_detour():
    request = asked(goal=None)
    assert request.goal is None
    assert request.options == {}


def test_every_disc_and_every_point_counts():
    request = asked(avoid=("1,3,0.3", "2,3,0.2"), via=("3,3", "1,2"))
    discs, points = request.options["value_args"]
    assert (len(discs), len(points)) == (2, 2)
    assert len(request.options["project_args"]) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"avoid": ("1,3",)}, "`avoid` is '1,3'.*row,col,radius"),
        ({"avoid": ("1,3,0",)}, "`avoid` is '1,3,0'"),
        ({"avoid": ("1,3,0.1", "1,3,wide")}, "`avoid` is '1,3,wide'"),
        ({"avoid": ("1,3,inf",)}, "`avoid` is '1,3,inf'"),
        ({"avoid": ("1,1,0.4",)}, "disc 1,1,0.4 of `avoid` covers the start"),
        ({"avoid": ("2,3,0.1", "3,1,0.4")}, "disc 3,1,0.4 of `avoid` covers the goal"),
        ({"via": ("1",)}, "`via` is '1'"),
        ({"via": ("3,3", "2,1")}, "point to pass .*in a wall"),
        ({"start": "0.5,1"}, "`start` is '0.5,1'.*row,col"),
        ({"start": "up,1", "xy": True}, "`start` is 'up,1'.*in metres"),
        ({"start": "2,1"}, "start .*in a wall"),
        ({"goal": "7,1"}, "goal .*outside"),
        ({"goal": "nan,1", "xy": True, "start": "-1,1"}, "goal .*outside"),
    ],
)
def test_points_and_discs_that_cannot_be_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        asked(**options)


def test_a_maze_of_ones_own_is_read_from_the_run():
    run = planning_run({"maze_map": CELLS})
    request = asked(run, start="1,1", goal="1,4")
    np.testing.assert_allclose(request.start, [-1.5, 0, 0, 0])
    np.testing.assert_allclose(request.goal, [1.5, 0])
    with pytest.raises(UserError, match="'own-3x6'"):
        asked(run, start="1,1", goal="2,1")


def test_a_run_of_an_unknown_maze_is_refused():
    run = planning_run()
    run.environment = lambda: None
    run.dataset = {"name": "mine"}
    with pytest.raises(UserError, match="does not say the maze"):
        asked(run)


def test_a_detour_has_the_value_and_the_projection_of_its_parts():
    avoid, via = [(1.0, 1.0, 0.3), (0.0, 1.0, 0.2)], [(0.5, -1.0)]
    x = jax.random.normal(jax.random.key(0), (5, 9, 6))
    task = detour(avoid, via)
    assert task["value"] is value_of
    assert task["project"] is project_out
    assert task["value_scale"] == 30.0
    expected = pass_by_value(jnp.array(via[0]), dims=(2, 3), width=0.3)(x)
    held = x
    for *center, radius in avoid:
        center, radius = jnp.array(center), radius + 0.15
        expected += keep_out_value(center, radius, dims=(2, 3), width=0.1)(x)
        held = keep_out(center, radius, dims=(2, 3))(held)
    found = task["value"](x, task["value_args"])
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    found = task["project"](x, task["project_args"])
    np.testing.assert_allclose(found, held, rtol=1e-5)
    assert set(detour(via=via)) == {"value", "value_args", "value_scale"}
    assert set(detour(avoid, by=("project",))) == {"project", "project_args"}
    assert set(detour(avoid, by=("value",))) == {"value", "value_args", "value_scale"}
    assert detour() == {}


def test_other_discs_compile_nothing(compilations):
    x = jnp.zeros((2, 4, 6))
    value = jax.jit(value_of)
    first, second = (
        detour([(place, 1.0, 0.3)], [(1.0, place)])["value_args"] for place in (0, 1)
    )
    value(x, first).block_until_ready()
    compilations.clear()
    value(x, second).block_until_ready()
    assert not compilations


def test_the_picture_shows_plans_discs_and_points():
    request = asked(avoid=("1,3,0.3",), via=("3,3",))
    plans = types.SimpleNamespace(
        observations=np.zeros((6, 5, 4)), dynamics_error=np.arange(6.0)
    )
    figure = request.draw(plans)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [f"dynamics error {i}.00" for i in range(4)]
    kinds = {artist.get_gid() for artist in figure.axes[0].get_children()}
    assert {"plan", "start", "goal", "avoid", "via"} <= kinds
