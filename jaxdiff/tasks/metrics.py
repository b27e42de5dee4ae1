"""Distances between what a policy does and what demonstrators did, as distributions.

A policy can succeed and still imitate badly, if it always takes the same of many ways.
These functions compare samples x of demonstrations with samples y of a policy. All are
pure. With F and G the distribution functions of x and y, and r_i the distance of x_i
from its k-th nearest neighbour among the x,

(1) energy distance     2 E|x - y| - E|x - x'| - E|y - y'|, estimated without bias;
(2) W1 on a line        integral of |F(t) - G(t)| dt;
(3) sliced W1           (2) of projections, mean over random directions;
(4) optimal transport   min over P >= 0 of sum_ij P_ij c_ij, with fixed row and column
                        sums of P;
(5) density             1 / (k M) sum_j #{i: |y_j - x_i| <= r_i};
(6) coverage            1 / N #{i: some j has |y_j - x_i| <= r_i};
(7) matched W1          (4) with equal weights: the best matching of N points to N.

Density falls where y strays from x, and coverage where y leaves out parts of x (Naeem
et al., 2020, arXiv:2002.09797). Two finite samples of one distribution do not give
(3), (4), (7) = 0 and (6) = 1, so compare with a second sample of the demonstrator that
is as large as the policy's. For sequences of tasks, such as those of the Franka
kitchen, the cost in (4) is the number of places in which two sequences differ.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike


def validity(labels: ArrayLike) -> float:
    """Return the share of actions on an object.

    Args:
      labels: int `[N]`, index of the object under each action, -1 for none.
    """
    return float(np.mean(np.asarray(labels) >= 0))


def share_error(labels: ArrayLike, shares: ArrayLike) -> float:
    """Return the total variation distance between chosen and exact shares of objects.

    Args:
      labels: int `[N]`, index of the object under each action, -1 for none.
      shares: `[K]`, the exact share of each object.

    Returns:
      A number from 0, the same shares, to 1, nothing in common.
    """
    labels, shares = np.asarray(labels), np.append(np.asarray(shares), 0.0)
    # The last entry counts actions on nothing.
    found = np.bincount(labels % len(shares), minlength=len(shares)) / len(labels)
    return float(np.abs(found - shares).sum() / 2)


def energy_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Estimate the energy distance, equation (1), without bias.

    Two samples of one distribution have an estimate of 0 on average, so it may be
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
    """Return W1 between samples of numbers, equation (2): `[N]` and `[M]`."""
    x, y = (np.sort(np.asarray(z, np.float64).ravel()) for z in (x, y))
    cuts = np.sort(np.concatenate([x, y]))
    below = [np.searchsorted(z, cuts[:-1], side="right") / len(z) for z in (x, y)]
    return float((np.abs(below[0] - below[1]) * np.diff(cuts)).sum())


def sliced_wasserstein(
    x: ArrayLike, y: ArrayLike, *, directions: int = 64, seed: int = 0
) -> float:
    """Return the mean of W1 over projections, equation (3).

    Args:
      x: `[N, D]`.
      y: `[M, D]`.
      directions: number of directions, uniform on the unit sphere.
      seed: seed of the directions.
    """
    x, y = _points(x), _points(y)
    ways = np.random.default_rng(seed).standard_normal((directions, x.shape[1]))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    return float(np.mean([wasserstein(x @ way, y @ way) for way in ways]))


def density_and_coverage(
    x: ArrayLike, y: ArrayLike, *, k: int = 5
) -> tuple[float, float]:
    """Return density and coverage, equations (5) and (6).

    Args:
      x: `[N, D]`, demonstrations, more than k.
      y: `[M, D]`, samples of the policy.
      k: which neighbour gives the radius.

    Raises:
      ValueError: too few demonstrations.
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

    Raises:
      ValueError: weights between which there is no transport.
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
    # The last sum follows from the others; rounding could make it contradict them.
    solved = linprog(
        cost.ravel(), A_eq=sums[:-1], b_eq=np.concatenate([a, b])[:-1], method="highs"
    )
    if not solved.success:
        raise ValueError(f"no transport of these weights: {solved.message}")
    return float(solved.fun)


def matched_wasserstein(x: ArrayLike, y: ArrayLike, *, most: int = 1_000) -> float:
    """Return W1 between two samples of points, equation (7).

    Args:
      x: `[N, D]`.
      y: `[M, D]`.
      most: number of points of each that are matched, chosen evenly; fewer if a sample
        has fewer.
    """
    from scipy.optimize import linear_sum_assignment

    x, y = _points(x), _points(y)
    count = min(most, len(x), len(y))
    chosen = [z[np.linspace(0, len(z) - 1, count).round().astype(int)] for z in (x, y)]
    distances = _distances(*chosen)
    return float(distances[linear_sum_assignment(distances)].mean())


def window_sums(steps: ArrayLike, length: int) -> np.ndarray:
    """Add up the steps within every window of time.

    Args:
      steps: `[N, T, D]`, N episodes.
      length: steps of a window, from 1 to T.

    Returns:
      `[N (T - length + 1), D]`, episode after episode.

    Raises:
      ValueError: a length for which there are no windows.
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
      x: N sequences of tasks, from demonstrations; they may differ in length.
      y: M sequences of tasks, from the policy.
      length: number of first tasks that count; a missing task differs from all others.

    Returns:
      A number from 0 to `length`.
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
    """Compare when the first, second, ..., K-th task was done: mean of K W1.

    Args:
      x: steps `[N, K]`, NaN for tasks that were not done.
      y: `[M, K]`.
      horizon: steps of an episode, which stand in for NaN.
    """
    x, y = (np.where(np.isnan(z), horizon, z) for z in map(np.asarray, (x, y)))
    return float(np.mean([wasserstein(p, q) for p, q in zip(x.T, y.T, strict=True)]))


def tasks_at_least(sequences: Sequence[Sequence[Hashable]], n: int) -> float:
    """Return the share of episodes in which at least n tasks were done."""
    return float(np.mean([len(sequence) >= n for sequence in sequences]))


def _points(x: ArrayLike) -> np.ndarray:
    x = np.asarray(x, np.float64)
    if x.ndim != 2:
        raise ValueError(f"points have shape [N, D], not {list(x.shape)}")
    return x


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the distances of all pairs: `[N, D]`, `[M, D]` -> `[N, M]`."""
    return np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))
