"""What is odd about data, which may be a fault of the recording or as it should be."""

import numpy as np

from jaxdiff.data.episodes import Episodes, acted_rows

_FAR = 10.0  # times the usual step
_MANY = 0.05  # share of the data
_NAMED = 10  # columns that are named one by one


def oddities(episodes: Episodes) -> list[str]:
    """List what is odd about data, a sentence each.

    - The largest step within an episode is many times the usual one, the 90th
      percentile: two episodes may have run into one another. If such steps stand one
      row beside the ends of most episodes, the timeouts are out of step.
    - Columns never change.
    - Many actions lie at the smallest or largest value: they were clipped.
    """
    return [*_jumps(episodes), *_constants(episodes), *_bounds(episodes)]


def _jumps(episodes: Episodes) -> list[str]:
    rows = acted_rows(episodes)
    x = episodes.observations.astype(np.float64)
    spread = x.std(0)
    x = x[:, spread > 0] / spread[spread > 0]
    steps = np.linalg.norm(x[rows + 1] - x[rows], axis=1)
    usual = float(np.percentile(steps, 90))
    worst = int(np.argmax(steps))
    if usual == 0 or steps[worst] < _FAR * usual:
        return []
    episode = int(np.searchsorted(episodes.starts, rows[worst], side="right")) - 1
    at = rows[worst] - episodes.starts[episode]
    found = [
        f"the largest step is {steps[worst] / usual:.0f} times the usual one, in "
        f"episode {episode} at step {at}; two episodes may have run into one another"
    ]
    # Steps from the first row of each episode, and those that arrive in the last one.
    far = np.zeros(len(episodes.observations), bool)
    far[rows[steps >= _FAR * usual]] = True
    ends = episodes.starts + episodes.lengths - 1
    for name, share in (
        ("after", far[episodes.starts[1:]].mean() if len(ends) > 1 else 0.0),
        ("before", far[ends[:-1]].mean() if len(ends) > 1 else 0.0),
    ):
        if share > 0.5:
            found.append(
                f"in {share:.0%} of the episodes that step stands right {name} an end: "
                "timeouts are out of step by one row"
            )
    return found


def _constants(episodes: Episodes) -> list[str]:
    found = []
    acted = acted_rows(episodes)
    for name, array in (
        ("observations", episodes.observations),
        ("actions", episodes.actions[acted]),
    ):
        same = np.flatnonzero(array.min(0) == array.max(0))
        if len(same):
            found.append(f"{name} {_listed(same)} never change")
    return found


def _bounds(episodes: Episodes) -> list[str]:
    actions = episodes.actions[acted_rows(episodes)]
    low, high = actions.min(0), actions.max(0)
    at = ((actions == low) | (actions == high)).mean(0)
    # Of few values, such as a gripper's two, all lie at an end.
    varied = np.array([len(np.unique(column[:1000])) > 2 for column in actions.T])
    many = np.flatnonzero((at > _MANY) & varied)
    if not len(many):
        return []
    return [
        f"actions {_listed(many)} lie at their smallest or largest value in "
        f"{at[many].max():.0%} of the steps"
    ]


def _listed(columns: np.ndarray) -> str:
    more = f" and {len(columns) - _NAMED} more" if len(columns) > _NAMED else ""
    return ", ".join(map(str, columns[:_NAMED])) + more
