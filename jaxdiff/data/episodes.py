"""Episodes: one flat record for every dataset, however it was stored.

An episode of T transitions takes T + 1 rows: the observations o_0 ... o_T, the
actions a_0 ... a_{T-1} and rewards r_0 ... r_{T-1}, with a zero action and a zero
reward in the last row. Episodes lie one after another, so that row `starts[e] + t`
is step t of episode e, and nothing else is needed to cut windows or transitions.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.data.locate import locate_dataset
from jaxdiff.data.readers import Recording, as_float32, read_d4rl, read_minari, read_npz
from jaxdiff.errors import UserError, reason
from jaxdiff.pytree import pytree_dataclass


@pytree_dataclass
class Episodes:
    """E episodes in M = sum(lengths + 1) rows, as NumPy arrays on the host.

    Attributes:
      observations: float32 `[M, O]`; of pictures uint8, flattened.
      actions: float32 `[M, A]`, zero in the last row of each episode.
      rewards: float32 `[M]`, zero in the last row of each episode.
      starts: int64 `[E]`, first row of each episode.
      lengths: int64 `[E]`, number of transitions of each episode.
      terminated: bool `[E]`, the task ended there, as opposed to a time limit.
      goals: float32 `[M, G]`, the goal active in each row, or None.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray
    goals: np.ndarray | None = None


# Type and number of dimensions of each field of `Episodes`.
_FIELDS: dict[str, tuple[type, int]] = {
    "observations": (np.floating, 2),  # or bytes
    "actions": (np.floating, 2),
    "rewards": (np.floating, 1),
    "starts": (np.integer, 1),
    "lengths": (np.integer, 1),
    "terminated": (np.bool_, 1),
    "goals": (np.floating, 2),
}


class Dataset(NamedTuple):
    """Episodes and where they come from.

    Attributes:
      name: the name it was asked for by.
      episodes: the data.
      environment: Gymnasium id of the environment it was recorded in, if known.
      fingerprint: SHA-256 of the arrays, in hexadecimal.
      references: mean returns `random` and `expert`, if known.
      observation_shape: of an observation before it was flattened: `(O,)`, or that of
        a picture such as `(32, 32, 3)`; empty where it is not known.
    """

    name: str
    episodes: Episodes
    environment: str | None
    fingerprint: str
    references: Mapping[str, float]
    observation_shape: tuple[int, ...] = ()


def load_dataset(
    name: str | os.PathLike,
    *,
    root: str | os.PathLike | None = None,
    download: bool = False,
) -> Dataset:
    """Load a dataset by recipe, Minari id or path.

    Args:
      name: a recipe such as "pointmaze-umaze", a Minari id such as
        "D4RL/pointmaze/umaze-v2", or the path of a Minari dataset folder, of a D4RL
        HDF5 file (see `readers.read_d4rl`) or of an NPZ file with the fields of
        `Episodes`.
      root: folder of local datasets; `MINARI_DATASETS_PATH`, or else Minari's own.
      download: fetch a Minari id that is not stored locally.

    Raises:
      UserError: the dataset does not exist, cannot be fetched or is unsound.
    """
    name = os.fspath(name)
    path = locate_dataset(name, root=root, download=download)
    environment, references, shape = None, {}, ()
    if path.suffix == ".npz":
        needed = [name for name in _FIELDS if name != "goals"]
        fields = read_npz(path, required=needed)
        episodes = Episodes(
            **{name: fields[name] for name in needed}, goals=fields.get("goals")
        )
    else:
        recording = read_minari(path) if path.is_dir() else read_d4rl(path)
        episodes = concatenate_episodes(recording, str(path))
        environment, references = recording.environment, recording.references
        shape = recording.observations[0].shape[1:]
    check_episodes(episodes, str(path))
    return Dataset(
        name=name,
        episodes=episodes,
        environment=environment,
        fingerprint=fingerprint(episodes),
        references=references,
        observation_shape=shape or episodes.observations.shape[1:],
    )


