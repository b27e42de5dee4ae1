import io
import re
import sys
import warnings

import h5py
import numpy as np
import pytest

from jaxdiff.data.episodes import (
    Episodes,
    check_episodes,
    fingerprint,
    join_episodes,
    load_dataset,
    split_episodes,
    starts_of,
    take_episodes,
)
from jaxdiff.errors import UserError
from jaxdiff.progress import progress
from jaxdiff.tasks.recipes import RECIPES


def make(lengths, *, goals=False):
    lengths = np.array(lengths)
    rows = int((lengths + 1).sum())
    ends = starts_of(lengths) + lengths
    x = np.arange(1.0, rows + 1, dtype=np.float32)
    actions, rewards = np.stack([x, -x], axis=1), x.copy()
    actions[ends], rewards[ends] = 0, 0
    return Episodes(
        observations=np.stack([x, x, x], axis=1),
        actions=actions,
        rewards=rewards,
        starts=starts_of(lengths),
        lengths=lengths,
        terminated=np.arange(len(lengths)) % 2 == 0,
        goals=np.stack([x, x], axis=1) if goals else None,
    )


def save(path, episodes, **changes):
    names = ("observations", "actions", "rewards", "starts", "lengths", "terminated")
    fields = {name: getattr(episodes, name) for name in names} | changes
    np.savez(path, **{k: v for k, v in fields.items() if v is not None})
    return path


def save_d4rl(path, rows, *, ends=(), terminated=(), **changes):
    """Store `rows` transitions whose observation is their number."""
    x = np.arange(rows, dtype=np.float64)
    flags = {name: np.zeros(rows, bool) for name in ("timeouts", "terminals")}
    flags["timeouts"][list(ends)] = True
    flags["terminals"][list(terminated)] = True
    fields = {
        "observations": x[:, None],
        "actions": x[:, None] + 0.25,
        "rewards": x + 0.5,
        **flags,
        **changes,
    }
    with h5py.File(path, "w") as file:
        for name, value in fields.items():
            if value is not None:
                file[name] = value
    return path


def save_minari(root, dataset_id, buffers, observation_space):
    from gymnasium import spaces
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    folder = root / dataset_id
    folder.mkdir(parents=True)
    storage = MinariStorage.new(
        folder / "data",
        observation_space=observation_space,
        action_space=spaces.Box(-1, 1, (1,)),
    )
    storage.update_metadata({"dataset_id": dataset_id, "minari_version": "0.5.4"})
    storage.update_episodes([EpisodeBuffer(**buffer) for buffer in buffers])
    return folder


def minari_buffer(observations, *, terminated=False):
    rows = observations if not isinstance(observations, dict) else observations["x"]
    if isinstance(observations, dict):
        observations = {k: v for k, v in observations.items() if k != "x"}
    steps = len(rows) - 1
    end = np.arange(steps) == steps - 1
    return {
        "observations": observations,
        "actions": np.ones((steps, 1), np.float32),
        "rewards": np.arange(1.0, steps + 1),
        "terminations": end & terminated,
        "truncations": end & (not terminated),
    }


# --- the record ---------------------------------------------------------------------


def test_a_sound_record_passes():
    check_episodes(make([3, 1, 4], goals=True), "here")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"observations": np.full((5, 3), np.nan, np.float32)},
            "'observations' .*row 0",
        ),
        ({"actions": np.array([["a"]] * 5)}, "'actions' has type <U1"),
        ({"actions": np.zeros((5, 2), np.int64)}, "'actions' has type int64"),
        ({"rewards": np.zeros((5, 1), np.float32)}, r"'rewards' has shape \[5, 1\]"),
        ({"rewards": np.zeros(4, np.float32)}, "'rewards' has 4 rows.* 5"),
        ({"lengths": np.array([4, 0])}, "episode 1 has no transitions"),
        ({"lengths": np.zeros(0, int), "starts": np.zeros(0, int)}, "no episodes"),
        ({"terminated": np.zeros(2, bool)}, "'terminated' has 2 entries"),
        ({"terminated": np.zeros(1)}, "'terminated' has type float64; bool"),
        ({"starts": np.array([1])}, "'starts' does not follow"),
        ({"goals": np.zeros((4, 2), np.float32)}, "'goals' has 4 rows"),
        ({"goals": np.full((5, 2), np.inf, np.float32)}, "'goals' is not finite"),
    ],
)
def test_an_unsound_record_is_a_user_error_naming_place_and_field(changes, words):
    if "lengths" in changes and len(changes["lengths"]) == 2:
        changes = changes | {
            "starts": np.array([0, 5]),
            "terminated": np.zeros(2, bool),
        }
    with pytest.raises(UserError, match=rf"^data\.npz.*{words}"):
        check_episodes(make([4]).replace(**changes), "data.npz")


