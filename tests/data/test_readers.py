import json
import re

import h5py
import numpy as np
import pytest
from gymnasium import spaces
from records import make

from jaxdiff.data.episodes import check_episodes, episodes_of, fingerprint
from jaxdiff.data.readers import READERS, Reader, read
from jaxdiff.data.recording import Recording
from jaxdiff.data.spec import Environment
from jaxdiff.errors import UserError


def split(raw):
    """Read observations as tasks do."""
    if not isinstance(raw, dict):
        return raw.reshape(len(raw), -1), None
    return raw["observation"], raw.get("desired_goal")


def load(path, timeouts=None):
    episodes = episodes_of(read(path, timeouts), split, str(path))
    check_episodes(episodes, str(path))
    return episodes


def save(path, episodes, **changes):
    names = ("observations", "actions", "rewards", "starts", "lengths", "terminated")
    fields = {name: getattr(episodes, name) for name in names} | changes
    np.savez(path, **{k: v for k, v in fields.items() if v is not None})
    return path


def d4rl_fields(rows, *, ends=(), terminated=()):
    """Return `rows` transitions whose observation is their number."""
    x = np.arange(rows, dtype=np.float64)
    flags = {name: np.zeros(rows, bool) for name in ("timeouts", "terminals")}
    flags["timeouts"][list(ends)] = True
    flags["terminals"][list(terminated)] = True
    observations, actions = x[:, None], x[:, None] + 0.25
    rewards = x + 0.5
    return {
        "observations": observations,
        "actions": actions,
        "rewards": rewards,
        **flags,
    }


def save_d4rl(path, rows, *, ends=(), terminated=(), **changes):
    fields = d4rl_fields(rows, ends=ends, terminated=terminated) | changes
    with h5py.File(path, "w") as file:
        for name, value in fields.items():
            if value is not None:
                file[name] = value
    return path


def save_minari(root, dataset_id, buffers, observation_space, **metadata):
    """Store episodes; `metadata` may hold another `action_space`."""
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    folder = root / dataset_id
    folder.mkdir(parents=True)
    storage = MinariStorage.new(
        folder / "data",
        observation_space=observation_space,
        action_space=metadata.pop("action_space", spaces.Box(-1, 1, (1,))),
    )
    about = {"dataset_id": dataset_id, "minari_version": "0.5.4"}
    storage.update_metadata(about | metadata)
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


# --- the choice of a reader ---------------------------------------------------------


def test_a_file_is_read_as_what_it_holds_whatever_its_name(tmp_path):
    episodes = make([3, 2])
    path = save(tmp_path / "data.npz", episodes).rename(tmp_path / "data.bin")
    assert fingerprint(load(path)) == fingerprint(episodes)
    assert fingerprint(load(path.rename(tmp_path / "data.hdf5"))) == fingerprint(
        episodes
    )
    path = save_d4rl(tmp_path / "d.npz", 4, terminated=[3])
    assert load(path).lengths.tolist() == [4]