def concatenate_episodes(recording: Recording, where: str) -> Episodes:
    """Lay episodes one after another, with a zero action and reward at each end.

    Raises:
      UserError: rows that do not fit together; `where` begins the message.
    """
    lengths = np.array([len(actions) for actions in recording.actions], np.int64)
    goals = recording.goals or [None] * len(lengths)
    fields: dict[str, list[np.ndarray]] = {
        name: [] for name in ("observations", "actions", "rewards", "goals")
    }
    for e, length in enumerate(lengths):
        rows = {
            "observations": (recording.observations[e], length + 1),
            "rewards": (recording.rewards[e], length),
            "goals": (goals[e], length + 1),
        }
        for name, (value, wanted) in rows.items():
            if value is not None and len(value) != wanted:
                raise UserError(
                    f"{where}: episode {e} has {length} actions and {len(value)} "
                    f"{name}; there must be {wanted}"
                )
        fields["observations"].append(_flat(recording.observations[e]))
        fields["actions"].append(_end_in_zero(recording.actions[e]))
        fields["rewards"].append(_end_in_zero(recording.rewards[e]))
        if recording.goals:
            fields["goals"].append(recording.goals[e])
    try:
        arrays = {
            name: as_float32(np.concatenate(x)) for name, x in fields.items() if x
        }
    except ValueError as error:
        raise UserError(
            f"{where}: episodes differ in the size of their fields ({reason(error)}); "
            "all must agree"
        ) from error
    return Episodes(
        observations=arrays["observations"],
        actions=arrays["actions"],
        rewards=arrays["rewards"],
        starts=starts_of(lengths),
        lengths=lengths,
        terminated=np.array(recording.terminated, bool),
        goals=arrays.get("goals"),
    )


def starts_of(lengths: np.ndarray) -> np.ndarray:
    """Give the first row of each episode, from the numbers of transitions `[E]`."""
    return np.cumsum(lengths + 1) - (lengths + 1)


def _flat(x: np.ndarray) -> np.ndarray:
    """Make rows of pictures: `[T, ...]` -> `[T, O]`; what is not one stays as it is."""
    return x.reshape(len(x), -1) if x.ndim > 2 else x


def _end_in_zero(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.zeros((1, *x.shape[1:]), x.dtype)])


def check_episodes(episodes: Episodes, where: str) -> None:
    """Check that a record is sound.

    Args:
      episodes: the record.
      where: its origin, which begins the message.

    Raises:
      UserError: wrong type, shapes that disagree, an episode without transitions,
        rows that are missing or left over, or values that are not finite.
    """
    fields = {
        name: getattr(episodes, name)
        for name in _FIELDS
        if getattr(episodes, name) is not None
    }
    for name, value in fields.items():
        kind, rank = _FIELDS[name]
        is_picture = name == "observations" and value.dtype == np.uint8
        if not (is_picture or np.issubdtype(value.dtype, kind)):
            raise UserError(
                f"{where}: field {name!r} has type {value.dtype}; "
                f"{kind.__name__.rstrip('_')} is needed"
            )
        if value.ndim != rank or 0 in value.shape[1:]:
            raise UserError(
                f"{where}: field {name!r} has shape {list(value.shape)}; {rank} "
                "dimensions that are not empty are needed"
            )
    _check_layout(fields, where)
    for name, value in fields.items():
        if not np.issubdtype(value.dtype, np.floating):
            continue  # whole numbers are finite, and pictures are many
        rows = np.flatnonzero(~np.isfinite(value.reshape(len(value), -1)).all(-1))
        if len(rows):
            raise UserError(
                f"{where}: field {name!r} is not finite in {len(rows)} rows, first in "
                f"row {rows[0]}; remove or repair them"
            )


def _check_layout(fields: Mapping[str, np.ndarray], where: str) -> None:
    """Check that starts, lengths and rows fit together."""
    lengths, starts = fields["lengths"], fields["starts"]
    if not len(lengths):
        raise UserError(f"{where} holds no episodes; record some first")
    for name in ("starts", "terminated"):
        if len(fields[name]) != len(lengths):
            raise UserError(
                f"{where}: field {name!r} has {len(fields[name])} entries and "
                f"'lengths' has {len(lengths)}; they must agree"
            )
    empty = np.flatnonzero(lengths < 1)
    if len(empty):
        raise UserError(
            f"{where}: episode {empty[0]} has no transitions; remove it "
            f"({len(empty)} such episodes)"
        )
    if not np.array_equal(starts, starts_of(lengths)):
        raise UserError(
            f"{where}: 'starts' does not follow from 'lengths'; episodes must lie one "
            "after another, each in length + 1 rows"
        )
    rows = int(np.sum(lengths + 1))
    for name in ("observations", "actions", "rewards", "goals"):
        if name in fields and len(fields[name]) != rows:
            raise UserError(
                f"{where}: field {name!r} has {len(fields[name])} rows; 'lengths' "
                f"asks for {rows}, one more per episode than it has transitions"
            )