def test_nan_names_the_first_row_and_their_number():
    episodes = make([4, 3])
    episodes.rewards[[3, 6]] = np.nan
    with pytest.raises(UserError, match=r"'rewards' .* 2 rows, first in row 3"):
        check_episodes(episodes, "here")


def test_fingerprint_sees_every_array_and_nothing_else():
    episodes = make([3, 2], goals=True)
    digest = fingerprint(episodes)
    assert digest == fingerprint(make([3, 2], goals=True))
    assert len(digest) == 64
    for name in ("observations", "actions", "rewards", "goals"):
        changed = getattr(episodes, name).copy()
        changed.flat[-1] += 1
        assert fingerprint(episodes.replace(**{name: changed})) != digest
    assert fingerprint(episodes.replace(terminated=np.ones(2, bool))) != digest
    assert fingerprint(make([2, 3], goals=True)) != digest
    assert fingerprint(make([3, 2])) != digest


def test_take_episodes_keeps_whole_episodes():
    episodes = make([3, 1, 2], goals=True)
    taken = take_episodes(episodes, [2, 0])
    check_episodes(taken, "taken")
    rows = [6, 7, 8, 0, 1, 2, 3]
    np.testing.assert_array_equal(taken.observations, episodes.observations[rows])
    np.testing.assert_array_equal(taken.goals, episodes.goals[rows])
    np.testing.assert_array_equal(taken.lengths, [2, 3])
    np.testing.assert_array_equal(taken.terminated, [True, True])


def test_split_parts_the_episodes_the_same_way_each_time():
    episodes = make(list(range(1, 41)))
    train, held_out = split_episodes(episodes, held_out=0.1)
    for part in (train, held_out):
        check_episodes(part, "part")
        assert (np.diff(part.lengths) > 0).all()
    assert len(held_out.lengths) == 4
    assert set(train.lengths) | set(held_out.lengths) == set(range(1, 41))
    again = split_episodes(episodes, held_out=0.1)
    assert fingerprint(again[1]) == fingerprint(held_out)
    other = split_episodes(episodes, held_out=0.1, seed=1)
    assert fingerprint(other[1]) != fingerprint(held_out)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.99, 1.0])
def test_split_leaves_something_on_both_sides(share):
    for lengths in ([3, 3], [50]):
        for part in split_episodes(make(lengths), held_out=share):
            check_episodes(part, "part")


def test_a_single_episode_is_cut_in_time():
    episodes = make([10], goals=True)
    train, held_out = split_episodes(episodes, held_out=0.3)
    assert (train.lengths[0], held_out.lengths[0]) == (7, 3)
    np.testing.assert_array_equal(train.observations[-1], held_out.observations[0])
    np.testing.assert_array_equal(train.actions[:-1], episodes.actions[:7])
    np.testing.assert_array_equal(held_out.actions[:-1], episodes.actions[7:10])
    assert not train.terminated[0]
    assert held_out.terminated[0]
    assert (train.actions[-1] == 0).all()
    assert train.rewards[-1] == 0
    assert episodes.rewards[7] != 0  # the original is untouched
    with pytest.raises(UserError, match="cannot be split"):
        split_episodes(make([1]))


def cut_stream(lengths, *, goals=False):
    """A stream cut as data makers cut it: each cut's observation is stored twice."""
    episodes = make([sum(lengths)], goals=goals)
    ends = np.cumsum(lengths)
    rows = np.concatenate(
        [np.arange(end - n, end + 1) for n, end in zip(lengths, ends, strict=True)]
    )
    last = starts_of(np.array(lengths)) + lengths
    actions, rewards = episodes.actions[rows], episodes.rewards[rows]
    actions[last], rewards[last] = 0, 0
    cut = episodes.replace(
        observations=episodes.observations[rows],
        actions=actions,
        rewards=rewards,
        starts=starts_of(np.array(lengths)),
        lengths=np.array(lengths),
        terminated=np.arange(len(lengths)) == len(lengths) - 1,
        goals=episodes.goals[rows] if goals else None,
    )
    check_episodes(cut, "cut")
    return episodes, cut


