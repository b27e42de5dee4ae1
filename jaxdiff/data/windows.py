"""Windows of episodes, drawn on the device, and returns-to-go.

A window of horizon H is H consecutive rows of a flat array of rows `[M, D]`, such as
actions beside observations. Which rows it may start from is decided once, on the
host; drawing one is then a single gather, so that a training loop can draw its own
batches inside jit. No window crosses the end of an episode, so that episodes that were
cut out of one stream are joined first (`episodes.join_episodes`). A row's return-to-go
is

(1) R_t = r_t + discount R_{t+1},        R_T = 0,

to the end of the episode, however far beyond the window that lies (Janner et al.,
2022, arXiv:2205.09991, section 3.1, train their value on it).
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data.episodes import Episodes
from jaxdiff.errors import UserError
from jaxdiff.pytree import pytree_dataclass


@pytree_dataclass
class Windows:
    """Rows on the device and where windows of them begin: a pytree of arrays.

    Attributes:
      rows: `[M, D]`.
      starts: int32 `[W]`, rows at which a window may begin.
      last: int32 `[W]`, the last row that each window may read, or None where no
        window runs past its episode.
      fill: `[D]`, what stands beyond that row; None repeats the row.
      first: int32 `[W]`, the first row of each window's episode, or None where no
        window looks back before its start.
    """

    rows: jax.Array
    starts: jax.Array
    last: jax.Array | None = None
    fill: jax.Array | None = None
    first: jax.Array | None = None


def window_starts(
    episodes: Episodes,
    horizon: int,
    *,
    padding: bool = False,
    final_observation: bool = False,
) -> np.ndarray:
    """List the rows at which a window begins.

    An episode of T transitions counts T rows, those that have an action of their own,
    so it has T - horizon + 1 windows. The released Diffuser leaves out the last one.

    Args:
      episodes: the episodes.
      horizon: rows in a window, H.
      padding: let windows begin in any of the T rows and run past the end.
      final_observation: count row T too, which has an observation but no action; for
        windows of observations only.

    Returns:
      int32 `[W]`, in increasing order.

    Raises:
      UserError: no episode is long enough.
    """
    counted = episodes.lengths + (1 if final_observation else 0)
    windows = counted if padding else counted - horizon + 1
    if horizon < 1 or not (windows > 0).any():
        raise UserError(
            f"no window of horizon {horizon} fits: the longest episode has "
            f"{counted.max()} steps; choose a horizon between 1 and that, or allow "
            "padding"
        )
    spans = zip(episodes.starts, windows, strict=True)
    return np.concatenate(
        [np.arange(start, start + max(count, 0)) for start, count in spans]
    ).astype(np.int32)


def padded_windows(
    rows: jax.Array | np.ndarray,
    episodes: Episodes,
    *,
    fill: jax.Array | np.ndarray | None = None,
) -> Windows:
    """Prepare windows that begin at any step and may run past the end.

    Args:
      rows: `[M, D]`, one row for each row of `episodes`.
      episodes: the episodes.
      fill: `[D]`, what stands in the place of row T and beyond. The released Diffuser
        pads with zeros before it normalises, so its fill is what zero is normalised
        to. None holds row T: the final observation with a zero action.

    Returns:
      Windows for `draw_window` with any horizon.
    """
    starts = window_starts(episodes, 1, padding=True)
    end = episodes.starts + episodes.lengths - (0 if fill is None else 1)
    return Windows(
        rows=jnp.asarray(rows),
        starts=jnp.asarray(starts),
        last=jnp.asarray(np.repeat(end, episodes.lengths), dtype=jnp.int32),
        fill=None if fill is None else jnp.asarray(fill),
    )


def draw_window(data: Windows, key: jax.Array, horizon: int) -> jax.Array:
    """Draw one window uniformly among the starts.

    Args:
      data: rows and starts.
      key: PRNG key; consumed.
      horizon: H, for which the starts were listed.

    Returns:
      `[H, D]`.
    """
    index = jax.random.randint(key, (), 0, data.starts.shape[0])
    return take_window(data, index, horizon)


def take_window(
    data: Windows, index: jax.Array | int, horizon: int, *, before: int = 0
) -> jax.Array:
    """Take the window at `starts[index]`: `[H, D]`.

    Args:
      data: rows and starts.
      index: which window.
      horizon: H.
      before: how many of the rows lie before the start; those before the first of the
        episode are that first one again. Needs `data.first`.
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
      terminal_penalty: added to the last reward of each terminated episode, so a
        negative number (Diffuser: -100) teaches that the end is bad; episodes that
        ran out of time are not touched.

    Returns:
      float32 `[M]`, zero in the last row of each episode; summed in float64.
    """
    rewards = episodes.rewards.astype(np.float64)
    ends = episodes.starts + episodes.lengths
    rewards[ends[episodes.terminated] - 1] += terminal_penalty
    is_end = np.zeros(len(rewards), bool)
    is_end[ends] = True
    # A Python loop over floats: the recursion is sequential within an episode, and
    # one episode may be the whole dataset.
    total, totals = 0.0, []
    backwards = zip(rewards[::-1].tolist(), is_end[::-1].tolist(), strict=True)
    for reward, end in backwards:
        total = 0.0 if end else reward + discount * total
        totals.append(total)
    return np.array(totals[::-1], np.float32)
