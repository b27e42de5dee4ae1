"""Windows of episodes, drawn on the device, and returns-to-go.

A window of horizon H is H consecutive rows of a flat array of rows `[M, D]`, such as
`[action | observation]`. The host lists once the rows that a window may start from.
Drawing a window is then a single gather, so that a training loop draws its batches
inside jit. No window crosses the end of an episode; `episodes.join_episodes` joins
episodes that were cut out of one stream. The return-to-go of a row is

(1) R_t = r_t + discount R_{t+1},        R_T = 0,

to the end of the episode, also beyond the window (the target of the value of Janner et
al., 2022, arXiv:2205.09991, section 3.1).
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data.episodes import Episodes
from jaxdiff.errors import UserError
from jaxdiff.pytree import pytree_dataclass


@pytree_dataclass
class Windows:
    """Rows on the device and the starts of windows: a pytree of arrays.

    Attributes:
      rows: `[M, D]`.
      starts: int32 `[W]`, rows at which a window may begin.
      last: int32 `[W]`, the last row that each window may read, or None if no window
        runs past its episode.
      fill: `[D]`, value of rows beyond the last; None repeats the last row.
      first: int32 `[W]`, the first row of the episode of each window, or None if no
        window looks back before its start.
    """

    rows: jax.Array
    starts: jax.Array
    last: jax.Array | None = None
    fill: jax.Array | None = None
    first: jax.Array | None = None


def window_starts(
    episodes: Episodes, horizon: int, *, padding: bool = False
) -> np.ndarray:
    """List the rows at which a window begins.

    An episode of T transitions counts T rows, those that have an action, and so has
    T - horizon + 1 windows. The released Diffuser leaves out the last window.

    Args:
      episodes: the episodes.
      horizon: rows in a window, H.
      padding: let windows run past the end of an episode that terminated: they begin in
        any of its T rows. Where a time limit ended it there is nothing to run into, so
        that only an episode shorter than H is padded, in one window from its beginning.

    Returns:
      int32 `[W]`, in increasing order.

    Raises:
      UserError: no episode is long enough.
    """
    lengths = episodes.lengths
    windows = lengths - horizon + 1
    if padding:
        windows = np.where(episodes.terminated, lengths, np.maximum(windows, 1))
    if horizon < 1 or not (windows > 0).any():
        raise UserError(
            f"no window of horizon {horizon} fits: the longest episode has "
            f"{lengths.max()} steps; choose a `horizon` of at most that, or "
            "`padding=True`"
        )
    spans = zip(episodes.starts, windows, strict=True)
    return np.concatenate(
        [np.arange(start, start + max(count, 0)) for start, count in spans]
    ).astype(np.int32)


def padded_windows(
    rows: jax.Array | np.ndarray,
    episodes: Episodes,
    horizon: int,
    *,
    fill: jax.Array | np.ndarray | None = None,
) -> Windows:
    """Prepare windows that may run past the end of an episode that terminated.

    Args:
      rows: `[M, D]`, one row for each row of `episodes`.
      episodes: the episodes.
      horizon: H, see `window_starts`.
      fill: `[D]`, value of row T and the rows beyond. The released Diffuser pads with
        zeros before it normalises, so that its fill is the normalised zero. None
        repeats row T: the final observation with a zero action.

    Returns:
      Windows for `draw_window` with any horizon.
    """
    starts = window_starts(episodes, horizon, padding=True)
    episode = np.searchsorted(episodes.starts, starts, side="right") - 1
    end = episodes.starts + episodes.lengths - (0 if fill is None else 1)
    return Windows(
        rows=jnp.asarray(rows),
        starts=jnp.asarray(starts),
        last=jnp.asarray(end[episode], dtype=jnp.int32),
        fill=None if fill is None else jnp.asarray(fill),
    )


def draw_window(
    data: Windows, key: jax.Array, horizon: int, *, before: int = 0
) -> jax.Array:
    """Draw one window uniformly among the starts.

    Args:
      data: rows and starts.
      key: PRNG key; consumed.
      horizon: H, for which the starts were listed.
      before: as in `take_window`.

    Returns:
      `[H, D]`.
    """
    index = jax.random.randint(key, (), 0, data.starts.shape[0])
    return take_window(data, index, horizon, before=before)


def take_window(
    data: Windows, index: jax.Array | int, horizon: int, *, before: int = 0
) -> jax.Array:
    """Take the window at `starts[index]`: `[H, D]`.

    Args:
      data: rows and starts.
      index: which window.
      horizon: H.
      before: number of rows of the window that lie before its start. Rows before the
        episode repeat its first row. Needs `data.first`.
    """
    row = data.starts[index] - before + jnp.arange(horizon)
    if before:
        assert data.first is not None
        row = jnp.maximum(row, data.first[index])
    if data.last is None:
        return data.rows[row]
    last = data.last[index]
    window = data.rows[jnp.minimum(row, last)]
    if data.fill is None:
        return window
    return jnp.where((row > last)[:, None], data.fill, window)


def return_to_go(
    episodes: Episodes, discount: float, *, terminal_penalty: float = 0.0
) -> np.ndarray:
    """Sum discounted rewards from each row to the end of its episode (equation 1).

    Args:
      episodes: the episodes.
      discount: weight of a reward relative to the one a step earlier.
      terminal_penalty: added to the last reward of each episode that terminated; a
        negative number (Diffuser: -100) makes an early end bad.

    Returns:
      float32 `[M]`, zero in the last row of each episode; summed in float64.
    """
    rewards = episodes.rewards.astype(np.float64)
    ends = episodes.starts + episodes.lengths
    rewards[ends[episodes.terminated] - 1] += terminal_penalty
    is_end = np.zeros(len(rewards), bool)
    is_end[ends] = True
    # A Python loop, because the recursion is sequential within an episode, and one
    # episode may be the whole dataset.
    total, totals = 0.0, []
    backwards = zip(rewards[::-1].tolist(), is_end[::-1].tolist(), strict=True)
    for reward, end in backwards:
        total = 0.0 if end else reward + discount * total
        totals.append(total)
    return np.array(totals[::-1], np.float32)