def fingerprint(episodes: Episodes) -> str:
    """Digest the arrays, with their names, types and shapes: SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    for name in _FIELDS:
        value = getattr(episodes, name)
        if value is not None:
            digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


def take_episodes(episodes: Episodes, index: Any) -> Episodes:
    """Pick episodes by index, in that order: int `[K]` -> `Episodes` of K episodes."""
    index = np.asarray(index, np.int64)
    lengths = episodes.lengths[index]
    spans = zip(episodes.starts[index].tolist(), lengths.tolist(), strict=True)
    rows = np.concatenate([np.arange(start, start + n + 1) for start, n in spans])
    return _of_rows(episodes, rows, lengths, episodes.terminated[index])


def acted_rows(episodes: Episodes) -> np.ndarray:
    """List the rows that have an action: all but the last of each episode, `[N]`."""
    acted = np.ones(len(episodes.actions), bool)
    acted[episodes.starts + episodes.lengths] = False
    return np.flatnonzero(acted)


def goals_beside(episodes: Episodes) -> np.ndarray:
    """Give `[observation | goal]` of every row, or observations if there are no goals.

    Returns:
      `[M, O + G]` or `[M, O]`.
    """
    if episodes.goals is None:
        return episodes.observations
    return np.concatenate([episodes.observations, episodes.goals], axis=1)


def join_episodes(episodes: Episodes) -> Episodes:
    """Join episodes that were cut out of one stream, so that windows may cross the cut.

    An episode goes on in the next one if it was not terminated and its last
    observation is exactly the first of the next, as in a drive that is cut only for
    storage. Its last row, which has no action, gives way to the row that repeats it.

    Returns:
      The longer episodes; `episodes` itself where no two belong together.
    """
    ends = episodes.starts + episodes.lengths
    same = (
        episodes.observations[ends[:-1]] == episodes.observations[episodes.starts[1:]]
    )
    goes_on = np.append(same.all(-1) & ~episodes.terminated[:-1], False)
    if not goes_on.any():
        return episodes
    kept = np.ones(len(episodes.rewards), bool)
    kept[ends[goes_on]] = False
    firsts = np.flatnonzero(np.append(True, ~goes_on[:-1]))
    lengths = np.add.reduceat(episodes.lengths, firsts)
    return _of_rows(episodes, kept, lengths, episodes.terminated[~goes_on])


def _of_rows(
    episodes: Episodes, rows: np.ndarray, lengths: np.ndarray, terminated: np.ndarray
) -> Episodes:
    """Make episodes of some of the rows, by index or mask, in that order."""
    return Episodes(
        observations=episodes.observations[rows],
        actions=episodes.actions[rows],
        rewards=episodes.rewards[rows],
        starts=starts_of(lengths),
        lengths=lengths,
        terminated=terminated,
        goals=None if episodes.goals is None else episodes.goals[rows],
    )


def split_episodes(
    episodes: Episodes, *, held_out: float = 0.05, seed: int = 0
) -> tuple[Episodes, Episodes]:
    """Set whole episodes aside for validation.

    Args:
      episodes: E episodes.
      held_out: share of the episodes to set aside; at least one episode, and at least
        one is left to train on. A single episode, such as a stream that
        `join_episodes` made whole, is cut in time instead: its end is set aside.
      seed: chooses which; both parts keep the order of the data.

    Returns:
      The episodes to train on and those held out.

    Raises:
      UserError: a single episode of a single transition cannot be split.
    """
    count = len(episodes.lengths)
    if count == 1:
        return _cut(episodes, held_out)
    size = int(np.clip(round(count * held_out), 1, count - 1))
    order = np.random.default_rng(seed).permutation(count)
    return (
        take_episodes(episodes, np.sort(order[size:])),
        take_episodes(episodes, np.sort(order[:size])),
    )


def _cut(episodes: Episodes, held_out: float) -> tuple[Episodes, Episodes]:
    """Cut one episode in time; the observation at the cut belongs to both parts."""
    length = int(episodes.lengths[0])
    if length < 2:
        raise UserError("one episode of one transition cannot be split; add more data")
    cut = length - int(np.clip(round(length * held_out), 1, length - 1))

    def part(start: int, end: int, terminated: np.ndarray) -> Episodes:
        rows = slice(start, end + 1)
        actions, rewards = episodes.actions[rows].copy(), episodes.rewards[rows].copy()
        actions[-1], rewards[-1] = 0.0, 0.0
        return Episodes(
            observations=episodes.observations[rows],
            actions=actions,
            rewards=rewards,
            starts=np.zeros(1, np.int64),
            lengths=np.array([end - start]),
            terminated=terminated,
            goals=None if episodes.goals is None else episodes.goals[rows],
        )

    return (
        part(0, cut, np.zeros(1, bool)),
        part(cut, length, episodes.terminated),
    )
