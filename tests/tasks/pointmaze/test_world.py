import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from jaxdiff.data.episodes import load_dataset
from jaxdiff.errors import UserError
from jaxdiff.tasks.pointmaze import recipe as maker
from jaxdiff.tasks.pointmaze import world as pointmaze
from jaxdiff.tasks.pointmaze.scores import maze_references
from jaxdiff.tasks.recipes import RECIPES

pytest.importorskip("gymnasium_robotics")

MAZES = list(pointmaze.MAZES.values())
NAMES = list(pointmaze.MAZES)


@pytest.mark.parametrize("maze", MAZES, ids=NAMES)
def test_geometry_is_the_simulators(maze):
    env = pointmaze.make_env(maze.name)
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


@pytest.mark.parametrize("maze", MAZES, ids=NAMES)
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
    with pytest.raises(UserError, match=r'pip install "jaxdiff\[mujoco\]"'):
        pointmaze.make_env("umaze")


@pytest.mark.parametrize("maze", MAZES, ids=NAMES)
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


def test_expert_earns_its_known_return_and_random_little():
    # 200 episodes gave 234.1 +- 3.0 and 17.0 +- 2.9 (mean and its standard error).
    references = maker.measure_references(
        pointmaze.maze_by_name("umaze"), episodes=12, seed=3
    )
    assert 200 < references["expert"] < 268
    assert references["random"] < 60


def test_expert_plans_anew_when_the_goal_changes_or_it_is_lost():
    maze = pointmaze.maze_by_name("umaze")
    rng = np.random.default_rng(0)

    def at(cell):
        return np.append(pointmaze.cell_to_xy(maze, cell), [0.0, 0.0])[None]

    east, west = (pointmaze.cell_to_xy(maze, c)[None] for c in ((1, 3), (1, 1)))
    start, state = at((1, 2)), pointmaze.expert_init()
    action, state = pointmaze.expert_action(maze, state, start, east, rng)
    np.testing.assert_array_equal(state.waypoint, east)  # the exact goal
    np.testing.assert_array_equal(action[0, 0], 1.0)
    action, state = pointmaze.expert_action(maze, state, start, west, rng)
    np.testing.assert_array_equal(action[0, 0], -1.0)
    _, state = pointmaze.expert_action(maze, state, at((3, 2)), west, rng)
    corner = pointmaze.cell_to_xy(maze, (3, 3))
    jitter = np.abs(state.waypoint[0] - corner)
    assert (jitter <= 0.1).all()
    assert (jitter > 0).all()


def test_expert_batch_entries_are_independent():
    maze = pointmaze.maze_by_name("medium")
    rng = np.random.default_rng(0)
    xy = pointmaze.cell_to_xy(maze, pointmaze.free_cells(maze))
    observation = np.concatenate([xy, rng.normal(size=xy.shape)], axis=1)
    state = pointmaze.expert_init(len(xy))
    _, state = pointmaze.expert_action(maze, state, observation, xy[::-1], rng)
    observation[0, :2] = state.waypoint[0]  # the first one arrives
    _, after = pointmaze.expert_action(maze, state, observation, xy[::-1], rng)
    changed = (after.waypoint != state.waypoint).any(-1)
    assert changed[0]
    at_goal = (
        pointmaze.xy_to_cell(maze, xy) == pointmaze.xy_to_cell(maze, xy[::-1])
    ).all(-1)
    assert not changed[1:][~at_goal[1:]].any()


@pytest.mark.parametrize("name", ["umaze", "medium"])
def test_stream_is_exactly_the_environments(name):
    maze = pointmaze.maze_by_name(name)
    stream = maker.record_stream(maze, steps=700, seed=5)
    env = pointmaze.make_env(name, reset_target=True, max_episode_steps=10**6)
    observation, _ = env.reset(seed=5)
    for t in range(700):
        state = observation["observation"].astype(np.float32)
        np.testing.assert_array_equal(stream.observations[t], state)
        # The goal in force when the action is chosen is the one that pays for it,
        # though the observation that follows the reward still shows it.
        goal = env.unwrapped.goal.astype(np.float32)
        np.testing.assert_array_equal(stream.goals[t], goal)
        observation, reward, *_ = env.step(stream.actions[t])
        assert stream.rewards[t] == reward
    assert stream.rewards.sum() >= 2  # goals were reached and replaced


