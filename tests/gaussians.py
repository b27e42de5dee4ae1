"""Gaussian data, for which everything about diffusion has a closed form.

For x0 ~ N(m, C) and x_t = alpha x0 + sigma noise the posterior of x0 is Gaussian, its
mean affine in x_t. Everything below is plain NumPy in float64 where its inputs are, and
works on JAX arrays as well.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Gaussian:
    """N(mean [D], cov [D, D])."""

    mean: np.ndarray
    cov: np.ndarray

    def gain(self, level: Any) -> Any:
        """d E[x0 | x_t] / d x_t, `[D, D]` (symmetric)."""
        eigenvalues, basis = np.linalg.eigh(self.cov)
        shrink = level.alpha * eigenvalues
        shrink = shrink / (level.alpha**2 * eigenvalues + level.sigma**2)
        return (basis * shrink) @ basis.T

    def denoise(self, x: Any, level: Any) -> Any:
        """E[x0 | x_t] of `x [..., D]`."""
        return self.mean + (x - level.alpha * self.mean) @ self.gain(level)

    def posterior_cov(self, level: Any) -> Any:
        """Cov[x0 | x_t], `[D, D]`."""
        return self.cov - level.alpha * self.gain(level) @ self.cov

    def marginal_std(self, level: Any) -> Any:
        """Standard deviations of x_t, `[D]`, for a diagonal covariance."""
        return np.sqrt(level.alpha**2 * np.diag(self.cov) + level.sigma**2)

    def conditional(self, free: np.ndarray, values: np.ndarray) -> "Gaussian":
        """The free entries, given that the others equal `values`."""
        known = ~free
        regress = self.cov[np.ix_(free, known)] @ np.linalg.inv(
            self.cov[np.ix_(known, known)]
        )
        return Gaussian(
            self.mean[free] + regress @ (values - self.mean[known]),
            self.cov[np.ix_(free, free)] - regress @ self.cov[np.ix_(known, free)],
        )

    def tilt(self, slope: np.ndarray, curvature: np.ndarray) -> "Gaussian":
        """p(x0) exp(slope x0 - x0 curvature x0 / 2), normalised."""
        precision = np.linalg.inv(self.cov) + curvature
        linear = np.linalg.solve(self.cov, self.mean) + slope
        return Gaussian(np.linalg.solve(precision, linear), np.linalg.inv(precision))


DATA = Gaussian(
    mean=np.array([0.5, -1.0, 2.0]),
    cov=np.array([[0.09, 0.05, 0.0], [0.05, 0.25, -0.3], [0.0, -0.3, 1.0]]),
)
DIAGONAL = Gaussian(
    mean=np.array([0.5, -1.0, 2.0]), cov=np.diag(np.array([0.09, 0.5, 2.0]))
)


def row(steps: Any, index: int) -> Any:
    """One row of a table, in float64."""
    import jax

    return jax.tree.map(lambda leaf: np.float64(leaf[index]), steps)


def moments(
    data: Gaussian,
    steps: Any,
    *,
    guide: Any = None,
    guide_at: str = "x_t",
    guide_steps: int = 1,
    temperature: float = 1.0,
    init: Gaussian | None = None,
) -> Gaussian:
    """What a table does to N(0, I) with the exact denoiser of `data`.

    The state (x, previous x0_hat, 1) is linear in the one before, so its mean is a
    matrix times a vector and its covariance a sandwich. `guide(step)` gives (G, g) with
    x <- G x + g.
    """
    dim = len(data.mean)
    zero, eye = np.zeros((dim, dim)), np.eye(dim)

    def affine(top: Any, middle: Any) -> np.ndarray:
        last = np.concatenate([np.zeros(2 * dim), [1.0]])
        return np.vstack([np.column_stack(top), np.column_stack(middle), last])

    def guidance(step: Any, place: str) -> np.ndarray:
        if guide is None or place != guide_at:
            return np.eye(2 * dim + 1)
        matrix, offset = guide(step)
        once = affine((matrix, zero, offset), (zero, eye, np.zeros(dim)))
        return np.linalg.matrix_power(once, guide_steps)

    start = init or Gaussian(np.zeros(dim), temperature**2 * eye)
    mean = np.concatenate([start.mean, np.zeros(dim), [1.0]])
    cov = np.zeros((2 * dim + 1, 2 * dim + 1))
    cov[:dim, :dim] = start.cov
    for index in range(len(steps.x)):
        step = row(steps, index)
        gain = data.gain(step.level)
        offset = data.mean - step.level.alpha * gain @ data.mean
        update = affine(
            (step.x * eye + step.x0 * gain, step.x0_prev * eye, step.x0 * offset),
            (gain, zero, offset),
        )
        update = guidance(step, "mean") @ update @ guidance(step, "x_t")
        mean, cov = update @ mean, update @ cov @ update.T
        cov[:dim, :dim] += (temperature * step.noise) ** 2 * eye
    return Gaussian(mean[:dim], cov[:dim, :dim])


def assert_moments(x: Any, expected: Gaussian, *, slack: float = 0.0) -> None:
    """Check samples `x [B, D]` within five standard errors plus a relative slack."""
    x = np.asarray(x, np.float64)
    std = np.sqrt(np.diag(expected.cov))
    error = np.abs(x.mean(axis=0) - expected.mean)
    assert np.all(error < (5 / np.sqrt(len(x)) + slack) * std), (error, std)
    # Var of a sample covariance: (c_ii c_jj + c_ij^2) / n <= 2 c_ii c_jj / n.
    bound = (5 * np.sqrt(2 / len(x)) + slack) * np.outer(std, std)
    difference = np.abs(np.cov(x.T).reshape(expected.cov.shape) - expected.cov)
    assert np.all(difference < bound), (difference, bound)


def mixture_denoise(
    means: np.ndarray, std: float, weights: np.ndarray, x: Any, level: Any
) -> Any:
    """E[x0 | x_t] of a mixture of isotropic Gaussians, `means [K, D]`, `x [B, D]`."""
    import jax
    import jax.numpy as jnp

    variance = level.alpha**2 * std**2 + level.sigma**2
    offset = x[:, None] - level.alpha * means
    logits = jnp.log(weights) - (offset**2).sum(-1) / (2 * variance)
    each = means + level.alpha * std**2 / variance * offset
    return jnp.einsum("bk,bkd->bd", jax.nn.softmax(logits), each)
