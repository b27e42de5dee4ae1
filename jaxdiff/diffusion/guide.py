"""Guides: functions that move a sample towards what is wanted.

A guide is `(x, step) -> x`, where `step` is one row of a sampler's table, so a guide of
your own is three lines. With a value V(x, level):

(1) x <- x + scale f(step) grad V(x), f = posterior variance, its root, or 1
    [Janner et al. 2022, algorithm 1; Dhariwal & Nichol 2021, algorithm 1]
(2) x0_hat <- x0_hat + scale sigma^2 / alpha grad V(x_t)
    because x0_hat = (x_t + sigma^2 score) / alpha and the score of p exp(V) is
    score + grad V [Dhariwal & Nichol 2021, algorithm 2, written in x0]
(3) output = u + w (c - u), c with and u without the condition
    [Ho & Salimans 2022, eq. 6, where the weight is w - 1]

(4) x0_hat <- y(1), where y(0) = x0_hat and dy/du = scale P grad V(y),
    P = sigma^2 K (alpha^2 K + sigma^2 I)^-1, the posterior covariance of x0 if its
    prior covariance, between the rows of a trajectory, is K

(5) output = u + sum_i w_i (c_i - u), a condition i that is asked for with w_i > 0 and
    one that is ruled out with w_i < 0 [composable diffusion, Liu et al. 2022; Ajay et
    al. 2023]

Other papers write (3) otherwise: our w is the w of Decision Diffuser, of CleanDiffuser
(w c + (1 - w) u) and of composable diffusion, and the w + 1 of Ho & Salimans, Pearce
et al. and IDQL, who write (1 + w) c - w u.

If all conditions are independent given x_t, (5) with weights of 1 samples from
p(x | all of them), for then p(x | c_1, c_2) = p(x | c_1) p(x | c_2) / p(x) at every
level. If they are not, that product of the noised densities is not the noised product,
and (5) is exact at the clean level only. With w = -1, p(x) p(x) / p(x | c) is asked
for: what is usual, but for where it is due to c.

If every example has one of two labels, p(c_1 | x_t) + p(c_2 | x_t) = 1, and (5) with
equal weights leads to where both are as likely: to what obeys both, if its label was
drawn alike from the two. If it mostly bears one of them, samples lean to the side that
borders on the other, and where it nearly always does some leave it.

If V is log E[exp(R(x0)) | x_t], at every level, then (1) with the variance and scale 1
and (2) with scale 1 sample from p(x0) exp(R(x0)) as the steps become many.

Equation (4) needs no value of noisy samples, and so no training: V is a function of x0
that somebody writes down, a log-probability. If x0 ~ N(m, K) and V is linear, it gives
the exact posterior mean of p(x0) exp(V(x0)); for other values it agrees with it to
first order in scale P. It moves the estimate and does not look through the network, as
manifold-preserving guidance does [He et al. 2024]; that neighbouring rows follow where
one is pulled, another way round a maze perhaps, is the work of K.

Values that add belong in one value function, which is differentiated once; guides of
different kinds are chained. Ranking finished candidates is `select_by`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.diffusion.constraint import from_center
from jaxdiff.diffusion.sampler import Denoise, Guide, Steps
from jaxdiff.diffusion.schedule import NoiseLevels

Value: TypeAlias = Callable[[jax.Array, NoiseLevels], jax.Array]


def value_guide(
    value: Value,
    *,
    scale: Any,
    scale_by: Literal["variance", "std", "none"] = "variance",
    stop_time: Any = None,
) -> Guide:
    """Build the guide that climbs a value, eq. (1).

    The guide reads the level at which its step starts, wherever it acts. At the mean
    one might expect the level after the step, but for the last step that is the clean
    row, whose time no value network was trained on; the posterior variance is 0 there,
    so only `scale_by="none"` moves it at all.

    Args:
      value: `(x [B, ...], level) -> [B]`, trained on noised x when scaled by variance.
      scale: times the gradient; its size depends on the value's units.
      scale_by: what the gradient is multiplied by besides. The option of the released
        Diffuser that is named after the standard deviation uses the variance.
      stop_time: do nothing at levels whose time is below this (`t_stopgrad` of the
        released Diffuser, where times are row indices).

    Raises:
      ValueError: unknown `scale_by`.
    """
    if scale_by not in ("variance", "std", "none"):
        raise ValueError(
            f"scale_by must be 'variance', 'std' or 'none', got {scale_by!r}"
        )

    def guide(x: jax.Array, step: Steps) -> jax.Array:
        factor = {
            "variance": step.variance,
            "std": jnp.sqrt(step.variance),
            "none": 1.0,
        }[scale_by]
        moved = x + scale * factor * _gradient(value, x, step.level)
        if stop_time is None:
            return moved
        return jnp.where(step.level.time < stop_time, x, moved)

    return guide


def guide_prediction(denoise: Denoise, value: Value, *, scale: Any) -> Denoise:
    """Wrap `denoise` so that its estimate climbs a value, eq. (2).

    This is the form for deterministic solvers: it changes the score they integrate
    and leaves their tables as they are.

    Args:
      denoise: `(x, level) -> x0_hat`.
      value: `(x [B, ...], level) -> [B]`, evaluated at the noised x.
      scale: times the gradient; 1 is exact for the noise-conditional value.
    """

    def guided(x: jax.Array, level: NoiseLevels) -> jax.Array:
        factor = scale * level.sigma**2 / level.alpha
        return denoise(x, level) + factor * _gradient(value, x, level)

    return guided


def climb(
    denoise: Denoise,
    value: Callable[[jax.Array], jax.Array],
    *,
    scale: Any = 1.0,
    covariance: Any = None,
    substeps: int = 8,
) -> Denoise:
    """Wrap `denoise` so that its estimate climbs a value of clean samples, eq. (4).

    The flow is followed by Euler steps, each of which moves no row of a sample by more
    than `sqrt(v) / substeps`, v being P where K = I. An estimate is uncertain by about
    `sqrt(v)`, so that is as far as a value may move it, however large the scale; and
    where a value is steep, as at the rim of a region, the estimate overshoots by one
    short step at most.

    Args:
      denoise: `(x, level) -> x0_hat`.
      value: `x0 [B, H, D] -> [B]`, each of its own x0 alone.
      scale: times the gradient; 1 reads the value as a log-probability.
      covariance: `[H, H]`, K, positive definite with ones on its diagonal; None for I.
      substeps: Euler steps; each takes a gradient of the value and none of `denoise`.
    """

    def climbed(x: jax.Array, level: NoiseLevels) -> jax.Array:
        rows = x.shape[-2]
        prior = jnp.eye(rows) if covariance is None else jnp.asarray(covariance)
        noised = level.alpha**2 * prior + level.sigma**2 * jnp.eye(rows)
        posterior = level.sigma**2 * jnp.linalg.solve(noised, prior)
        uncertain = level.sigma / jnp.sqrt(level.alpha**2 + level.sigma**2)

        def euler(y: jax.Array, _: None) -> tuple[jax.Array, None]:
            step = scale / substeps * posterior @ jax.grad(lambda y: value(y).sum())(y)
            length = jnp.linalg.norm(step, axis=-1).max(-1)[..., None, None]
            return y + step * jnp.minimum(
                1.0, uncertain / substeps / (length + 1e-20)
            ), None

        return jax.lax.scan(euler, denoise(x, level), None, length=substeps)[0]

    return climbed


def smooth_covariance(rows: int, span: float) -> np.ndarray:
    """Tabulate how rows hang together: exp(-(i - j)^2 / (2 span^2)), `[rows, rows]`.

    A hundredth of the variance is left to each row alone, so that the inverse exists.

    Args:
      rows: H.
      span: rows over which a trajectory is about the same; 0 for no connection.
    """
    if not span:
        return np.eye(rows)
    lag = np.subtract.outer(np.arange(rows), np.arange(rows))
    return 0.99 * np.exp(-((lag / span) ** 2) / 2) + 0.01 * np.eye(rows)


def keep_out_value(
    center: Any, radius: Any, *, dims: Sequence[int], width: Any
) -> Callable[[jax.Array], jax.Array]:
    """Build the value of staying out of a disc, the smooth kin of `keep_out`.

    V = -sum over rows of depth^2 / (2 width^2), depth = max(0, radius - distance): the
    log-density of a depth that is half normal. Its gradient is zero outside, and points
    away from the centre inside, at the very centre along the first of `dims`.

    Args:
      center: `[..., len(dims)]`, broadcasts to the points `[N, H, len(dims)]`.
      radius: broadcasts to `[N, H]`.
      dims: entries of the last axis that are the point.
      width: depth that is as bad as one standard deviation, in the units of x.

    Returns:
      `x [N, H, D] -> [N]`.
    """
    index = np.asarray(dims)

    def value(x: jax.Array) -> jax.Array:
        _, distance = from_center(x[..., index], center)
        depth = jnp.maximum(0.0, radius - distance)
        return -((depth / width) ** 2).sum(-1) / 2

    return value


def pass_by_value(
    point: Any, *, dims: Sequence[int], width: Any
) -> Callable[[jax.Array], jax.Array]:
    """Build the value of passing a point at some time or other.

    V = log mean over rows of exp(-distance^2 / (2 width^2)): the log-likelihood that
    the path is seen at the point, at an unknown time, with an error of `width`. The
    gradient is nowhere zero but at the point, and pulls on the rows that are nearest.

    Args:
      point: `[..., len(dims)]`, broadcasts to `[N, H, len(dims)]`.
      dims: entries of the last axis that are the position.
      width: standard deviation of the error, in the units of x.

    Returns:
      `x [N, H, D] -> [N]`.
    """
    index = np.asarray(dims)

    def value(x: jax.Array) -> jax.Array:
        offset = (x[..., index] - point) / width
        logits = -(offset**2).sum(-1) / 2
        return jax.nn.logsumexp(logits, axis=-1) - jnp.log(logits.shape[-1])

    return value


def classifier_free(
    network: Callable[[jax.Array, jax.Array, jax.Array], jax.Array], *, weight: Any
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Combine predictions with and without the condition, eq. (3), in one call.

    Pass the answer to `denoiser`: conversion and clipping then act on the combination.

    Args:
      network: `(x [2B, ...], time [2B], keep [2B]) -> output [2B, ...]`; `keep` is
        boolean and false where the condition must be dropped, as in training. The
        condition it holds must fit the doubled batch.
      weight: w; 0 is unconditional, 1 plainly conditional, above 1 sharper. A paper
        that writes (1 + w) c - w u means w + 1 here.

    Returns:
      `(x [B, ...], time [B]) -> output [B, ...]`.
    """
    return compose(network, [weight])


