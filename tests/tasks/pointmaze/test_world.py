"""The mazes are the simulator's, and paths through them are shortest."""

import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from jaxdiff.data.spec import Environment
from jaxdiff.errors import UserError
from jaxdiff.tasks.pointmaze import world as pointmaze
from jaxdiff.tasks.pointmaze.environment import make_env, make_maze
from jaxdiff.tasks.pointmaze.scores import MazeOptions
from jaxdiff.tasks.pointmaze.world import MAZES

pytest.importorskip("gymnasium_robotics")


@pytest.mark.parametrize("maze", MAZES.values(), ids=MAZES)
def test_geometry_is_the_simulators(maze):
    env = make_maze(maze)
    theirs = env.unwrapped.maze
    walls = np.array([[cell == "#" for cell in row] for row in maze.map])
    np.testing.assert_array_equal(walls, np.array(theirs.maze_map) == 1)
    for cell in pointmaze.free_cells(maze):
        xy = theirs.cell_rowcol_to_xy(cell)
        np.testing.assert_allclose(pointmaze.cell_to_xy(maze, cell), xy)
        np.testing.assert_array_equal(pointmaze.xy_to_cell(maze, xy + 0.49), cell)
        np.testing.assert_array_equal(pointmaze.xy_to_cell(maze, xy - 0.49), cell)
    assert env.spec.max_episode_steps == maze.max_episode_steps
    assert env.spec.id == maze.environment
    assert pointmaze.is_free(maze, pointmaze.cell_to_xy(maze, maze.goal_cell))
    assert not os.path.exists(env.unwrapped.tmp_xml_file_path)
    env.close()


@pytest.mark.parametrize("maze", MAZES.values(), ids=MAZES)
def test_cells_round_trip_and_free_cells_are_free(maze):
    cells = pointmaze.free_cells(maze)
    xy = pointmaze.cell_to_xy(maze, cells)
    np.testing.assert_array_equal(pointmaze.xy_to_cell(maze, xy), cells)
    assert pointmaze.is_free(maze, xy).all()
    assert len(cells) == "".join(maze.map).count(".")


def test_walls_outside_and_nan_are_not_free():
    maze = pointmaze.maze_by_name("umaze")
    wall = pointmaze.cell_to_xy(maze, (2, 1))
    points = [
        wall,
        (99.0, 0.0),
        (0.0, -99.0),
        (np.nan, 1.0),
        (np.inf, 1.0),
        (-1.0, 1.0),
    ]
    free = pointmaze.is_free(maze, np.array(points))
    np.testing.assert_array_equal(free, [False] * 5 + [True])


@pytest.mark.parametrize(
    ("xy", "words"),
    [((-1.0, 0.0), "start (-1, 0) lies in a wall"), ((9.0, 0.0), "lies outside")],
)
def test_a_start_in_a_wall_is_a_user_error(xy, words):
    maze = pointmaze.maze_by_name("umaze")
    with pytest.raises(UserError, match="row,column") as error:
        pointmaze.require_free(maze, xy, "start")
    assert words in str(error.value)
    pointmaze.require_free(maze, (-1.0, 1.0), "start")


def test_unknown_maze_lists_those_there_are():
    with pytest.raises(UserError, match=r"'tiny'.*umaze, medium, large"):
        pointmaze.maze_by_name("tiny")


def test_missing_simulator_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    monkeypatch.delitem(gymnasium.registry, "PointMaze_UMaze-v3", raising=False)
    with pytest.raises(UserError, match=r'pip install "jaxdiff\[mujoco\]"'):
        make_maze(pointmaze.maze_by_name("umaze"))


@pytest.mark.parametrize("maze", MAZES.values(), ids=MAZES)
def test_next_cells_lead_to_every_goal_by_a_shortest_path(maze):
    table = pointmaze.next_cells(maze)
    columns = maze.shape[1]
    cells = pointmaze.free_cells(maze)
    index = cells @ [columns, 1]
    # Distances by relaxation, independent of the breadth-first search.
    adjacent = np.abs(cells[:, None] - cells[None]).sum(-1) == 1
    distance = np.where(adjacent, 1.0, np.inf)
    np.fill_diagonal(distance, 0)
    for middle in range(len(cells)):
        through = distance[:, middle, None] + distance[None, middle]
        distance = np.minimum(distance, through)
    for g, goal in enumerate(index):
        position, steps = index.copy(), np.zeros(len(index))
        for _ in range(len(index)):
            moving = position != goal
            step = table[goal, position]
            moved = np.abs(step // columns - position // columns) + np.abs(
                step % columns - position % columns
            )
            np.testing.assert_array_equal(moved, moving.astype(int))
            position, steps = step, steps + moving
        assert (position == goal).all()
        np.testing.assert_array_equal(steps, distance[:, g])


