"""Normalizers: data units to unit scale and back, one dimension at a time.

A normalizer is a piecewise linear map of each dimension through K knots (x_k, u_k):

(1) u = u_k + (x - x_k) (u_{k+1} - u_k) / (x_{k+1} - x_k),     x_k <= x < x_{k+1},

and the way back exchanges x and u. The kinds differ only in their knots:

(2) Gaussian   mean -+ std -> -+1, without bounds;
(3) limits     min -> -1, max -> +1; the way back is bounded by [min, max];
(4) CDF        x_k -> 2 (share of the data <= x_k) - 1, bounded both ways.

The line of two knots continues outside them, so that (2) and (3) are affine. An
empirical CDF ends at its outer knots. (2)-(4) are the normalizers of Diffuser (Janner
et al., 2022, arXiv:2205.09991) and Decision Diffuser (Ajay et al., 2023,
arXiv:2211.15657). A dimension that never changes maps to 0 and back to its constant.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.pytree import pytree_dataclass

Kind = Literal["gaussian", "limits", "cdf"]


@pytree_dataclass
class Normalizer:
    """Knots of equation (1) and the bounds of the data: a pytree of arrays.

    Attributes:
      knots: `[K, D]`, data units, not decreasing along K.
      units: `[K, D]`, values that the knots map to.
      low: `[D]`, smallest value that `unnormalize` returns; -inf for none.
      high: `[D]`, largest value that `unnormalize` returns; inf for none.
    """

    knots: jax.Array
    units: jax.Array
    low: jax.Array
    high: jax.Array


def fit_normalizer(kind: Kind, x: np.ndarray) -> Normalizer:
    """Fit the normalizer of a kind to data `[N, D]`, without padding."""
    return {"gaussian": fit_gaussian, "limits": fit_limits, "cdf": fit_cdf}[kind](x)


def identity(dim: int) -> Normalizer:
    """Build the normalizer of `dim` dimensions that changes nothing."""
    ends = jnp.asarray([[-1.0], [1.0]]) * jnp.ones(dim)
    unbounded = jnp.full(dim, jnp.inf)
    return Normalizer(knots=ends, units=ends, low=-unbounded, high=unbounded)


def fit_gaussian(x: np.ndarray, *, floor: float = 0.0) -> Normalizer:
    """Fit zero mean and unit variance (equation 2) to data `[N, D]`.

    Args:
      x: the data.
      floor: added to each standard deviation.
    """
    x = np.asarray(x, np.float64)
    unbounded = np.full(x.shape[1], np.inf)
    mean, std = x.mean(0), x.std(0) + floor
    return _normalizer(x, [mean - std, mean + std], [-1, 1], -unbounded, unbounded)


def fit_limits(x: np.ndarray) -> Normalizer:
    """Fit the range [-1, 1] (equation 3) to data `[N, D]`."""
    x = np.asarray(x, np.float64)
    low, high = x.min(0), x.max(0)
    return _normalizer(x, [low, high], [-1, 1], low, high)


def fit_cdf(x: np.ndarray, *, max_knots: int = 1000) -> Normalizer:
    """Fit uniform marginals in [-1, 1] (equation 4) to data `[N, D]`.

    Args:
      x: the data.
      max_knots: most knots, at least 16. All distinct values become knots if they are
        as few. Else knots are the values that many data share, each with the value
        below it, and others spaced by probability, closer in the tails.
    """
    x = np.asarray(x, np.float64)
    tables = [np.unique(column, return_counts=True) for column in x.T]
    chosen = [_knots(counts, max_knots) for _, counts in tables]
    # At least three knots, because the line of two continues beyond the data.
    size = max(3, *map(len, chosen))
    knots, units = [], []
    for (values, counts), index in zip(tables, chosen, strict=True):
        # The last knot may be repeated; no value lies in a segment of no width.
        index = np.pad(index, (0, size - len(index)), mode="edge")
        knots.append(values[index])
        units.append(2 * np.cumsum(counts)[index] / len(x) - 1)
    return _normalizer(x, np.array(knots).T, np.array(units).T, x.min(0), x.max(0))


def _knots(counts: np.ndarray, most: int) -> np.ndarray:
    """Choose which distinct values of a dimension become knots, in increasing order."""
    count = len(counts)
    if count <= most:
        return np.arange(count)
    # A value that many data share is a step of the CDF, whose lower side belongs to the
    # value below. There are at most 0.4 `most` of them.
    steps = np.flatnonzero(counts > 2.5 * counts.sum() / most)
    tail = most // 16
    spaced = most - 2 * len(steps) - 2 * tail
    share = np.cumsum(counts) / counts.sum()
    # Within one space of either end, ranks grow by a factor, because tails are thin.
    ends = np.geomspace(1 / counts.sum(), 1 / spaced, tail)
    wanted = np.concatenate([np.linspace(0, 1, spaced), ends, 1 - ends])
    index = np.searchsorted(share, wanted).clip(0, count - 1)
    return np.unique(np.concatenate([index, steps, np.maximum(steps - 1, 0)]))


def fit_pixels(x: np.ndarray) -> Normalizer:
    """Map images `[N, D]` from black, 0, to white: 255, or 1 if nothing is above 1.

    Bounds and scale are those of pixels, the same in all dimensions.
    """
    white = 255.0 if x.max() > 1 else 1.0
    low, high = np.zeros(x.shape[1], np.float32), np.full(x.shape[1], white, np.float32)
    return Normalizer(
        knots=jnp.stack([low, high]),
        units=jnp.stack([low, np.ones_like(high)]),
        low=jnp.asarray(low),
        high=jnp.asarray(high),
    )


def normalize(normalizer: Normalizer, x: jax.Array | np.ndarray) -> jax.Array:
    """Map data units to unit scale (equation 1).

    Args:
      normalizer: of D dimensions.
      x: `[..., D]`; beyond the data a CDF gives the unit of the nearest value.

    Returns:
      `[..., D]`.
    """
    x = jnp.asarray(x)
    if normalizer.knots.shape[0] > 2:
        x = jnp.clip(x, normalizer.low, normalizer.high)
    return _interpolate(x, normalizer.knots, normalizer.units)


def unnormalize(normalizer: Normalizer, u: jax.Array | np.ndarray) -> jax.Array:
    """Map unit scale to data units, within the normalizer's bounds.

    Args:
      normalizer: of D dimensions.
      u: `[..., D]`.

    Returns:
      `[..., D]`.
    """
    x = _interpolate(jnp.asarray(u), normalizer.units, normalizer.knots)
    return jnp.clip(x, normalizer.low, normalizer.high)


def take_dimensions(normalizer: Normalizer, index: slice | np.ndarray) -> Normalizer:
    """Pick dimensions, such as the observations of rows [action | observation]."""
    return jax.tree.map(lambda leaf: leaf[..., index], normalizer)


def _normalizer(x, knots, units, low, high) -> Normalizer:
    """Build the normalizer; dimensions that never change get units of 0."""
    # Extremes are compared, because the rounding error of a mean makes the standard
    # deviation of a constant positive. What differs in the last bits of float32 alone
    # is constant too: such a unit would make any other value enormous.
    resolution = 4 * np.finfo(np.float32).eps * np.abs(x).max(0)
    constant = x.max(0) - x.min(0) <= resolution
    knots = np.where(constant, x[0], np.asarray(knots))
    units = np.broadcast_to(np.reshape(units, (len(knots), -1)), knots.shape)
    return Normalizer(
        knots=jnp.asarray(knots, jnp.float32),
        units=jnp.asarray(np.where(constant, 0.0, units), jnp.float32),
        low=jnp.asarray(low, jnp.float32),
        high=jnp.asarray(high, jnp.float32),
    )


def _interpolate(x: jax.Array, xs: jax.Array, ys: jax.Array) -> jax.Array:
    """Evaluate the piecewise linear map of each dimension: `[..., D]`."""

    def one_dimension(x, xs, ys):
        # Two knots have one segment and need no search.
        inner = xs[1:-1]
        segment = jnp.searchsorted(inner, x, side="right") if inner.size else 0
        rise, run = jnp.diff(ys), jnp.diff(xs)
        # The guard prevents 0/0 where the knots of a segment are equal.
        slope = jnp.where(run > 0, rise / jnp.where(run > 0, run, 1.0), 0.0)
        return ys[segment] + (x - xs[segment]) * slope[segment]

    return jax.vmap(one_dimension, in_axes=-1, out_axes=-1)(x, xs, ys)
