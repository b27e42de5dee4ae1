"""Gaussians squashed by tanh: samples in (-1, 1) and their log density.

(1) a = tanh(u),   u = m + s xi,   xi ~ N(0, I)
(2) log pi(a) = sum over entries of log N(u; m, s^2) - log(1 - tanh(u)^2),
    log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u))

(Haarnoja et al., 2018, arXiv:1801.01290, appendix C.) The second line of (2) stays
accurate where tanh(u) rounds to -1 or 1.
"""

import jax
import jax.numpy as jnp

# Actions of the data may lie at -1 or 1, where u is infinite.
_EDGE = 1e-5


def sample_action(
    mean: jax.Array, std: jax.Array, xi: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return actions `[..., A]` of equation (1) and their log density `[...]`."""
    u = mean + std * xi
    return jnp.tanh(u), _log_density(u, mean, std)


def log_density(mean: jax.Array, std: jax.Array, actions: jax.Array) -> jax.Array:
    """Return the log density `[...]` of actions `[..., A]`, equation (2)."""
    u = jnp.arctanh(jnp.clip(actions, -1 + _EDGE, 1 - _EDGE))
    return _log_density(u, mean, std)


def _log_density(u: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    normal = jax.scipy.stats.norm.logpdf(u, mean, std)
    slope = 2 * (jnp.log(2.0) - u - jax.nn.softplus(-2 * u))
    return (normal - slope).sum(-1)