@pytest.mark.parametrize("lengths", [[3, 4], [1, 1, 1], [5, 2, 7, 1]])
def test_joining_undoes_a_cut_exactly(lengths):
    stream, cut = cut_stream(lengths, goals=True)
    joined = join_episodes(cut)
    check_episodes(joined, "joined")
    assert fingerprint(joined) == fingerprint(stream)


def test_joining_stops_at_ends_of_the_task_and_at_jumps():
    _, cut = cut_stream([3, 2, 4, 5, 6])
    cut.terminated[1] = True
    cut.observations[cut.starts[3], 0] += 1e-3  # a reset, close by
    joined = join_episodes(cut)
    check_episodes(joined, "joined")
    np.testing.assert_array_equal(joined.lengths, [5, 4, 11])
    np.testing.assert_array_equal(joined.terminated, [True, False, True])


def test_joining_leaves_other_data_alone():
    for lengths in ([3, 1, 4], [6]):
        episodes = make(lengths)
        assert join_episodes(episodes) is episodes


def test_the_end_of_a_joined_stream_is_held_out():
    stream, cut = cut_stream([40, 40, 20])
    train, held_out = split_episodes(join_episodes(cut), held_out=0.1)
    np.testing.assert_array_equal(train.lengths, [90])
    np.testing.assert_array_equal(held_out.observations, stream.observations[90:])


# --- names --------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_recipe_not_made_yet_prints_the_command(recipe, tmp_path):
    with pytest.raises(UserError, match=f"`jaxdiff data make {recipe}`"):
        load_dataset(recipe, root=tmp_path)