def test_reward_belongs_to_the_goal_of_its_row_and_reaching_replaces_it():
    stream = maker.record_stream(pointmaze.maze_by_name("umaze"), steps=1500, seed=2)
    distance = np.linalg.norm(stream.observations[1:, :2] - stream.goals[:-1], axis=-1)
    reached = stream.rewards == 1
    np.testing.assert_array_equal(reached, distance <= pointmaze.GOAL_RADIUS)
    changed = (stream.goals[1:] != stream.goals[:-1]).any(-1)
    np.testing.assert_array_equal(changed, reached)
    assert reached.sum() > 5


def test_same_seed_same_stream_other_seed_other_stream():
    maze = pointmaze.maze_by_name("umaze")
    one, two, other = (maker.record_stream(maze, steps=300, seed=s) for s in (4, 4, 5))
    for name in one._fields:
        assert getattr(one, name).dtype == np.float32
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
        if name != "rewards":
            assert (getattr(one, name) != getattr(other, name)).any()
    quiet = maker.record_stream(maze, steps=300, seed=4, noise=0.0)
    assert (quiet.actions != one.actions).any()


def test_made_dataset_is_the_stream_cut_into_episodes(tmp_path):
    folder = maker.make_pointmaze("umaze", steps=2300, seed=7, root=tmp_path)
    assert folder == tmp_path / "jaxdiff" / "pointmaze" / "umaze-v0"
    stream = maker.record_stream(pointmaze.maze_by_name("umaze"), steps=2300, seed=7)
    dataset = load_dataset("pointmaze-umaze", root=tmp_path)
    episodes = dataset.episodes
    np.testing.assert_array_equal(episodes.lengths, [1000, 1000, 300])
    assert not episodes.terminated.any()
    for start, length, t in zip(
        episodes.starts, episodes.lengths, (0, 1000, 2000), strict=True
    ):
        rows, steps = slice(start, start + length + 1), slice(start, start + length)
        span = slice(t, t + length + 1)
        np.testing.assert_array_equal(
            episodes.observations[rows], stream.observations[span]
        )
        np.testing.assert_array_equal(episodes.goals[rows], stream.goals[span])
        np.testing.assert_array_equal(
            episodes.actions[steps], stream.actions[t : t + length]
        )
        np.testing.assert_array_equal(
            episodes.rewards[steps], stream.rewards[t : t + length]
        )
    assert dataset.environment == "PointMaze_UMaze-v3"
    assert dataset.references["expert"] > 150 > dataset.references["random"]
    metadata = json.loads((folder / "data" / "metadata.json").read_text())
    assert len(metadata["jaxdiff"]["references"]["seeds"]) == maker.REFERENCE_EPISODES

    # The same arguments replace it by the same data; others by others.
    again = RECIPES["pointmaze-umaze"].make(steps=2300, seed=7, root=tmp_path)
    assert load_dataset(again).fingerprint == dataset.fingerprint
    maker.make_pointmaze("umaze", steps=500, seed=8, root=tmp_path)
    changed = load_dataset("pointmaze-umaze", root=tmp_path)
    assert changed.fingerprint != dataset.fingerprint
    assert [p.name for p in folder.parent.iterdir()] == ["umaze-v0"]


def test_minari_reads_the_dataset(tmp_path, monkeypatch):
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    maker.make_pointmaze("umaze", steps=300)
    assert list(minari.list_local_datasets()) == ["jaxdiff/pointmaze/umaze-v0"]
    dataset = minari.load_dataset("jaxdiff/pointmaze/umaze-v0")
    assert dataset.total_steps == 300
    assert dataset[0].truncations.tolist() == [False] * 299 + [True]
    assert dataset.recover_environment().spec.id == "PointMaze_UMaze-v3"


