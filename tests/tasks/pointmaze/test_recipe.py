"""Recorded drives are the environment's, repeatable, and stored all at once."""

import json
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from jaxdiff.errors import UserError
from jaxdiff.tasks.lookup import load_dataset
from jaxdiff.tasks.pointmaze import recipe as maker
from jaxdiff.tasks.pointmaze import world as pointmaze
from jaxdiff.tasks.pointmaze.drive import REFERENCE_EPISODES
from jaxdiff.tasks.pointmaze.environment import make_maze
from jaxdiff.tasks.pointmaze.recipe import RECIPES, MapOptions
from jaxdiff.tasks.pointmaze.scores import maze_references

pytest.importorskip("gymnasium_robotics")


def test_expert_earns_its_known_return_and_random_little():
    # 200 episodes gave 234.1 +- 3.0 and 17.0 +- 2.9 (mean and its standard error).
    references = maker.measure_references(
        pointmaze.maze_by_name("umaze"), episodes=12, seed=3
    )
    assert 200 < references["expert"] < 268
    assert references["random"] < 60


@pytest.mark.parametrize("name", ["umaze", "medium"])
def test_stream_is_exactly_the_environments(name):
    maze = pointmaze.maze_by_name(name)
    stream = maker.record_stream(maze, steps=700, seed=5)
    env = make_maze(maze, reset_target=True, max_episode_steps=10**6)
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
    assert dataset.environment.id == "PointMaze_UMaze-v3"
    assert dataset.metadata["setting"] == "multi"
    assert dataset.metadata["stream"]
    assert dataset.references["expert"] > 150 > dataset.references["random"]
    metadata = json.loads((folder / "data" / "metadata.json").read_text())
    assert len(metadata["jaxdiff"]["references"]["seeds"]) == REFERENCE_EPISODES

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
    with pytest.raises(UserError, match="`steps` is 0"):
        maker.make_pointmaze("umaze", steps=0, root=tmp_path)
    for noise in (np.nan, np.inf, -0.1):
        with pytest.raises(UserError, match=f"`noise` is {noise}"):
            maker.make_pointmaze("umaze", steps=5, noise=noise, root=tmp_path)
    (tmp_path / "jaxdiff").write_text("a file where a folder must be")
    with pytest.raises(UserError, match=r"umaze-v0 cannot be written"):
        maker.make_pointmaze("umaze", steps=5, root=tmp_path)


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
    assert dataset.metadata["setting"] == "single"
    expert, _ = maze_references(maze, episodes=20, setting="single", seed=900_000)
    assert dataset.references["expert"] == pytest.approx(
        expert.returns.mean(), rel=0.02
    )
    assert dataset.references["random"] < expert.returns.mean() / 2
    # The dataset of many goals is another one.
    with pytest.raises(UserError, match="has not been made"):
        load_dataset("pointmaze-umaze", root=tmp_path)


CORNER = "####\n#..#\n#.1#\n####\n"


def test_a_map_of_ones_own_is_recorded_and_travels_with_the_data(tmp_path):
    file = tmp_path / "corner.txt"
    file.write_text(CORNER)
    recipe = RECIPES["pointmaze"]
    options = vars(MapOptions(map=str(file)))
    folder = recipe.make(steps=300, seed=1, root=tmp_path, **options)
    assert folder == tmp_path / "jaxdiff" / "pointmaze" / "corner-v0"
    dataset = load_dataset("jaxdiff/pointmaze/corner-v0", root=tmp_path)
    maze = pointmaze.maze_of(dataset.evaluation)
    assert maze.map == ("####", "#..#", "#.##", "####")
    positions = dataset.episodes.observations[:, :2]
    assert pointmaze.is_free(maze, positions).all()
    assert dataset.episodes.rewards.sum() > 1
    again = recipe.make(steps=300, seed=1, root=tmp_path, map=str(file), name="other")
    assert again.name == "other-v0"
    assert load_dataset(again).fingerprint == dataset.fingerprint
    with pytest.raises(UserError, match="cannot be called 'a/b'"):
        recipe.make(steps=300, map=str(file), name="a/b", root=tmp_path)
    with pytest.raises(UserError, match=r"nowhere.txt cannot be read"):
        recipe.make(steps=300, map=str(tmp_path / "nowhere.txt"), root=tmp_path)