def test_a_path_that_holds_no_dataset_is_refused(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    for path in (text, tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError, match=f"{re.escape(str(path))} is no dataset"):
            read(path)


def test_a_format_of_ones_own_is_registered(tmp_path, monkeypatch):
    path = tmp_path / "one.mine"
    path.write_text("mine")

    def holds(path):
        return path.is_file() and path.read_bytes() == b"mine"

    def of_one(path):
        rows = np.zeros((2, 1))
        return Recording([rows], [rows[1:]], [np.zeros(1)], [True])

    monkeypatch.setitem(READERS, "mine", Reader(holds, of_one))
    assert load(path).lengths.tolist() == [1]


# --- NPZ ----------------------------------------------------------------------------


def test_npz_round_trip(tmp_path):
    episodes = make([3, 2], goals=True)
    path = save(tmp_path / "data.npz", episodes, goals=episodes.goals)
    assert fingerprint(load(path)) == fingerprint(episodes)
    recording = read(path)
    assert recording.environment is None
    assert recording.references == {}
    doubles = save(path, episodes, rewards=episodes.rewards.astype(np.float64))
    assert load(doubles).rewards.dtype == np.float32
    assert load(save(path, episodes)).goals is None


def test_npz_pictures_are_read_as_they_are_shaped(tmp_path):
    episodes = make([3, 2])
    pictures = np.arange(7 * 12, dtype=np.uint8).reshape(7, 2, 2, 3)
    path = save(tmp_path / "data.npz", episodes, observations=pictures)
    assert read(path).observations[1].shape == (3, 2, 2, 3)
    np.testing.assert_array_equal(load(path).observations, pictures.reshape(7, 12))


def test_npz_objects_beside_what_is_needed_do_no_harm(tmp_path):
    about = np.array([{"an": "object"}], dtype=object)
    path = save(tmp_path / "data.npz", make([3, 2]), about=about)
    assert fingerprint(load(path)) == fingerprint(make([3, 2]))


def test_npz_may_say_how_its_data_came(tmp_path, capsys):
    path = save(tmp_path / "data.npz", make([3, 2]), jaxdiff=np.array('{"seed": 3}'))
    assert read(path).metadata == {"seed": 3}
    assert not capsys.readouterr().err
    assert read(save(path, make([3, 2]))).metadata == {}
    for text in ("{", "[3]"):
        save(path, make([3, 2]), jaxdiff=np.array(text))
        with pytest.raises(UserError, match=r"data\.npz cannot be read as NPZ"):
            read(path)


def test_npz_in_the_layout_of_d4rl(tmp_path):
    fields = d4rl_fields(8, ends=[2], terminated=[5])
    goals = np.stack([np.arange(8.0), np.zeros(8)], axis=1)
    fields |= {"infos/goal": goals, "infos/more": np.array([{}], dtype=object)}
    np.savez(tmp_path / "d.npz", **fields)
    same = save_d4rl(
        tmp_path / "d.hdf5", 8, ends=[2], terminated=[5], **{"infos/goal": goals}
    )
    assert fingerprint(load(tmp_path / "d.npz")) == fingerprint(load(same))
    np.savez(tmp_path / "d.npz", **{k: x for k, x in fields.items() if k != "timeouts"})
    with pytest.raises(UserError, match=r"d\.npz has no field 'timeouts'"):
        load(tmp_path / "d.npz")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rewards": None}, "has no field 'rewards'"),
        ({"actions": np.zeros((7, 2), np.int64)}, "'actions' has type int64"),
        ({"lengths": np.array([2, 3])}, "'starts' does not follow"),
        ({"observations": np.zeros((6, 3))}, "'observations' has 6 rows"),
        ({"observations": np.float64(1)}, r"'observations' has shape \[\]"),
    ],
)
def test_npz_whose_fields_do_not_fit(changes, words, tmp_path):
    path = save(tmp_path / "data.npz", make([3, 2]), **changes)
    with pytest.raises(UserError, match=rf"data\.npz.*{words}"):
        load(path)


def test_bad_npz(tmp_path):
    path = save(tmp_path / "data.npz", make([3, 2]))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"data\.npz cannot be read as NPZ"):
        load(path)
    save(path, make([3, 2]), rewards=np.array([{}], dtype=object))
    with pytest.raises(UserError, match=r"data\.npz cannot be read as NPZ"):
        load(path)


# --- D4RL ---------------------------------------------------------------------------


def test_d4rl_ends(tmp_path):
    # Transitions 0-2 run out of time, 3-5 terminate, 6-7 are left over.
    path = save_d4rl(tmp_path / "d.hdf5", 8, ends=[2], terminated=[5])
    episodes = load(path, "episode")
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
    episodes = load(path)
    np.testing.assert_array_equal(episodes.lengths, [3, 3, 2])
    observations = [0, 1, 2, 102, 3, 4, 5, 105, 6, 7, 107]
    np.testing.assert_array_equal(episodes.observations[:, 0], observations)
    np.testing.assert_array_equal(episodes.terminated, [False, True, False])


