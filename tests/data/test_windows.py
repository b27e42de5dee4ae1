import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.data.episodes import Episodes, join_episodes, starts_of
from jaxdiff.data.normalizer import fit_limits, normalize
from jaxdiff.data.windows import (
    Windows,
    draw_window,
    padded_windows,
    return_to_go,
    take_window,
    window_starts,
)
from jaxdiff.errors import UserError


def make(lengths, terminated=None, seed=0):
    lengths = np.array(lengths)
    rows = int((lengths + 1).sum())
    rng = np.random.default_rng(seed)
    ends = starts_of(lengths) + lengths
    actions, rewards = rng.normal(size=(rows, 1)), rng.normal(size=rows)
    actions[ends], rewards[ends] = 0, 0
    return Episodes(
        observations=np.arange(2.0 * rows, dtype=np.float32).reshape(rows, 2) + 100,
        actions=actions.astype(np.float32),
        rewards=rewards.astype(np.float32),
        starts=starts_of(lengths),
        lengths=lengths,
        terminated=np.zeros(len(lengths), bool) if terminated is None else terminated,
    )


def rows_of(episodes):
    return np.concatenate([episodes.actions, episodes.observations], axis=1)


def test_starts_include_the_last_legal_one_and_no_other():
    # Rows 0-5, 6-8 and 9-13; the last row of each has no action.
    episodes = make([5, 2, 4])
    np.testing.assert_array_equal(window_starts(episodes, 3), [0, 1, 2, 9, 10])
    np.testing.assert_array_equal(window_starts(episodes, 5), [0])
    padded = window_starts(episodes, 3, padding=True)
    np.testing.assert_array_equal(padded, [0, 1, 2, 6, 9, 10])
    over = episodes.replace(terminated=np.array([True, True, False]))
    padded = window_starts(over, 3, padding=True)
    np.testing.assert_array_equal(padded, [0, 1, 2, 3, 4, 6, 7, 9, 10])
    assert window_starts(episodes, 3).dtype == np.int32


def test_too_long_a_horizon_is_a_user_error():
    with pytest.raises(UserError, match=r"horizon 6 .*longest episode has 5"):
        window_starts(make([5, 2]), 6)


def test_drawn_windows_are_uniform_over_the_starts_and_never_cross():
    episodes = make([5, 2, 4])
    rows, starts = rows_of(episodes), window_starts(episodes, 3)
    data = Windows(rows=jnp.asarray(rows), starts=jnp.asarray(starts))
    keys = jax.random.split(jax.random.key(0), 2000)
    windows = jax.jit(jax.vmap(lambda key: draw_window(data, key, 3)))(keys)
    assert windows.shape == (2000, 3, 3)
    first = ((np.asarray(windows[:, :, 1]) - 100) / 2).astype(int)
    np.testing.assert_array_equal(first, first[:, :1] + np.arange(3))
    _, counts = np.unique(first[:, 0], return_counts=True)
    np.testing.assert_array_equal(np.unique(first[:, 0]), starts)
    assert (abs(counts - 400) < 5 * np.sqrt(400)).all()
    np.testing.assert_array_equal(windows[0], rows[first[0]])


def test_windows_of_a_joined_stream_cross_its_cuts_and_skip_the_extra_row():
    episodes = make([4, 4])
    episodes.observations[5] = episodes.observations[4]  # the cut
    assert len(window_starts(episodes, 3)) == 2 + 2
    joined = join_episodes(episodes)
    starts = window_starts(joined, 3)
    assert len(starts) == 8 - 3 + 1
    data = Windows(rows=jnp.asarray(rows_of(joined)), starts=jnp.asarray(starts))
    np.testing.assert_array_equal(
        take_window(data, 2, 4), rows_of(episodes)[[2, 3, 5, 6]]
    )


def test_a_time_limit_teaches_no_jump():
    """Only what terminated, or is too short, is followed by rows of padding."""
    episodes = make([20, 20, 3], terminated=np.array([False, True, False]))
    rows = rows_of(episodes)
    data = padded_windows(rows, episodes, 8, fill=np.full(3, -7.0))
    windows = np.stack([take_window(data, i, 8) for i in range(len(data.starts))])
    padded = (windows == -7).all(-1).any(-1)
    starts = np.asarray(data.starts)
    assert not padded[starts < 21].any()
    assert padded[(starts >= 21) & (starts < 42)].sum() == 7
    assert starts[starts < 21].max() == 20 - 8
    assert padded[starts == 42].tolist() == [True]
    assert starts.max() == 42


def test_padding_with_zeros_before_normalisation():
    episodes = make([5, 2], terminated=np.ones(2, bool))
    rows = rows_of(episodes)
    normalizer = fit_limits(rows[:5])
    zero = normalize(normalizer, np.zeros(3))
    data = padded_windows(normalize(normalizer, rows), episodes, 4, fill=zero)
    assert data.starts.tolist() == [0, 1, 2, 3, 4, 6, 7]
    window = np.asarray(take_window(data, 3, 4))  # rows 3, 4 and two beyond
    np.testing.assert_allclose(window[:2], normalize(normalizer, rows[3:5]))
    raw = np.concatenate([rows[3:5], np.zeros((2, 3))])
    np.testing.assert_allclose(window, normalize(normalizer, raw), rtol=1e-5)
    assert (zero[1:] < -1).all()  # zeros, once normalised, are far from zero here
    last = np.asarray(take_window(data, 6, 4))
    np.testing.assert_allclose(last[0], normalize(normalizer, rows[7]))
    np.testing.assert_allclose(last[1:], np.tile(zero, (3, 1)))


def test_padding_by_repeating_the_final_observation():
    episodes = make([5, 2], terminated=np.ones(2, bool))
    rows = rows_of(episodes)
    window = take_window(padded_windows(rows, episodes, 5), 3, 5)
    np.testing.assert_array_equal(window, rows[[3, 4, 5, 5, 5]])
    assert (np.asarray(window)[2:, 0] == 0).all()  # no action
    window = take_window(padded_windows(rows, episodes, 5), 0, 5)
    np.testing.assert_array_equal(window, rows[:5])


def test_return_to_go_of_known_rewards():
    episodes = make([3, 2], terminated=np.array([False, True]))
    episodes = episodes.replace(rewards=np.array([1, 2, 4, 0, 8, 16, 0], np.float32))
    expected = [1 + 1 + 1, 2 + 2, 4, 0, 8 + 8, 16, 0]
    np.testing.assert_array_equal(return_to_go(episodes, 0.5), expected)
    # The penalty goes to the end of the task, and not to a time limit.
    penalised = return_to_go(episodes, 0.5, terminal_penalty=-100)
    np.testing.assert_array_equal(penalised - expected, [0, 0, 0, 0, -50, -100, 0])
    assert episodes.rewards[5] == 16  # the data are left as they were


def test_return_to_go_limits():
    episodes = make([40, 7])
    np.testing.assert_array_equal(return_to_go(episodes, 0.0), episodes.rewards)
    totals = return_to_go(episodes, 1.0)[episodes.starts]
    sums = [episodes.rewards[:41].sum(), episodes.rewards[41:].sum()]
    np.testing.assert_allclose(totals, sums, rtol=1e-5)


def test_return_to_go_of_a_long_constant_reward_is_geometric():
    episodes = make([100_000])
    episodes = episodes.replace(rewards=np.ones(100_001, np.float32))
    value = return_to_go(episodes, 0.999)
    left = np.array([100_000, 1000, 10, 1])
    np.testing.assert_allclose(
        value[100_000 - left], (1 - 0.999**left) / (1 - 0.999), rtol=1e-6
    )
