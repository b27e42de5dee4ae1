"""How near what a policy does is to what the demonstrators did, as distributions.

A policy can succeed and imitate badly: always the same way out of many. These functions
compare samples x of demonstrations with samples y of a policy; all are pure.

(1) energy distance     2 E|x - y| - E|x - x'| - E|y - y'|, estimated without bias;
(2) W1 on a line        integral of |F(t) - G(t)| dt, F and G the two distributions';
(3) sliced W1           (2) of projections, the mean over random directions;
(4) optimal transport   min over P >= 0 of sum_ij P_ij c_ij, P's sums being the weights;
(5) density             1 / (k M) sum_j #{i: |y_j - x_i| <= r_i},
(6) coverage            1 / N #{i: some j has |y_j - x_i| <= r_i},
(7) matched W1          (4) of points of equal weights: the best matching of N to N,

with r_i the distance of x_i from its k-th nearest neighbour among the x (Naeem et al.,
2020, arXiv:2002.09797): (5) falls where y strays from x, (6) where y leaves out parts
of x. For two finite samples of one distribution (3), (4), (7) are not 0 and (6) is not
1, so a second sample of the demonstrator, of the policy's size, is what to compare
with. For sequences of tasks, such as those of the Franka kitchen, the cost in (4) is
the number of places in which two of them differ.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike


def validity(labels: ArrayLike) -> float:
    """Give the share of actions on an object.

    Args:
      labels: int `[N]`, the object that each action is on, -1 for none.
    """
    return float(np.mean(np.asarray(labels) >= 0))


def share_error(labels: ArrayLike, shares: ArrayLike) -> float:
    """Give the total variation between how often objects are chosen and should be.

    Args:
      labels: int `[N]`, the object that each action is on, -1 for none.
      shares: `[K]`, the exact shares; none of them is for actions on nothing.

    Returns:
      From 0, the same, to 1, nothing in common.
    """
    labels, shares = np.asarray(labels), np.append(np.asarray(shares), 0.0)
    # The last entry counts actions on nothing.
    found = np.bincount(labels % len(shares), minlength=len(shares)) / len(labels)
    return float(np.abs(found - shares).sum() / 2)


def energy_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Estimate the energy distance, equation (1), without bias.

    The estimate for two samples of one distribution is 0 on average, and so may be
    negative.

    Args:
      x: `[N, D]`, N at least 2.
      y: `[M, D]`, M at least 2.
    """
    x, y = _points(x), _points(y)

    def within(z: np.ndarray) -> float:
        return _distances(z, z).sum() / (len(z) * (len(z) - 1))

    return float(2 * _distances(x, y).mean() - within(x) - within(y))


def wasserstein(x: ArrayLike, y: ArrayLike) -> float:
    """Give the distance W1 of two samples of numbers, equation (2): `[N]` and `[M]`."""
    x, y = (np.sort(np.asarray(z, np.float64).ravel()) for z in (x, y))
    cuts = np.sort(np.concatenate([x, y]))
    below = [np.searchsorted(z, cuts[:-1], side="right") / len(z) for z in (x, y)]
    return float((np.abs(below[0] - below[1]) * np.diff(cuts)).sum())


def sliced_wasserstein(
    x: ArrayLike, y: ArrayLike, *, directions: int = 64, seed: int = 0
) -> float:
    """Give the mean of W1 over projections, equation (3).

    Args:
      x: `[N, D]`.
      y: `[M, D]`.
      directions: how many, at random on the unit sphere.
      seed: of the directions.
    """
    x, y = _points(x), _points(y)
    ways = np.random.default_rng(seed).standard_normal((directions, x.shape[1]))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    return float(np.mean([wasserstein(x @ way, y @ way) for way in ways]))


def density_and_coverage(
    x: ArrayLike, y: ArrayLike, *, k: int = 5
) -> tuple[float, float]:
    """Give density and coverage, equations (5) and (6).

    Args:
      x: `[N, D]`, demonstrations, more than k.
      y: `[M, D]`, of the policy.
      k: neighbours.
    """
    x, y = _points(x), _points(y)
    if len(x) <= k:
        raise ValueError(f"{len(x)} demonstrations have no {k} neighbours each")
    # A point is its own first neighbour.
    radius = np.sort(_distances(x, x), axis=1)[:, k]
    near = _distances(x, y) <= radius[:, None]
    return float(near.sum() / (k * len(y))), float(near.any(1).mean())