def test_d4rl_terminal_wins_over_timeout_and_goals_are_read(tmp_path):
    goals = np.stack([np.arange(4.0), np.zeros(4)], axis=1)
    path = save_d4rl(
        tmp_path / "d.hdf5", 4, ends=[1, 3], terminated=[1], **{"infos/goal": goals}
    )
    episodes = load(path, "episode")
    np.testing.assert_array_equal(episodes.terminated, [True, False])
    np.testing.assert_array_equal(episodes.goals[:, 0], [0, 1, 1, 2, 2])


def test_d4rl_drops_an_episode_that_has_no_transition_left(tmp_path):
    path = save_d4rl(tmp_path / "d.hdf5", 4, ends=[0, 3])
    assert load(path, "episode").lengths.tolist() == [2]
    with pytest.raises(UserError, match=r"one\.hdf5 holds no episode"):
        load(save_d4rl(tmp_path / "one.hdf5", 1, ends=[0]))


def test_d4rl_is_one_stream_where_it_goes_on_over_every_timeout(tmp_path, capsys):
    path = save_d4rl(tmp_path / "d.hdf5", 200, ends=range(19, 200, 20))
    stream = load(path)
    assert stream.lengths.tolist() == [199]
    np.testing.assert_array_equal(stream.observations[:, 0], np.arange(200))
    assert "read as one stream" in capsys.readouterr().err
    assert load(path, "ignore").lengths.tolist() == [199]
    assert not capsys.readouterr().err
    cut = load(path, "episode")
    assert cut.lengths.tolist() == [19] * 10
    assert "10 transitions right before a timeout are left out" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("at", [20, 100, 180])
def test_d4rl_with_one_reset_is_no_stream(tmp_path, at):
    observations = np.arange(200.0)[:, None]
    observations[at:] += 1.5
    fields = {"observations": observations, "ends": range(19, 200, 20)}
    path = save_d4rl(tmp_path / "d.hdf5", 200, **fields)
    assert load(path).lengths.tolist() == [19] * 10


def test_d4rl_whose_next_observations_are_stored_is_cut_as_it_says(tmp_path):
    following = np.arange(200.0)[:, None] + 1
    ends = range(19, 200, 20)
    path = save_d4rl(tmp_path / "d.h5", 200, ends=ends, next_observations=following)
    assert load(path).lengths.tolist() == [20] * 10


def test_timeouts_mean_nothing_where_episodes_are_stated(tmp_path):
    path = save(tmp_path / "data.npz", make([3, 2]))
    folder = save_minari(
        tmp_path, "a-v0", [minari_buffer(np.ones((4, 2), np.float32))],
        spaces.Box(-9, 9, (2,), np.float32),
    )  # fmt: skip
    for stated in (path, folder):
        with pytest.raises(UserError, match="states where its episodes end"):
            load(stated, "ignore")


@pytest.mark.parametrize("kind", ["link", "storage", "virtual", "soft"])
def test_hdf5_that_reads_other_files_is_refused(tmp_path, kind):
    path = save_d4rl(tmp_path / "d.hdf5", 8, terminated=[5])
    other = save_d4rl(tmp_path / "other.hdf5", 8, terminated=[5])
    with h5py.File(path, "a") as file:
        del file["rewards"]
        if kind == "link":
            file["rewards"] = h5py.ExternalLink(str(other), "/rewards")
        elif kind == "storage":
            (tmp_path / "raw").write_bytes(bytes(64))
            external = [(str(tmp_path / "raw"), 0, 64)]
            file.create_dataset("rewards", (8,), np.float64, external=external)
        elif kind == "virtual":
            layout = h5py.VirtualLayout((8,), np.float64)
            layout[:] = h5py.VirtualSource(str(other), "rewards", (8,))
            file.create_virtual_dataset("rewards", layout)
        else:
            file["earned"] = np.arange(8.0)
            file["rewards"] = h5py.SoftLink("/earned")
    if kind == "soft":
        assert load(path).rewards.tolist() == [0, 1, 2, 3, 4, 5, 0, 6, 0]
        return
    with pytest.raises(UserError, match=r"d\.hdf5: /rewards lies in another file"):
        load(path)


