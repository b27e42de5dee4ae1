"""The waypoint expert chooses new waypoints when it must, and only then."""

import numpy as np

from jaxdiff.tasks.pointmaze import world as pointmaze
from jaxdiff.tasks.pointmaze.expert import Expert, expert_action, expert_init


def test_expert_plans_anew_when_the_goal_changes_or_it_is_lost():
    maze = pointmaze.maze_by_name("umaze")
    rng = np.random.default_rng(0)

    def at(cell):
        return np.append(pointmaze.cell_to_xy(maze, cell), [0.0, 0.0])[None]

    east, west = (pointmaze.cell_to_xy(maze, c)[None] for c in ((1, 3), (1, 1)))
    start, state = at((1, 2)), expert_init()
    action, state = expert_action(maze, state, start, east, rng)
    np.testing.assert_array_equal(state.waypoint, east)  # the exact goal
    np.testing.assert_array_equal(action[0, 0], 1.0)
    action, state = expert_action(maze, state, start, west, rng)
    np.testing.assert_array_equal(action[0, 0], -1.0)
    _, state = expert_action(maze, state, at((3, 2)), west, rng)
    corner = pointmaze.cell_to_xy(maze, (3, 3))
    jitter = np.abs(state.waypoint[0] - corner)
    assert (jitter <= 0.1).all()
    assert (jitter > 0).all()


def test_expert_batch_entries_are_independent():
    maze = pointmaze.maze_by_name("medium")
    rng = np.random.default_rng(0)
    xy = pointmaze.cell_to_xy(maze, pointmaze.free_cells(maze))
    observation = np.concatenate([xy, rng.normal(size=xy.shape)], axis=1)
    state = expert_init(len(xy))
    _, state = expert_action(maze, state, observation, xy[::-1], rng)
    observation[0, :2] = state.waypoint[0]  # the first one arrives
    _, after = expert_action(maze, state, observation, xy[::-1], rng)
    changed = (after.waypoint != state.waypoint).any(-1)
    assert changed[0]
    at_goal = (
        pointmaze.xy_to_cell(maze, xy) == pointmaze.xy_to_cell(maze, xy[::-1])
    ).all(-1)
    assert not changed[1:][~at_goal[1:]].any()


def test_a_reset_forgets_waypoints_where_it_is_asked_to():
    maze = pointmaze.maze_by_name("umaze")
    rows = np.zeros((2, 4))
    rows[:, :2] = pointmaze.cell_to_xy(maze, (1, 1))
    goal = np.tile(pointmaze.cell_to_xy(maze, (3, 1)), (2, 1))
    expert = Expert(maze, 2, seeds=[5, 6])
    first = expert(rows, goal)
    np.testing.assert_array_equal(expert(rows, goal), first)  # waypoints are kept
    expert.reset(mask=[True, False])
    action = expert(rows, goal)
    assert (action[0] != first[0]).any()
    np.testing.assert_array_equal(action[1], first[1])
    expert.reset(seeds=[5, 6])
    np.testing.assert_array_equal(expert(rows, goal), first)