def test_unknown_name_lists_the_recipes(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    for name in ("pointmaze-tiny", "D4RL/pointmaze/umaze-v2", "a b"):
        with pytest.raises(UserError, match="pointmaze-umaze") as error:
            load_dataset(name)
        assert str(tmp_path) in str(error.value)
    with pytest.raises(UserError, match="pointmaze-umaze"):
        load_dataset("pointmaze-tiny", download=True)


def test_remote_dataset_without_network(tmp_path, monkeypatch):
    import minari

    def fail(name):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(minari, "download_dataset", fail)
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    with pytest.raises(UserError, match=r"'D4RL/door/human-v2' \(no route to host\)"):
        load_dataset("D4RL/door/human-v2", root=tmp_path, download=True)
    import os

    assert "MINARI_DATASETS_PATH" not in os.environ


@pytest.mark.parametrize("name", ["none.hdf5", "none.npz", "/none/at/all"])
def test_missing_path(name):
    with pytest.raises(UserError, match=f"no file or folder {name}"):
        load_dataset(name)


def test_path_that_is_no_dataset(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    for path in (text, tmp_path, "."):
        with pytest.raises(UserError, match=f"{re.escape(str(path))} is no dataset"):
            load_dataset(path)


# --- NPZ ----------------------------------------------------------------------------


def test_npz_round_trip(tmp_path):
    episodes = make([3, 2], goals=True)
    path = save(tmp_path / "data.npz", episodes, goals=episodes.goals)
    dataset = load_dataset(path)
    assert dataset.fingerprint == fingerprint(episodes)
    assert dataset.environment is None
    assert dataset.references == {}
    doubles = save(path, episodes, rewards=episodes.rewards.astype(np.float64))
    assert load_dataset(doubles).episodes.rewards.dtype == np.float32
    assert load_dataset(save(path, episodes)).episodes.goals is None


def test_bad_npz(tmp_path):
    path = save(tmp_path / "data.npz", make([3, 2]), rewards=None)
    with pytest.raises(UserError, match=r"data\.npz has no field 'rewards'"):
        load_dataset(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"data\.npz cannot be read as NPZ"):
        load_dataset(path)
    save(path, make([3, 2]), rewards=np.array([{}], dtype=object))
    with pytest.raises(UserError, match=r"data\.npz cannot be read as NPZ"):
        load_dataset(path)


# --- D4RL ---------------------------------------------------------------------------


def test_d4rl_ends(tmp_path):
    # Transitions 0-2 run out of time, 3-5 terminate, 6-7 are left over.
    path = save_d4rl(tmp_path / "d.hdf5", 8, ends=[2], terminated=[5])
    episodes = load_dataset(path).episodes
    # Without next observations the last transition of 0-2 and of 6-7 goes, and the
    # terminated episode ends in its last observation once more.
    np.testing.assert_array_equal(episodes.lengths, [2, 3, 1])
    np.testing.assert_array_equal(episodes.terminated, [False, True, False])
    observations = [0, 1, 2, 3, 4, 5, 5, 6, 7]
    np.testing.assert_array_equal(episodes.observations[:, 0], observations)
    actions = [0.25, 1.25, 0, 3.25, 4.25, 5.25, 0, 6.25, 0]
    np.testing.assert_array_equal(episodes.actions[:, 0], actions)
    rewards = [0.5, 1.5, 0, 3.5, 4.5, 5.5, 0, 6.5, 0]
    np.testing.assert_array_equal(episodes.rewards, rewards)
    assert episodes.observations.dtype == np.float32


def test_d4rl_with_next_observations_keeps_every_transition(tmp_path):
    following = np.arange(8.0)[:, None] + 1
    following[[2, 5, 7]] = [[102], [105], [107]]
    path = save_d4rl(
        tmp_path / "d.h5", 8, ends=[2], terminated=[5], next_observations=following
    )
    episodes = load_dataset(path).episodes
    np.testing.assert_array_equal(episodes.lengths, [3, 3, 2])
    observations = [0, 1, 2, 102, 3, 4, 5, 105, 6, 7, 107]
    np.testing.assert_array_equal(episodes.observations[:, 0], observations)
    np.testing.assert_array_equal(episodes.terminated, [False, True, False])


def test_d4rl_terminal_wins_over_timeout_and_goals_are_read(tmp_path):
    goals = np.stack([np.arange(4.0), np.zeros(4)], axis=1)
    path = save_d4rl(
        tmp_path / "d.hdf5", 4, ends=[1, 3], terminated=[1], **{"infos/goal": goals}
    )
    episodes = load_dataset(path).episodes
    np.testing.assert_array_equal(episodes.terminated, [True, False])
    np.testing.assert_array_equal(episodes.goals[:, 0], [0, 1, 1, 2, 2])


def test_d4rl_drops_an_episode_that_has_no_transition_left(tmp_path):
    path = save_d4rl(tmp_path / "d.hdf5", 4, ends=[0, 3])
    assert load_dataset(path).episodes.lengths.tolist() == [2]
    with pytest.raises(UserError, match=r"one\.hdf5 holds no episode"):
        load_dataset(save_d4rl(tmp_path / "one.hdf5", 1, ends=[0]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"timeouts": None}, "no field 'timeouts'"),
        ({"rewards": np.zeros(3)}, r"'rewards' has shape \[3\]"),
        ({"actions": np.float64(1)}, r"'actions' has shape \[\]"),
        ({"actions": np.zeros(8)}, "'actions' has shape"),
        ({"actions": np.array([[b"x"]] * 8)}, "'actions' has type"),
        ({"rewards": np.full(8, np.nan)}, "'rewards' is not finite"),
        (
            {"next_observations": np.zeros((8, 3))},
            r"'next_observations' has shape \[8, 3",
        ),
        ({"timeouts": np.zeros((8, 2))}, "'timeouts' must be one flag per row"),
        ({"terminals": np.array([b"x"] * 8)}, "'terminals' must be one flag per row"),
        ({"observations": np.float64(1)}, r"'observations' has shape \[\]"),
        ({"observations": np.zeros((8, 0))}, "not empty"),
    ],
)
def test_bad_d4rl(changes, words, tmp_path):
    path = save_d4rl(tmp_path / "d.hdf5", 8, terminated=[5], **changes)
    with pytest.raises(UserError, match=rf"d\.hdf5.*{words}"):
        load_dataset(path)


@pytest.mark.parametrize("size", [0, 10, 500, 2000, -1])
def test_truncated_hdf5(size, tmp_path):
    path = save_d4rl(tmp_path / "d.hdf5", 800, ends=[5])
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"d\.hdf5 cannot be read as HDF5"):
        load_dataset(path)


# --- Minari -------------------------------------------------------------------------