def test_hdf5_whose_groups_hold_each_other_is_read(tmp_path):
    path = save_d4rl(tmp_path / "d.hdf5", 8, terminated=[5])
    with h5py.File(path, "a") as file:
        file["infos/again"] = file["/"]
    assert load(path).lengths.tolist() == [6, 1]


@pytest.mark.parametrize("kind", [np.int64, np.uint8, bool])
def test_whole_numbers_are_no_actions(tmp_path, kind):
    actions = np.ones((8, 1), kind)
    path = save_d4rl(tmp_path / "d.hdf5", 8, terminated=[5], actions=actions)
    with pytest.raises(UserError, match=f"actions are {np.dtype(kind)}; .*real"):
        load(path)


def test_numbers_beyond_float32_are_refused_without_a_warning(tmp_path, recwarn):
    x = np.arange(8.0)[:, None] * 1e200
    path = save_d4rl(tmp_path / "d.hdf5", 8, terminated=[5], observations=x)
    with pytest.raises(UserError, match=r"8 rows, first in row 1 \(float32"):
        load(path)
    assert not recwarn.list


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
        load(path)


@pytest.mark.parametrize("size", [0, 10, 500, 2000, -1])
def test_truncated_hdf5(size, tmp_path):
    path = save_d4rl(tmp_path / "d.hdf5", 800, ends=[5])
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"d\.hdf5 cannot be read as HDF5"):
        load(path)


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
    episodes = load(folder)
    np.testing.assert_array_equal(episodes.lengths, [3, 2])
    np.testing.assert_array_equal(episodes.terminated, [True, False])
    np.testing.assert_array_equal(episodes.observations[:, 0], [0, 1, 2, 3, 10, 11, 12])
    np.testing.assert_array_equal(episodes.rewards, [1, 2, 3, 0, 1, 2, 0])
    assert episodes.goals is None
    recording = read(folder)
    assert recording.environment is None
    assert recording.metadata == {"dataset_id": "my/toy-v3"}


def test_minari_says_what_recipes_and_the_server_wrote(tmp_path):
    folder = save_minari(
        tmp_path,
        "my/toy-v3",
        [minari_buffer(goal_dict(np.arange(3.0)[:, None], [7, 7, 7]))],
        goal_space(),
        description="a toy",
        ref_min_score=1,
        ref_max_score=3.5,
        algorithm_name="nobody",
        jaxdiff={"quality": "medium"},
    )
    recording = read(folder)
    assert recording.references == {"random": 1.0, "expert": 3.5}
    assert recording.metadata == {
        "dataset_id": "my/toy-v3",
        "description": "a toy",
        "quality": "medium",
    }
    np.testing.assert_array_equal(load(folder).goals[:, 0], [7, 7, 7])


def test_minari_environments_keep_id_arguments_and_limit_and_run_no_code(
    tmp_path, monkeypatch
):
    (tmp_path / "trap.py").write_text("raise SystemExit('the trap was imported')")
    monkeypatch.syspath_prepend(tmp_path)

    def stored(**changes):
        spec = {
            "id": "Toy-v1",
            "entry_point": "trap:Env",
            "vector_entry_point": "trap:Env",
            "reward_threshold": None,
            "nondeterministic": False,
            "max_episode_steps": 70,
            "order_enforce": True,
            "disable_env_checker": False,
            "kwargs": {"size": [1, 2], "render_mode": "human"},
            "additional_wrappers": [
                {"name": "Trap", "entry_point": "trap:Wrapper", "kwargs": {}}
            ],
        }
        return json.dumps(spec | changes)

    folder = save_minari(
        tmp_path,
        "my/toy-v3",
        [minari_buffer(goal_dict(np.arange(3.0)[:, None], [7, 7, 7]))],
        goal_space(),
        env_spec=stored(),
        eval_env_spec=stored(id="Toy-v2", max_episode_steps=None, kwargs={}),
    )
    recording = read(folder)
    assert recording.environment == Environment("Toy-v1", {"size": [1, 2]}, 70)
    assert recording.evaluation == Environment("Toy-v2", {}, None)