def test_failure_keeps_the_old_dataset(tmp_path, monkeypatch):
    folder = maker.make_pointmaze("umaze", steps=100, root=tmp_path)
    before = load_dataset(folder).fingerprint
    monkeypatch.setattr(maker, "measure_references", lambda maze, **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        maker.make_pointmaze("umaze", steps=200, root=tmp_path)
    assert load_dataset(folder).fingerprint == before
    assert [p.name for p in folder.parent.iterdir()] == ["umaze-v0"]


def test_a_drive_that_is_not_finite_keeps_the_old_dataset(tmp_path, monkeypatch):
    folder = maker.make_pointmaze("umaze", steps=100, root=tmp_path)
    before = load_dataset(folder).fingerprint
    stream = maker.record_stream(pointmaze.maze_by_name("umaze"), steps=100)
    stream.rewards[7] = np.nan
    monkeypatch.setattr(maker, "record_stream", lambda *a, **k: stream)
    with pytest.raises(UserError, match="rewards of umaze are not finite"):
        maker.make_pointmaze("umaze", steps=100, root=tmp_path)
    assert load_dataset(folder).fingerprint == before


def test_a_run_killed_between_the_two_renames_loses_nothing(tmp_path, monkeypatch):
    folder = maker.make_pointmaze("umaze", steps=100, root=tmp_path)
    before = load_dataset(folder).fingerprint
    folder.rename(folder.with_name(".umaze-v0.old"))
    monkeypatch.setattr(maker, "record_stream", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        maker.make_pointmaze("umaze", steps=200, root=tmp_path)
    assert load_dataset(folder).fingerprint == before


def test_a_killed_run_leaves_no_dataset_and_the_next_one_cleans_up(tmp_path):
    code = f"""
        from jaxdiff.tasks.pointmaze.recipe import make_pointmaze
        make_pointmaze("umaze", steps=10**7, root={str(tmp_path)!r})
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    parent = tmp_path / "jaxdiff" / "pointmaze"
    deadline = time.monotonic() + 60
    while not (parent / ".umaze-v0.partial").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (parent / ".umaze-v0.partial").exists()
    with pytest.raises(UserError, match="jaxdiff data make pointmaze-umaze"):
        load_dataset("pointmaze-umaze", root=tmp_path)
    maker.make_pointmaze("umaze", steps=50, root=tmp_path)
    assert load_dataset("pointmaze-umaze", root=tmp_path).episodes.lengths == [50]
    assert [p.name for p in parent.iterdir()] == ["umaze-v0"]


def test_bad_requests_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="--steps is 0"):
        maker.make_pointmaze("umaze", steps=0, root=tmp_path)
    for noise in (np.nan, np.inf, -0.1):
        with pytest.raises(UserError, match=f"--noise is {noise}"):
            maker.make_pointmaze("umaze", steps=5, noise=noise, root=tmp_path)
    (tmp_path / "jaxdiff").write_text("a file where a folder must be")
    with pytest.raises(UserError, match=r"umaze-v0 cannot be written"):
        maker.make_pointmaze("umaze", steps=5, root=tmp_path)


def test_import_loads_no_environment_library():
    code = (
        "import sys, jaxdiff.data.windows, jaxdiff.data.episodes;"
        "heavy = {'gymnasium', 'gymnasium_robotics', 'mujoco', 'minari', 'h5py'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_relative_folder_of_datasets_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    maker.make_pointmaze("umaze", steps=50, root="data")
    dataset = load_dataset("pointmaze-umaze", root="data")
    assert dataset.episodes.lengths.tolist() == [50]


def test_a_drive_is_paid_for_the_one_goal_wherever_it_was_bound(tmp_path):
    maze = pointmaze.maze_by_name("umaze")
    goal = np.array([-1.0, 1.0])  # the centre of D4RL's cell, (1, 1)
    stream = maker.record_stream(maze, steps=1500, seed=3)
    RECIPES["pointmaze-umaze-single"].make(steps=1500, seed=3, root=tmp_path)
    dataset = load_dataset("pointmaze-umaze-single", root=tmp_path)
    episodes = dataset.episodes
    np.testing.assert_array_equal(
        episodes.observations[:1001], stream.observations[:1001]
    )
    np.testing.assert_array_equal(episodes.goals, np.tile(goal, (1502, 1)))
    near = np.linalg.norm(stream.observations[1:1001, :2] - goal, axis=-1) <= 0.45
    np.testing.assert_array_equal(episodes.rewards[:1000], near)
    assert 0 < near.sum() < 1000
    # Somewhere the drive was paid for its own goal and is not for this one.
    assert (stream.rewards[:1000] > episodes.rewards[:1000]).any()
    expert, _ = maze_references(
        maze, episodes=20, setting="single", seed=900_000, num_envs=20
    )
    assert dataset.references["expert"] == pytest.approx(
        expert.returns.mean(), rel=0.02
    )
    assert dataset.references["random"] < expert.returns.mean() / 2
    # The dataset of many goals is another one.
    with pytest.raises(UserError, match="has not been made"):
        load_dataset("pointmaze-umaze", root=tmp_path)
