"""Episodes: one flat record for every dataset, however it was stored.

An episode of T transitions takes T + 1 rows: the observations o_0 ... o_T, the
actions a_0 ... a_{T-1} and the rewards r_0 ... r_{T-1}, with a zero action and a zero
reward in the last row. Episodes lie one after another, and row `starts[e] + t` is step
t of episode e. Windows and transitions are cut from these rows.
"""

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.data.recording import Recording
from jaxdiff.data.spec import Environment
from jaxdiff.errors import UserError, reason
from jaxdiff.pytree import pytree_dataclass


@pytree_dataclass
class Episodes:
    """E episodes in M = sum(lengths + 1) rows, as NumPy arrays on the host.

    Attributes:
      observations: float32 `[M, O]`; pictures are uint8, flattened.
      actions: float32 `[M, A]`, zero in the last row of each episode.
      rewards: float32 `[M]`, zero in the last row of each episode.
      starts: int64 `[E]`, first row of each episode.
      lengths: int64 `[E]`, number of transitions of each episode.
      terminated: bool `[E]`, True where the task ended, False where a time limit ended
        the episode.
      goals: float32 `[M, G]`, the goal of each row, or None.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray
    goals: np.ndarray | None = None


# Name of each field of `Episodes` -> its type and its number of dimensions.
FIELDS: dict[str, tuple[type, int]] = {
    "observations": (np.floating, 2),  # bytes for pictures
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
      name: the name that it was loaded by.
      episodes: the data.
      observation_shape: of an observation before it was flattened: `(O,)`, or that of a
        picture such as `(32, 32, 3)`.
      fingerprint: SHA-256 of the arrays, in hexadecimal.
      environment: the environment that the data were recorded in, if known.
      evaluation: the environment to score policies in; that of the recording if the
        dataset names no other.
      references: mean returns `random` and `expert`, if known.
      metadata: what else the dataset says of itself: `dataset_id`, and what its recipe
        wrote, such as `quality` or `setting`.
      stream: whether episodes that meet are parts of one stream, which training joins.
    """

    name: str
    episodes: Episodes
    observation_shape: tuple[int, ...]
    fingerprint: str
    environment: Environment | None = None
    evaluation: Environment | None = None
    references: Mapping[str, float] = {}
    metadata: Mapping[str, Any] = {}
    stream: bool = False

    def trained_on(self) -> Episodes:
        """Return the episodes that training sees: joined where they are one stream."""
        return join_episodes(self.episodes) if self.stream else self.episodes


def episodes_of(
    recording: Recording,
    split: Callable[[Any], tuple[np.ndarray, np.ndarray | None]],
    where: str,
) -> Episodes:
    """Lay episodes one after another, with a zero action and reward at each end.

    Args:
      recording: E episodes as they were stored.
      split: `(observations of an episode [T + 1, ...]) -> (observations [T + 1, O],
        goals [T + 1, G] or None)`, how the task reads them. Goals that the recording
        has beside its observations serve where `split` finds none.
      where: origin of the data, which begins messages.

    Raises:
      UserError: rows that do not fit together.
    """
    whole = {x.dtype for x in recording.actions if x.dtype.kind in "biu"}
    if whole:
        raise UserError(
            f"{where}: actions are {' and '.join(sorted(map(str, whole)))}; jaxdiff "
            "acts with real numbers. Store them as floats if they are real"
        )
    lengths = np.array([len(actions) for actions in recording.actions], np.int64)
    parts = [split(raw) for raw in recording.observations]
    observations = [part[0] for part in parts]
    goals = [part[1] for part in parts if part[1] is not None] or recording.goals
    for e, length in enumerate(lengths):
        rows = {
            "observations": (observations[e], length + 1),
            "rewards": (recording.rewards[e], length),
            "goals": (goals[e] if goals else None, length + 1),
        }
        for name, (value, wanted) in rows.items():
            if value is not None and len(value) != wanted:
                raise UserError(
                    f"{where}: episode {e} has {length} actions and {len(value)} "
                    f"{name}; there must be {wanted}"
                )
    fields: dict[str, list[np.ndarray]] = {
        "observations": observations,
        "actions": [_end_in_zero(actions) for actions in recording.actions],
        "rewards": [_end_in_zero(rewards) for rewards in recording.rewards],
        "goals": renew_stale_goals(goals),
    }
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