def goal_dict(rows, goals):
    return {
        "x": rows,
        "observation": rows,
        "desired_goal": np.asarray(goals, np.float64)[:, None],
    }


def goal_space():
    from gymnasium import spaces

    box = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    return spaces.Dict({"observation": box, "desired_goal": box})


def test_minari_box_observations(tmp_path):
    from gymnasium import spaces

    rows = np.arange(4.0)[:, None]
    folder = save_minari(
        tmp_path,
        "my/toy-v3",
        [minari_buffer(rows, terminated=True), minari_buffer(rows[:3] + 10)],
        spaces.Box(-np.inf, np.inf, (1,), np.float64),
    )
    by_id = load_dataset("my/toy-v3", root=tmp_path)
    episodes = by_id.episodes
    np.testing.assert_array_equal(episodes.lengths, [3, 2])
    np.testing.assert_array_equal(episodes.terminated, [True, False])
    np.testing.assert_array_equal(episodes.observations[:, 0], [0, 1, 2, 3, 10, 11, 12])
    np.testing.assert_array_equal(episodes.rewards, [1, 2, 3, 0, 1, 2, 0])
    assert episodes.goals is None
    assert by_id.environment is None
    assert load_dataset(folder).fingerprint == by_id.fingerprint


def test_stale_goals_of_cut_episodes_are_mended(tmp_path):
    rows = np.arange(3.0)[:, None]
    # The first row still shows the goal before: 7 instead of 8.
    buffers = [minari_buffer(goal_dict(rows, [7, 8, 8]))]
    save_minari(tmp_path, "D4RL/pointmaze/umaze-v2", buffers, goal_space())
    episodes = load_dataset("D4RL/pointmaze/umaze-v2", root=tmp_path).episodes
    np.testing.assert_array_equal(episodes.goals[:, 0], [8, 8, 8])
    save_minari(tmp_path, "other/maze-v0", buffers, goal_space())
    episodes = load_dataset("other/maze-v0", root=tmp_path).episodes
    np.testing.assert_array_equal(episodes.goals[:, 0], [7, 8, 8])


def test_bad_minari(tmp_path):
    from gymnasium import spaces

    box = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    rows = np.arange(3.0)[:, None]
    folder = save_minari(
        tmp_path,
        "a/dict-v0",
        [minari_buffer({"x": rows, "pixels": rows})],
        spaces.Dict({"pixels": box}),
    )
    with pytest.raises(UserError, match=r"dict-v0: .*'observation'.*pixels"):
        load_dataset(folder)
    folder = save_minari(tmp_path, "a/empty-v0", [], box)
    with pytest.raises(UserError, match="empty-v0 holds no episodes"):
        load_dataset(folder)
    short = minari_buffer(rows) | {"rewards": np.zeros(1)}
    folder = save_minari(tmp_path, "a/short-v0", [short], box)
    with pytest.raises(UserError, match=r"short-v0: episode 0 has 2 actions and 1 rew"):
        load_dataset(folder)
    folder = save_minari(tmp_path, "a/cut-v0", [minari_buffer(rows)], box)
    file = folder / "data" / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="cut-v0 cannot be read as a Minari dataset"):
        load_dataset(folder)
    (folder / "data" / "metadata.json").write_text("{")
    with pytest.raises(UserError, match="cut-v0 cannot be read as a Minari dataset"):
        load_dataset(folder)


# --- progress -----------------------------------------------------------------------


def test_progress_in_a_log_is_plain_lines(monkeypatch):
    out, now = io.StringIO(), [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with progress(100, "counting", unit="sheep", file=out) as update:
        for _ in range(50):
            now[0] += 1.0
            update(2, loss=0.125)
    lines = out.getvalue().splitlines()
    assert 4 <= len(lines) <= 7
    assert "\r" not in out.getvalue()
    assert lines[0] == "counting: 20/100 [00:10<00:40,  2.00 sheep/s, loss=0.125]"
    assert "100/100" in lines[-1]


def test_progress_on_a_terminal_is_a_bar(monkeypatch):
    out = io.StringIO()
    out.isatty = lambda: True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with progress(10, "counting", file=out) as update:
            update(10, loss=1.0)
    assert "\r" in out.getvalue()
    assert "100%" in out.getvalue()
    assert sys.stderr is not out
