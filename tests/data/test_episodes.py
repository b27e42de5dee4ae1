import numpy as np
import pytest
from records import make

from jaxdiff.data.episodes import (
    check_episodes,
    episodes_of,
    fingerprint,
    join_episodes,
    renew_stale_goals,
    split_episodes,
    starts_of,
    take_episodes,
)
from jaxdiff.data.recording import Recording
from jaxdiff.errors import UserError


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


# --- recordings ---------------------------------------------------------------------


def recording(**changes):
    parts = {
        "observations": [np.arange(4.0)[:, None], np.arange(3.0)[:, None] + 10],
        "actions": [np.ones((3, 1)), np.ones((2, 1))],
        "rewards": [np.arange(1.0, 4), np.arange(1.0, 3)],
        "terminated": [True, False],
    }
    return Recording(**(parts | changes))


def no_goal(raw):
    return raw, None


def test_episodes_lie_one_after_another_and_end_in_zero():
    episodes = episodes_of(recording(), no_goal, "here")
    check_episodes(episodes, "here")
    np.testing.assert_array_equal(episodes.lengths, [3, 2])
    np.testing.assert_array_equal(episodes.observations[:, 0], [0, 1, 2, 3, 10, 11, 12])
    np.testing.assert_array_equal(episodes.rewards, [1, 2, 3, 0, 1, 2, 0])
    np.testing.assert_array_equal(episodes.terminated, [True, False])
    assert episodes.observations.dtype == np.float32
    assert episodes.goals is None


def test_the_goals_of_the_task_come_before_those_that_are_stored_beside():
    stored = [np.full((4, 1), 5.0), np.full((3, 1), 6.0)]
    beside = episodes_of(recording(goals=stored), no_goal, "here")
    np.testing.assert_array_equal(beside.goals[:, 0], [5] * 4 + [6] * 3)
    read = episodes_of(recording(goals=stored), lambda raw: (raw, raw + 1), "here")
    np.testing.assert_array_equal(read.goals, read.observations + 1)


def test_pictures_stay_bytes():
    pictures = [np.ones((4, 12), np.uint8), np.ones((3, 12), np.uint8)]
    episodes = episodes_of(recording(observations=pictures), no_goal, "here")
    assert episodes.observations.dtype == np.uint8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"rewards": [np.ones(3), np.ones(1)]},
            "episode 1 has 2 .* 1 rewards",
        ),
        ({"observations": [np.ones((3, 1))] * 2}, "episode 0 .* 3 observations.* 4"),
        ({"goals": [np.ones((3, 1))] * 2}, "episode 0 has 3 actions and 3 goals"),
        ({"actions": [np.ones((3, 1)), np.ones((2, 2))]}, "differ in the size"),
    ],
)
def test_episodes_that_do_not_fit_are_a_user_error(changes, words):
    with pytest.raises(UserError, match=rf"^here.*{words}"):
        episodes_of(recording(**changes), no_goal, "here")


def goals_of(*episodes):
    return [np.array(goals, float)[:, None] for goals in episodes]


def test_goals_that_an_environment_announced_late_are_renewed():
    # The first row of each episode still shows the goal before.
    found = renew_stale_goals(goals_of([7, 8, 8], [8, 9, 9], [9, 5, 5], [5, 6, 6]))
    for goals, goal in zip(found, (8, 9, 5, 6), strict=True):
        np.testing.assert_array_equal(goals[:, 0], [goal] * 3)


@pytest.mark.parametrize(
    "goals",
    [
        # A single episode shows no pattern.
        [[7, 8, 8]],
        # The goal changes within an episode, but the one before is not the last one.
        [[7, 8, 8], [3, 9, 9], [4, 5, 5]],
        # A stream that is cut anywhere: goals go on.
        [[7, 8, 8], [8, 8, 8], [8, 8, 9], [9, 9, 9]],
        # An episode of one row.
        [[7, 7], [7]],
        [],
    ],
)
def test_other_goals_are_left_alone(goals):
    goals = goals_of(*goals)
    for found, given in zip(renew_stale_goals(goals), goals, strict=True):
        np.testing.assert_array_equal(found, given)