def compose(
    network: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    weights: Sequence[Any],
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Combine predictions of several conditions and of none, eq. (5), in one call.

    It is linear in the network's output with coefficients that sum to one, so it means
    the same whatever the network predicts.

    Args:
      network: `(x [(N + 1) B, ...], time, keep) -> output`, as in `classifier_free`,
        holding conditions for N copies of the batch, those of the first condition
        first; in the last copy, where `keep` is false, they must be dropped.
      weights: N weights w_i; above 0 for a condition that must hold, below for one
        that must not.

    Returns:
      `(x [B, ...], time [B]) -> output [B, ...]`.
    """
    copies = len(weights) + 1

    def combined(x: jax.Array, time: jax.Array) -> jax.Array:
        keep = jnp.arange(copies * len(x)) < (copies - 1) * len(x)
        many = jnp.concatenate([x] * copies), jnp.concatenate([time] * copies)
        *given, without = jnp.split(network(*many, keep), copies)
        terms = zip(weights, given, strict=True)
        return without + sum(w * (each - without) for w, each in terms)

    return combined


def chain(*guides: Guide) -> Guide:
    """Apply guides one after the other, each to the outcome of the one before."""

    def guide(x: jax.Array, step: Steps) -> jax.Array:
        for each in guides:
            x = each(x, step)
        return x

    return guide


def select_by(
    value: Callable[[jax.Array], jax.Array],
) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """Build the choice of the best among finished candidates.

    Args:
      value: `candidates [C, ...] -> [C]`.

    Returns:
      `candidates [C, ...] -> (best [...], values [C])`; the first of equals wins.
    """

    def select(candidates: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = value(candidates)
        return candidates[jnp.argmax(values)], values

    return select


def _gradient(value: Value, x: jax.Array, level: NoiseLevels) -> jax.Array:
    """Gradient of each example's value in its own x."""
    return jax.grad(lambda x: value(x, level).sum())(x)
