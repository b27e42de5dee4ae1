"""Guides: functions that move a sample towards a condition or a high value.

A guide is `(x, step) -> x`, where `step` is one row of a sampler's table. With a value
V(x, level), or a network that is told a condition c, samples are guided by

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
(5) output = u + sum_i w_i (c_i - u), with w_i > 0 for a condition that must hold and
    w_i < 0 for one that must not [composable diffusion, Liu et al. 2022; Ajay et al.
    2023]

Weights. Our w in (3) is that of Decision Diffuser, of composable diffusion and of
CleanDiffuser, which writes w c + (1 - w) u. Ho & Salimans, Pearce et al. and IDQL write
(1 + w) c - w u; their w + 1 is our w.

Exactness of (1) and (2). If V is log E[exp(R(x0)) | x_t] at every level, then (1) with
the variance and scale 1, and (2) with scale 1, sample from p(x0) exp(R(x0)) in the
limit of many steps.

Exactness of (4). V is a log-probability of clean samples, so it needs no training on
noisy ones. If x0 ~ N(m, K) and V is linear, (4) gives the exact posterior mean of
p(x0) exp(V(x0)); for other values it agrees to first order in scale P. It moves the
estimate without a gradient through the network, as manifold-preserving guidance does
[He et al. 2024]. K makes neighbouring rows follow a row that is pulled.

Exactness of (5). If the conditions are independent given x_t, weights of 1 sample from
p(x | all conditions), because p(x | c_1, c_2) = p(x | c_1) p(x | c_2) / p(x) at every
level. Otherwise the product of noised densities is not the noised product, and (5) is
exact at the clean level only. A weight of -1 asks for p(x) p(x) / p(x | c).

If every example bears exactly one of two labels, p(c_1 | x_t) + p(c_2 | x_t) = 1, and
(5) with equal weights leads to samples for which both labels are equally likely. These
obey both conditions if examples that obey both bear either label equally often. If such
examples mostly bear one label, samples lean towards the other, and some then obey only
one condition.

Add values inside one value function, so that they are differentiated once. Chain guides
of different kinds. Rank finished candidates by `select_by`.
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

    The guide evaluates the value at the level at which a step starts, also when it acts
    on the mean. The level after the last step is clean, and no value network was
    trained there. The posterior variance of the last step is 0, so that only
    `scale_by="none"` moves the sample in it.

    Args:
      value: `(x [B, ...], level) -> [B]`, trained on noised x when scaled by variance.
      scale: factor of the gradient, in units that depend on those of the value.
      scale_by: second factor of the gradient. The released Diffuser has an option named
        after the standard deviation that uses the variance.
      stop_time: the guide does nothing at levels whose time is below this (`t_stopgrad`
        of the released Diffuser, where times are row indices).

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

    Use it with deterministic solvers: it changes the score that they integrate, and not
    their tables.

    Args:
      denoise: `(x, level) -> x0_hat`.
      value: `(x [B, ...], level) -> [B]`, evaluated at the noised x.
      scale: factor of the gradient; 1 is exact for the noise-conditional value.
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

    Euler steps follow the flow. No step moves a row of a sample by more than
    `sqrt(v) / substeps`, where v is P for K = I. An estimate is uncertain by about
    `sqrt(v)`, and no scale moves it farther than that. Where a value is steep, as at
    the rim of a region, the estimate overshoots by at most one short step.

    Args:
      denoise: `(x, level) -> x0_hat`.
      value: `x0 [B, H, D] -> [B]`; each value depends on its own x0 alone.
      scale: factor of the gradient; 1 reads the value as a log-probability.
      covariance: K `[H, H]`, positive definite with ones on its diagonal; None for I.
      substeps: number of Euler steps; each takes a gradient of the value and none of
        `denoise`.
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
    """Compute the covariance of rows, exp(-(i - j)^2 / (2 span^2)), `[rows, rows]`.

    A hundredth of each variance belongs to its row alone, so that the inverse exists.

    Args:
      rows: H.
      span: standard deviation of the kernel in rows; 0 for independent rows.
    """
    if not span:
        return np.eye(rows)
    lag = np.subtract.outer(np.arange(rows), np.arange(rows))
    return 0.99 * np.exp(-((lag / span) ** 2) / 2) + 0.01 * np.eye(rows)


def keep_out_value(
    center: Any, radius: Any, *, dims: Sequence[int], width: Any
) -> Callable[[jax.Array], jax.Array]:
    """Build the value of staying out of a disc, a smooth relative of `keep_out`.

    V = -sum over rows of depth^2 / (2 width^2), depth = max(0, radius - distance): the
    log-density of a half-normal depth. Its gradient is zero outside and points away
    from the centre inside; at the centre it points along the first of `dims`.

    Args:
      center: `[..., len(dims)]`, broadcasts to the points `[N, H, len(dims)]`.
      radius: broadcasts to `[N, H]`.
      dims: entries of the last axis that hold the point.
      width: standard deviation of the depth, in the units of x.

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
    """Build the value of passing a point at any time.

    V = log mean over rows of exp(-distance^2 / (2 width^2)): the log-likelihood that
    the path is seen at the point, at an unknown time, with an error of `width`. The
    gradient pulls mainly on the nearest rows, and is zero only at the point.

    Args:
      point: `[..., len(dims)]`, broadcasts to `[N, H, len(dims)]`.
      dims: entries of the last axis that hold the position.
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

    Pass the result to `denoiser`, which converts and clips the combination.

    Args:
      network: `(x [2B, ...], time [2B], keep [2B]) -> output [2B, ...]`. `keep` is bool
        and False where the network must drop the condition, as in training. The network
        holds conditions for the doubled batch.
      weight: w; 0 ignores the condition, 1 follows it as learned, more sharpens it. A
        paper that writes (1 + w) c - w u means w + 1 here.

    Returns:
      `(x [B, ...], time [B]) -> output [B, ...]`.
    """
    return compose(network, [weight])


def compose(
    network: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    weights: Sequence[Any],
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Combine predictions of several conditions and of none, eq. (5), in one call.

    The combination is linear with coefficients that sum to one, so it means the same
    for every kind of prediction.

    Args:
      network: `(x [(N + 1) B, ...], time, keep) -> output`, as in `classifier_free`. It
        holds conditions for N copies of the batch, the first condition first, and drops
        them in the last copy, where `keep` is False.
      weights: N weights w_i, above 0 for a condition that must hold and below 0 for one
        that must not.

    Returns:
      `(x [B, ...], time [B]) -> output [B, ...]`.
    """
    copies = len(weights) + 1

    def combined(x: jax.Array, time: jax.Array) -> jax.Array:
        keep = jnp.arange(copies * len(x)) < (copies - 1) * len(x)
        many, told = (
            jax.tree.map(lambda leaf: jnp.concatenate([leaf] * copies), each)
            for each in (x, time)
        )
        *given, without = jnp.split(network(many, told, keep), copies)
        terms = zip(weights, given, strict=True)
        return without + sum(w * (each - without) for w, each in terms)

    return combined


def chain(*guides: Guide) -> Guide:
    """Build the guide that applies guides one after another."""

    def guide(x: jax.Array, step: Steps) -> jax.Array:
        for each in guides:
            x = each(x, step)
        return x

    return guide


def select_by(
    value: Callable[[jax.Array], jax.Array],
) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """Build the function that selects the best of finished candidates.

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
    """Return the gradient of each example's value with respect to its own x."""
    return jax.grad(lambda x: value(x, level).sum())(x)
