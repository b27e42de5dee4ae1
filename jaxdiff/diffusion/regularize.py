"""Score regularisation: keep a simple policy near a behaviour that a model has learned.

A policy pi = N(m, S^2) has a diagonal S; with S = 0 it is the Dirac policy a = m. It
maximises Q and stays near a behaviour mu, whose diffused score is known through a model
eps_psi of the noise (Chen et al., 2024, arXiv:2310.07297):

(1) max_pi E Q(a) - 1/beta E_t [omega(t) sigma_t / alpha_t KL(pi_t || mu_t)]

where pi_t and mu_t are pi and mu noised to level t. With a draw of the policy,

(2) a = m + S xi,   a_t = alpha_t a + sigma_t eps,   xi, eps ~ N(0, I),

the gradient of the second term with respect to a, without the factor 1/beta, is

(3) omega(t) (eps_psi(a_t, t) - b),
    b = sigma_t (a_t - alpha_t m) / (alpha_t^2 S^2 + sigma_t^2),

which the chain rule carries on to m and S. The factor sigma_t / alpha_t in (1) cancels
the factors of d a_t / d a and of the score. For S = 0, b is eps: its mean is zero, and
it reduces the variance. For S > 0, b also carries the entropy of pi and cannot be left
out. Nothing differentiates eps_psi, and no chain of denoising steps is run.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax

from jaxdiff.diffusion.schedule import NoiseLevels, add_noise

Omega = Literal["variance", "one", "ratio", "variance-squared"]

# omega(t) of a level.
_OMEGA: dict[str, Callable[[NoiseLevels], Any]] = {
    "variance": lambda level: level.sigma**2,
    "one": lambda level: level.sigma**0,
    "ratio": lambda level: level.alpha / level.sigma,
    "variance-squared": lambda level: level.sigma**4,
}


def omega(kind: Omega, level: NoiseLevels) -> Any:
    """Weigh noise levels, equation (1).

    Args:
      kind: "variance" is sigma^2 (the authors' default), "one" is 1, "ratio" is
        alpha / sigma, which is largest at the least noise, "variance-squared" is
        sigma^4.
      level: leaves `[...]`.

    Returns:
      `[...]`.

    Raises:
      ValueError: another kind.
    """
    if kind not in _OMEGA:
        raise ValueError(f"omega must be one of {', '.join(_OMEGA)}, got {kind!r}")
    return _OMEGA[kind](level)


def score_gradient(
    predict: Callable[[Any, Any], Any],
    level: NoiseLevels,
    noise: Any,
    mean: Any,
    offset: Any = 0.0,
    std: Any = 0.0,
    *,
    kind: Omega = "variance",
    baseline: bool = True,
) -> Any:
    """Compute equation (3), the gradient of the distance from the behaviour.

    It points *away* from the behaviour: descend it.

    Args:
      predict: eps_psi, `(a_t [B, A], time [B]) -> noise [B, A]`.
      level: leaves `[B]`.
      noise: eps `[B, A]`.
      mean: m `[B, A]`.
      offset: S xi, broadcasts to `[B, A]`; 0 for a Dirac policy.
      std: S, broadcasts to `[B, A]`; 0 for a Dirac policy.
      kind: of omega.
      baseline: subtract b. Without b, the gradient of a Dirac policy has the same mean
        and more variance, and the gradient of a Gaussian policy lacks the entropy.

    Returns:
      `[B, A]`.

    Raises:
      ValueError: another kind of omega.
    """
    action_t = add_noise(mean + offset, noise, level)
    found = predict(action_t, level.time)
    if baseline:
        alpha, sigma = level.alpha[:, None], level.sigma[:, None]
        # In this form b is exactly the noise where the policy has no spread.
        drawn = alpha * offset / sigma + noise
        found = found - drawn / (1 + (alpha * std / sigma) ** 2)
    return omega(kind, level)[:, None] * found


def unit_rms(gradient: jax.Array) -> jax.Array:
    """Scale gradients `[..., A]` to a mean square of 1 over A; 0 stays 0.

    The steepness of critics of sparse rewards differs by orders of magnitude. SRPO
    scales the gradient of Q like this in AntMaze.
    """
    square = (gradient**2).mean(-1, keepdims=True)
    return gradient * jax.lax.rsqrt(square + 1e-12)