def renew_stale_goals(goals: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Replace first goals that an environment announced one step late.

    Some streams, such as those of D4RL's mazes, are cut into episodes where a goal is
    reached, and the first row of an episode still shows the goal of the episode before.
    Data are recognised by that pattern: in nearly all episodes but the first, the first
    goal is the last one of the episode before and differs from the second.

    Args:
      goals: E arrays `[T + 1, G]`.

    Returns:
      E arrays, unchanged unless the pattern is there; else the second goal of each
      episode also stands in its first row.
    """
    stale = [
        len(rows) > 1
        and np.array_equal(rows[0], before[-1])
        and not np.array_equal(rows[0], rows[1])
        for before, rows in itertools.pairwise(goals)
    ]
    if not stale or np.mean(stale) < _NEARLY_ALL:
        return list(goals)
    return [
        np.concatenate([rows[1:2], rows[1:]]) if len(rows) > 1 else rows
        for rows in goals
    ]


_NEARLY_ALL = 0.9


def as_float32(x: np.ndarray) -> np.ndarray:
    """Convert numbers to float32; `check_episodes` refuses other types.

    Bytes, which pictures are made of, stay bytes: they take a quarter of the memory.
    """
    if x.dtype == np.uint8 or not np.issubdtype(x.dtype, np.number):
        return x
    with np.errstate(over="ignore"):  # `check_episodes` finds what became infinite
        return x.astype(np.float32)


def starts_of(lengths: np.ndarray) -> np.ndarray:
    """Return the first row of each episode from its number of transitions, `[E]`."""
    return np.cumsum(lengths + 1) - (lengths + 1)


def _end_in_zero(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.zeros((1, *x.shape[1:]), x.dtype)])


def check_episodes(episodes: Episodes, where: str) -> None:
    """Check that a record is sound.

    Args:
      episodes: the record.
      where: origin of the record, which begins the message.

    Raises:
      UserError: a wrong type, shapes that disagree, an episode without transitions,
        missing or surplus rows, or values that are not finite.
    """
    fields = {
        name: getattr(episodes, name)
        for name in FIELDS
        if getattr(episodes, name) is not None
    }
    for name, value in fields.items():
        kind, rank = FIELDS[name]
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
            continue  # whole numbers are finite, and pictures are large
        rows = np.flatnonzero(~np.isfinite(value.reshape(len(value), -1)).all(-1))
        if len(rows):
            raise UserError(
                f"{where}: field {name!r} is not finite in {len(rows)} rows, first in "
                f"row {rows[0]} (float32 ends at 3.4e38); remove, repair or scale them"
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
    """Return the SHA-256 of the arrays, names, types and shapes, in hexadecimal."""
    digest = hashlib.sha256()
    for name in FIELDS:
        value = getattr(episodes, name)
        if value is not None:
            digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


def take_episodes(episodes: Episodes, index: Any) -> Episodes:
    """Pick episodes by index, int `[K]`, in that order."""
    index = np.asarray(index, np.int64)
    lengths = episodes.lengths[index]
    spans = zip(episodes.starts[index].tolist(), lengths.tolist(), strict=True)
    rows = np.concatenate([np.arange(start, start + n + 1) for start, n in spans])
    return _of_rows(episodes, rows, lengths, episodes.terminated[index])


def acted_rows(episodes: Episodes) -> np.ndarray:
    """Return the rows that have an action, all but the last of each episode: `[N]`."""
    acted = np.ones(len(episodes.actions), bool)
    acted[episodes.starts + episodes.lengths] = False
    return np.flatnonzero(acted)


def goals_beside(episodes: Episodes) -> np.ndarray:
    """Return `[observation | goal]` of every row, or observations without goals.

    Returns:
      `[M, O + G]` or `[M, O]`.
    """
    if episodes.goals is None:
        return episodes.observations
    return np.concatenate([episodes.observations, episodes.goals], axis=1)


def join_episodes(episodes: Episodes) -> Episodes:
    """Join episodes that were cut out of one stream, so that windows may cross the cut.

    The last row of an episode that `goes_on`, which has no action, is dropped, because
    the next row repeats it.

    Returns:
      The longer episodes; `episodes` itself if none are joined.
    """
    continued = goes_on(episodes)
    if not continued.any():
        return episodes
    kept = np.ones(len(episodes.rewards), bool)
    kept[(episodes.starts + episodes.lengths)[continued]] = False
    firsts = np.flatnonzero(np.append(True, ~continued[:-1]))
    lengths = np.add.reduceat(episodes.lengths, firsts)
    return _of_rows(episodes, kept, lengths, episodes.terminated[~continued])


def goes_on(episodes: Episodes) -> np.ndarray:
    """Tell which episodes continue in the next one, bool `[E]`.

    An episode does if it was not terminated and its last observation equals the first
    of the next, as in a stream that is cut for storage.
    """
    ends = episodes.starts + episodes.lengths
    same = (
        episodes.observations[ends[:-1]] == episodes.observations[episodes.starts[1:]]
    )
    return np.append(same.all(-1) & ~episodes.terminated[:-1], False)


def _of_rows(
    episodes: Episodes, rows: np.ndarray, lengths: np.ndarray, terminated: np.ndarray
) -> Episodes:
    """Make episodes of rows that are picked by index or mask, in that order."""
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
      held_out: share of the episodes to set aside. At least one is set aside and at
        least one is left to train on. A single episode, such as a joined stream, is cut
        in time and its end set aside.
      seed: chooses the episodes; both parts keep the order of the data.

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