def test_minari_entries_that_no_task_reads_are_left_out_with_a_note(tmp_path, capsys):
    from gymnasium import spaces

    rows = np.arange(3.0)[:, None]
    pictures = np.zeros((3, 2, 2, 3), np.uint8)
    space = goal_space()
    space["image"] = spaces.Box(0, 255, (2, 2, 3), np.uint8)
    folder = save_minari(
        tmp_path,
        "my/toy-v3",
        [minari_buffer(goal_dict(rows, [7, 7, 7]) | {"image": pictures})],
        space,
    )
    assert list(read(folder).observations[0]) == ["observation", "desired_goal"]
    assert "image of the observations are left out" in capsys.readouterr().err


def test_minari_spaces_that_are_not_supported_are_named(tmp_path):
    from gymnasium import spaces

    box = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    rows, few = np.arange(3.0)[:, None], np.zeros(3, np.int64)
    buffer = minari_buffer(rows)
    observed = [
        (spaces.Discrete(4), few, "observations of Discrete"),
        (spaces.MultiBinary(2), np.zeros((3, 2), np.int8), "of MultiBinary"),
        (spaces.Tuple([box, box]), (rows, rows), "observations of Tuple"),
        (
            spaces.Dict({"observation": spaces.Dict({"a": box})}),
            {"observation": {"a": rows}},
            "observations of Dict",
        ),
    ]
    for i, (space, observations, words) in enumerate(observed):
        folder = save_minari(
            tmp_path, f"a/{i}-v0", [buffer | {"observations": observations}], space
        )
        with pytest.raises(UserError, match=f"{i}-v0: .*{words}.* not supported"):
            read(folder)
    folder = save_minari(
        tmp_path,
        "a/acts-v0",
        [buffer | {"actions": few[1:]}],
        box,
        action_space=spaces.Discrete(4),
    )
    with pytest.raises(UserError, match=r"acts-v0: actions of Discrete\(4\) are not"):
        read(folder)


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
        load(folder)
    folder = save_minari(tmp_path, "a/empty-v0", [], box)
    with pytest.raises(UserError, match="empty-v0 holds no episodes"):
        load(folder)
    short = minari_buffer(rows) | {"rewards": np.zeros(1)}
    folder = save_minari(tmp_path, "a/short-v0", [short], box)
    with pytest.raises(UserError, match=r"short-v0: episode 0 has 2 actions and 1 rew"):
        load(folder)
    folder = save_minari(tmp_path, "a/cut-v0", [minari_buffer(rows)], box)
    file = folder / "data" / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="cut-v0 cannot be read as a Minari dataset"):
        load(folder)
    (folder / "data" / "metadata.json").write_text("{")
    with pytest.raises(UserError, match="cut-v0 cannot be read as a Minari dataset"):
        load(folder)


@pytest.mark.parametrize("value", [np.nan, 0.5, 2.0, -1.0])
def test_a_flag_that_is_neither_0_nor_1_is_refused(tmp_path, value):
    for name in ("timeouts", "terminals"):
        flags = np.zeros(6)
        flags[2] = value
        path = save_d4rl(tmp_path / f"{name}.hdf5", 6, **{name: flags})
        with pytest.raises(
            UserError, match=f"{name!r} must be one flag per row, 0 or 1"
        ):
            read(path)


def test_arrays_that_are_not_read_are_named(tmp_path, capsys):
    episodes = make([3, 2])
    save(tmp_path / "a.npz", episodes, goal=np.zeros(7))
    save_d4rl(tmp_path / "a.hdf5", 6, goal=np.zeros(6), **{"infos/qpos": np.zeros(6)})
    for name in ("a.npz", "a.hdf5"):
        read(tmp_path / name)
        said = capsys.readouterr().err
        assert f"{name}: goal is not read; there are the fields observations" in said
        assert "qpos" not in said
    read(save(tmp_path / "b.npz", episodes))
    assert not capsys.readouterr().err