@pytest.mark.parametrize(("name", "length"), [("umaze", 6), ("medium", 11)])
def test_the_longest_path_is_the_longest_shortest_one(name, length):
    maze = pointmaze.maze_by_name(name)
    found, end = pointmaze.longest_path(maze)
    assert found == length
    assert pointmaze.is_free(maze, pointmaze.cell_to_xy(maze, end))


def own_map(maze):
    return [[int(cell == "#") for cell in row] for row in maze.map]


@pytest.mark.parametrize("maze", MAZES.values(), ids=MAZES)
def test_an_environment_names_its_maze_by_its_map_or_its_id(maze):
    assert pointmaze.maze_of(Environment(maze.environment)) is maze
    assert pointmaze.maze_of(pointmaze.environment_of(maze)) is maze
    # The map decides, and letters of Gymnasium's maps mark free cells.
    cells = own_map(maze)
    cells[1][1] = "g"
    other = Environment("PointMaze_Open-v3", {"maze_map": cells})
    assert pointmaze.maze_of(other) is maze
    with pytest.raises(UserError, match="PointMaze_Open-v3 has no `maze_map`"):
        pointmaze.maze_of(Environment("PointMaze_Open-v3"))


def test_a_maze_of_ones_own_is_remade_from_its_environment():
    cells = [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1]]
    environment = Environment("PointMaze_UMaze-v3", {"maze_map": cells})
    maze = pointmaze.maze_of(environment)
    assert maze.map == ("####", "#..#", "#.##", "####")
    assert maze.max_episode_steps == 100
    assert maze.goal_cell in {(1, 2), (2, 1)}
    assert pointmaze.maze_of(pointmaze.environment_of(maze)) == maze
    env = make_env(environment)
    walls = np.array(env.unwrapped.maze.maze_map) == 1
    np.testing.assert_array_equal(walls, ~pointmaze.free_table(maze))
    assert env.spec.max_episode_steps == 100
    env.close()


def test_policies_are_scored_with_the_mazes_own_rules():
    # D4RL recorded with another limit, and with goals that move on when reached.
    kwargs = {"maze_map": own_map(MAZES["umaze"]), "reset_target": True}
    env = make_env(Environment("PointMaze_UMaze-v3", kwargs, 1_000_000))
    assert env.spec.max_episode_steps == 300
    assert not env.unwrapped.reset_target
    observation, _ = env.reset(seed=0)
    assert {name: x.shape for name, x in observation.items()} == {
        "observation": (4,),
        "desired_goal": (2,),
    }
    env.close()


def test_importing_the_task_or_the_data_loads_no_simulator():
    code = (
        "import sys, jaxdiff.data.windows, jaxdiff.data.episodes;"
        "heavy = {'gymnasium', 'gymnasium_robotics', 'mujoco', 'minari', 'h5py'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules);"
        "import jaxdiff.tasks.pointmaze;"
        "heavy -= {'gymnasium'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_environment_of_one_goal_resets_to_it():
    maze = MAZES["umaze"]
    centre = pointmaze.cell_to_xy(maze, maze.goal_cell)

    def away(chosen, **asked):
        env = make_env(pointmaze.environment_of(maze), chosen)
        seen = [env.reset(seed=seed, **asked)[0] for seed in range(6)]
        env.close()
        goals = np.array([each["desired_goal"] for each in seen])
        return np.abs(goals - centre).max()

    assert away(MazeOptions("single")) <= 0.25
    # A reset that names a goal itself gets that one.
    elsewhere = {"goal_cell": np.array([3, 1])}
    assert away(MazeOptions("single"), options=elsewhere) > 1
    for chosen in (None, MazeOptions(), MazeOptions("multi")):
        assert away(chosen) > 1
