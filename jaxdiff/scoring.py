"""Scores on a scale from chance to expert, and their intervals.

With R a mean return over episodes, on a scale where 0 is a random policy and 100 the
reference expert,

(1) score = 100 (R - R_random) / (R_expert - R_random).

Intervals are percentile bootstrap intervals over episodes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxdiff.errors import UserError


def on_scale(value: float, chance: float, expert: float) -> float:
    """Put a return on the scale from chance, 0, to the expert, 100: equation (1)."""
    return 100 * (value - chance) / (expert - chance)


def reference_scores(
    references: Mapping[str, float], mean: float, interval: tuple[float, float]
) -> dict[str, float]:
    """Put a mean return and its interval on the scale of a dataset, if it has one.

    Args:
      references: mean returns `random` and `expert`, if known.
      mean: of the returns.
      interval: of it.

    Returns:
      `score`, `score_low` and `score_high`; nothing where a reference is missing or the
      expert's is not above the random policy's.
    """
    if not {"random", "expert"} <= references.keys():
        return {}
    chance, expert = references["random"], references["expert"]
    if not np.isfinite(expert - chance) or expert <= chance:
        return {}
    return {
        "score": on_scale(mean, chance, expert),
        "score_low": on_scale(interval[0], chance, expert),
        "score_high": on_scale(interval[1], chance, expert),
    }


def score(
    returns: np.ndarray,
    random_returns: np.ndarray,
    expert_returns: np.ndarray,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Score returns against references on the same episodes, equation (1).

    Args:
      returns: `[N]`.
      random_returns: `[N]`, of the random policy.
      expert_returns: `[N]`, of the expert.
      confidence: of the bootstrap interval over episodes.
      seed: of the bootstrap.

    Returns:
      Score, and the low and high end of its interval.

    Raises:
      UserError: the expert earned no more than the random policy.
    """
    require_scale(random_returns, expert_returns)
    table = np.stack([returns, random_returns, expert_returns])

    def of(drawn: np.ndarray) -> float:
        own, chance, expert = drawn.mean(1)
        # A draw of few episodes may pay the expert no more than the random policy.
        # Its score would be 0 / 0, so it is left out.
        return on_scale(own, chance, expert) if expert > chance else np.nan

    low, high = bootstrap(table, of, confidence=confidence, seed=seed)
    return of(table), low, high


def require_scale(random_returns: np.ndarray, expert_returns: np.ndarray) -> None:
    """Check that equation (1) has a denominator."""
    chance, expert = np.mean(random_returns), np.mean(expert_returns)
    if expert <= chance:
        raise UserError(
            f"in {len(expert_returns)} episodes the expert earned {expert:g} and the "
            f"random policy {chance:g}, which leaves no scale for a score; play more "
            "`episodes`"
        )


def bootstrap(
    table: np.ndarray,
    statistic: Callable[[np.ndarray], Any] = np.mean,
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return a percentile bootstrap interval, resampling the last axis of a table.

    Args:
      table: `[N]`, or `[K, N]` where K numbers belong to one episode.
      statistic: maps a resampled table to a number, or to NaN for a draw to leave out.
      confidence: of the interval.
      draws: how often to resample.
      seed: of the bootstrap.
    """
    table = np.asarray(table, np.float64)
    rng = np.random.default_rng(seed)
    n = table.shape[-1]
    picks = rng.integers(n, size=(draws, n))
    values = [statistic(table[..., pick]) for pick in picks]
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)
