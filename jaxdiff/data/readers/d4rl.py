"""D4RL's layout of transitions, which HDF5 and NPZ files hold.

A file has flat arrays `observations`, `actions`, `rewards`, `terminals` and `timeouts`,
and perhaps `next_observations` and the goals `infos/goal`. An episode ends where either
flag is set, and is terminated only by `terminals`.

Some files, such as D4RL's mazes, are one stream instead: the environment goes on at a
timeout. Files without `next_observations` are taken for one if every step over a
timeout is no longer than a step within an episode, in every number of the observation.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, TypeAlias

import numpy as np

from jaxdiff.data.recording import Recording
from jaxdiff.errors import UserError
from jaxdiff.progress import note

Timeouts: TypeAlias = Literal["ignore", "episode"]
"""What a timeout means: nothing, as the stream goes on, or the end of an episode."""

NEEDED = ("observations", "actions", "rewards", "terminals", "timeouts")
FIELDS = (*NEEDED, "next_observations", "infos/goal")


def states_its_episodes(path: str | os.PathLike) -> str:
    """Say that `timeouts` has no effect on a dataset."""
    return (
        f"{path} states where its episodes end, so that `timeouts` has no effect; "
        "leave it out"
    )


def mention_unread(
    path: os.PathLike, found: Iterable[str], read: Iterable[str]
) -> None:
    """Name the arrays of a file that are not read; one may be a field misspelt."""
    others = sorted({name for name in found if "/" not in name} - {*read})
    if others:
        note(
            f"{os.fspath(path)}: {', '.join(others)} is not read; there are the fields "
            f"{', '.join(read)}"
        )


def recording_of(
    fields: Mapping[str, np.ndarray], where: str, timeouts: Timeouts | None = None
) -> Recording:
    """Cut the arrays of a file into episodes.

    The final observation of an episode is `next_observations` of its last transition.
    Without that field, a terminated episode repeats its last observation (no learner
    bootstraps from there), and any other episode drops its last transition and ends in
    that observation. Transitions after the last flag become an episode that ran out of
    time. A note says what was decided about the data and what was left out.

    Args:
      fields: those of `FIELDS` that the file has.
      where: the file, which begins messages.
      timeouts: what a timeout means; by default what the data look like.

    Raises:
      UserError: a field is missing or does not fit. `timeouts` is required, because
        episodes that run into one another teach jumps that no environment makes.
    """
    _check(fields, where)
    if timeouts is None and _is_stream(fields):
        timeouts = "ignore"
        note(
            f"{where}: every step over a timeout looks like a step within an episode, "
            "so the file is read as one stream; timeouts=episode cuts it there"
        )
    if timeouts == "ignore":
        fields = {**fields, "timeouts": np.zeros(len(fields["observations"]), bool)}
    episodes = list(_episodes(fields))
    lost = len(fields["observations"]) - sum(len(episode[1]) for episode in episodes)
    if lost > 1:  # the last observation of a file is always without a next one
        note(
            f"{where}: {lost:,} transitions right before a timeout are left out, as "
            "the observation after them is not stored; next_observations would hold it"
        )
    if not episodes:
        raise UserError(f"{where} holds no episode with a transition; fetch it again")
    observations, actions, rewards, terminated, goals = map(
        list, zip(*episodes, strict=True)
    )
    return Recording(
        observations=observations,
        actions=actions,
        rewards=rewards,
        terminated=terminated,
        goals=goals if "infos/goal" in fields else (),
    )


def _episodes(fields: Mapping[str, np.ndarray]) -> Iterator[tuple]:
    """Yield observations, actions, rewards, the flag and goals of each episode."""
    for start, end in _spans(fields):
        terminated = bool(fields["terminals"].ravel()[end - 1])
        rows = fields["observations"][start:end]
        if "next_observations" in fields:
            rows = np.concatenate([rows, fields["next_observations"][end - 1 : end]])
        elif terminated:
            rows = np.concatenate([rows, rows[-1:]])
        else:
            end = end - 1
        if end == start:
            continue
        goals = fields["infos/goal"][start:end] if "infos/goal" in fields else None
        yield (
            rows,
            fields["actions"][start:end],
            fields["rewards"][start:end],
            terminated,
            None if goals is None else np.concatenate([goals, goals[-1:]]),
        )


def _is_stream(fields: Mapping[str, np.ndarray]) -> bool:
    """Whether every step over a timeout looks like a step within an episode."""
    x = fields["observations"].reshape(len(fields["observations"]), -1)
    ended, cut = (fields[name].ravel()[:-1] != 0 for name in ("terminals", "timeouts"))
    within, over = ~(ended | cut), cut & ~ended
    if "next_observations" in fields or not within.any() or not over.any():
        return False
    step = np.abs(np.diff(x.astype(np.float64), axis=0))
    return bool((step[over] <= step[within].max(0)).all())


def _spans(fields: Mapping[str, np.ndarray]) -> Iterator[tuple[int, int]]:
    """Yield first and past-the-last transition of each episode."""
    total = len(fields["observations"])
    flags = [fields[name].ravel() != 0 for name in ("terminals", "timeouts")]
    ends = np.flatnonzero(flags[0] | flags[1]) + 1
    if not len(ends) or ends[-1] != total:
        ends = np.append(ends, total)
    yield from zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)


def _check(fields: Mapping[str, np.ndarray], where: str) -> None:
    """Check that all fields are there, with as many rows in each."""
    for name in NEEDED:
        if name not in fields:
            raise UserError(
                f"{where} has no field {name!r}; D4RL's layout needs "
                f"{', '.join(NEEDED)}"
            )
    shape = fields["observations"].shape
    for name, value in fields.items():
        fits = shape if name == "next_observations" else shape[:1]
        if value.shape[: len(fits)] != fits or value.ndim < 1:
            raise UserError(
                f"{where}: field {name!r} has shape {list(value.shape)} beside "
                f"{list(shape)} of 'observations'; all need as many rows"
            )
    if len(shape) < 2 or 0 in shape[1:]:
        raise UserError(
            f"{where}: field 'observations' has shape {list(shape)}; rows that are not "
            "empty are needed"
        )
    for name in ("terminals", "timeouts"):
        flags = fields[name]
        numbers = flags.dtype.kind in "biuf" and flags.size == shape[0]
        if not (numbers and np.isin(flags, (0, 1)).all()):
            raise UserError(f"{where}: field {name!r} must be one flag per row, 0 or 1")
    if shape[0] == 0:
        raise UserError(f"{where} holds no transitions; fetch it again")