def transport(cost: ArrayLike, a: ArrayLike, b: ArrayLike) -> float:
    """Solve optimal transport exactly, equation (4).

    Args:
      cost: `[I, J]`.
      a: `[I]`, weights of the sources, with sum 1.
      b: `[J]`, weights of the sinks, with sum 1.

    Returns:
      The least cost.
    """
    from scipy.optimize import linprog

    cost = np.asarray(cost, np.float64)
    rows, columns = cost.shape
    sums = np.concatenate(
        [
            np.kron(np.eye(rows), np.ones(columns)),
            np.kron(np.ones(rows), np.eye(columns)),
        ]
    )
    # The last sum follows from the others; rounding must not make it contradict them.
    solved = linprog(
        cost.ravel(), A_eq=sums[:-1], b_eq=np.concatenate([a, b])[:-1], method="highs"
    )
    if not solved.success:
        raise ValueError(f"no transport of these weights: {solved.message}")
    return float(solved.fun)


def matched_wasserstein(x: ArrayLike, y: ArrayLike, *, most: int = 1_000) -> float:
    """Give the distance W1 of two samples of points, equation (7).

    Args:
      x: `[N, D]`.
      y: `[M, D]`.
      most: so many points of each are matched, evenly chosen; fewer where one of the
        samples has fewer.
    """
    from scipy.optimize import linear_sum_assignment

    x, y = _points(x), _points(y)
    count = min(most, len(x), len(y))
    chosen = [z[np.linspace(0, len(z) - 1, count).round().astype(int)] for z in (x, y)]
    distances = _distances(*chosen)
    return float(distances[linear_sum_assignment(distances)].mean())


def window_sums(steps: ArrayLike, length: int) -> np.ndarray:
    """Add up steps within every window of time.

    Args:
      steps: `[N, T, D]`, of N episodes.
      length: of a window, from 1 to T.

    Returns:
      `[N (T - length + 1), D]`, windows of one episode after those of another.
    """
    steps = np.asarray(steps, np.float64)
    if not 1 <= length <= steps.shape[1]:
        raise ValueError(f"{steps.shape[1]} steps have no windows of {length}")
    sums = np.pad(steps.cumsum(1), ((0, 0), (1, 0), (0, 0)))
    return (sums[:, length:] - sums[:, :-length]).reshape(-1, steps.shape[2])


def sequence_wasserstein(
    x: Sequence[Sequence[Hashable]], y: Sequence[Sequence[Hashable]], *, length: int = 4
) -> float:
    """Compare the orders in which tasks were done, equation (4) with Hamming's cost.

    Args:
      x: N sequences of tasks, of demonstrations; they may differ in length.
      y: M sequences of tasks, of the policy.
      length: only so many first tasks count; a missing one is a task of its own.

    Returns:
      From 0 to `length`.
    """

    def counted(sequences: Sequence[Sequence[Hashable]]) -> dict[tuple, float]:
        counts: dict[tuple, float] = {}
        for sequence in sequences:
            first = tuple(sequence)[:length]
            first += (None,) * (length - len(first))
            counts[first] = counts.get(first, 0.0) + 1 / len(sequences)
        return counts

    a, b = counted(x), counted(y)
    cost = [[sum(p != q for p, q in zip(u, v, strict=True)) for v in b] for u in a]
    return transport(cost, list(a.values()), list(b.values()))


def time_wasserstein(x: ArrayLike, y: ArrayLike, *, horizon: float) -> float:
    """Compare when the first, second ... K-th task was done: mean of W1 over them.

    Args:
      x: `[N, K]`, steps, NaN for tasks that were not done.
      y: `[M, K]`.
      horizon: steps of an episode, which count for tasks that were not done.
    """
    x, y = (np.where(np.isnan(z), horizon, z) for z in map(np.asarray, (x, y)))
    return float(np.mean([wasserstein(p, q) for p, q in zip(x.T, y.T, strict=True)]))


def tasks_at_least(sequences: Sequence[Sequence[Hashable]], n: int) -> float:
    """Give the share of episodes in which at least n tasks were done."""
    return float(np.mean([len(sequence) >= n for sequence in sequences]))


def _points(x: ArrayLike) -> np.ndarray:
    x = np.asarray(x, np.float64)
    if x.ndim != 2:
        raise ValueError(f"points have shape [N, D], not {list(x.shape)}")
    return x


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distances of all pairs: `[N, D]`, `[M, D]` -> `[N, M]`."""
    return np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))
