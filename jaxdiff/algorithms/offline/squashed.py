"""Gaussians through tanh: draws within (-1, 1), and how likely they are.

(1) a = tanh(u),   u = m + s xi,   xi ~ N(0, I)
(2) log pi(a) = sum over entries of log N(u; m, s^2) - log(1 - tanh(u)^2),
    log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u))

(Haarnoja et al., 2018, arXiv:1801.01290, appendix C; the second line keeps its digits
where tanh has none left.)
"""

import jax
import jax.numpy as jnp

# Actions of data may lie at the ends, where u is infinite.
_EDGE = 1e-5


def draw(mean: jax.Array, std: jax.Array, xi: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draw actions `[..., A]` and the logarithm of their density `[...]`."""
    u = mean + std * xi
    return jnp.tanh(u), _log_density(u, mean, std)


def log_density(mean: jax.Array, std: jax.Array, actions: jax.Array) -> jax.Array:
    """Find the logarithm of the density `[...]` of actions `[..., A]`."""
    u = jnp.arctanh(jnp.clip(actions, -1 + _EDGE, 1 - _EDGE))
    return _log_density(u, mean, std)


def _log_density(u: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    normal = jax.scipy.stats.norm.logpdf(u, mean, std)
    slope = 2 * (jnp.log(2.0) - u - jax.nn.softplus(-2 * u))
    return (normal - slope).sum(-1)
