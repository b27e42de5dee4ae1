"""Windows, returns and normalizers of episodes of any shape, beside plain loops."""

import pathlib

import jax
import numpy as np
from hypothesis import strategies as st

from jaxdiff.data.episodes import Episodes, join_episodes, split_episodes
from jaxdiff.data.normalizer import fit_normalizer, normalize, unnormalize
from jaxdiff.data.windows import (
    padded_windows,
    return_to_go,
    take_window,
    window_starts,
)
from tests.faults.datasets import LENGTHS, laid_out, record
from tests.faults.tally import Case, Tally, fuzz


def episodes_of(draw):
    return Episodes(**laid_out(record(draw(LENGTHS))))


def window_case(draw, _):
    episodes, horizon = episodes_of(draw), draw(st.integers(-1, 8))
    padding, counted = draw(st.booleans()), episodes.lengths.tolist()
    wanted = []
    for start, n, ended in zip(
        episodes.starts, counted, episodes.terminated, strict=True
    ):
        room = n - horizon + 1
        if padding:
            room = n if ended else max(room, 1)
        wanted += [int(start) + i for i in range(max(room, 0))]
    sound = None if horizon >= 1 and wanted else False
    return Case(
        f"starts of horizon {horizon} in {counted}, padding {padding}",
        lambda: window_starts(episodes, horizon, padding=padding),
        lambda found: found.tolist() == wanted,
        sound=True if sound is None else sound,
    )


def padded_case(draw, _):
    episodes, horizon = episodes_of(draw), draw(st.integers(1, 8))
    rows = np.arange(1.0, len(episodes.rewards) + 1, dtype=np.float32)[:, None]
    fill = np.full(1, -1.0, np.float32) if draw(st.booleans()) else None

    def act():
        data = padded_windows(rows, episodes, horizon, fill=fill)
        take = jax.vmap(lambda index: take_window(data, index, horizon))
        return np.asarray(data.starts), np.asarray(take(np.arange(len(data.starts))))

    def truth(found):
        for start, window in zip(*found, strict=True):
            e = int(np.searchsorted(episodes.starts, start, side="right")) - 1
            end = int(episodes.starts[e] + episodes.lengths[e])
            for t, value in enumerate(window[:, 0]):
                if fill is not None and start + t >= end:
                    wanted = -1.0
                else:
                    wanted = rows[min(start + t, end), 0]
                if value != wanted:
                    return False
        return len(found[0]) > 0

    return Case(f"windows of horizon {horizon}", act, truth, sound=True)


def return_case(draw, _):
    episodes, discount = episodes_of(draw), draw(st.floats(0, 1))
    penalty = draw(st.sampled_from([0.0, -100.0]))

    def truth(found):
        spans = zip(episodes.starts, episodes.lengths, episodes.terminated, strict=True)
        for start, n, ended in spans:
            for t in range(n + 1):
                rewards = episodes.rewards[start + t : start + n].astype(np.float64)
                total = np.sum(rewards * discount ** np.arange(n - t))
                if ended and t < n:
                    total += penalty * discount ** (n - t - 1)
                if not np.isclose(found[start + t], total, rtol=1e-4, atol=1e-4):
                    return False
        return True

    return Case(
        f"returns discounted by {discount:g}",
        lambda: return_to_go(episodes, discount, terminal_penalty=penalty),
        truth,
        sound=True,
    )


def normalizer_case(draw, _):
    kind = draw(st.sampled_from(["gaussian", "limits", "cdf"]))
    scale = draw(st.sampled_from([1e-30, 1e-6, 1.0, 1e6, 1e30]))
    offset = draw(st.sampled_from([0.0, 1.0, -1e4]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    rows = draw(st.sampled_from([1, 2, 50]))
    x = np.stack(
        [
            rng.normal(size=rows) * scale + offset,
            np.full(rows, offset),  # never changes
            rng.integers(0, 2, rows) * scale,
        ],
        axis=1,
    ).astype(np.float32)

    def act():
        normalizer = fit_normalizer(kind, x)
        u = normalize(normalizer, x)
        return np.asarray(u), np.asarray(unnormalize(normalizer, u))

    def truth(found):
        u, back = found
        size = np.abs(x).max(0)
        return (
            np.isfinite(u).all()
            and np.abs(u).max() < 10
            and bool((np.abs(back - x) <= 1e-4 * size).all())
        )

    return Case(f"{kind} of {rows} rows around {offset:g}, {scale:g} wide", act, truth,
                sound=True)  # fmt: skip


def split_case(draw, _):
    """What is set aside and what is trained on are all the transitions, once each."""
    episodes, share = episodes_of(draw), draw(st.floats(0, 1))
    if draw(st.booleans()):
        # A stream: each episode goes on in the next.
        ends = episodes.starts + episodes.lengths
        episodes.observations[episodes.starts[1:]] = episodes.observations[ends[:-1]]
        episodes.terminated[:] = False
        episodes = join_episodes(episodes)
    steps = int(episodes.lengths.sum())
    alone = len(episodes.lengths) == 1 and steps < 2

    def truth(found):
        rewards = []
        for part in found:
            for start, n in zip(part.starts, part.lengths, strict=True):
                rewards += part.rewards[start : start + n].tolist()
        ends = set((episodes.starts + episodes.lengths).tolist())
        wanted = [r for i, r in enumerate(episodes.rewards.tolist()) if i not in ends]
        return sorted(rewards) == sorted(wanted)

    return Case(f"split of {steps} steps at {share:g}",
                lambda: split_episodes(episodes, held_out=share), truth,
                sound=not alone)  # fmt: skip


def tally(folder: pathlib.Path, count: int) -> Tally:
    """Judge `count` cases."""
    kinds = [window_case, padded_case, return_case, normalizer_case, split_case]
    return fuzz(lambda draw: draw(st.sampled_from(kinds))(draw, folder), count)
