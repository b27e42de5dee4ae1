"""Samplers as tables of coefficients, and the one reverse scan that runs them.

Every sampler here moves from level t to the cleaner level s by

(1) x <- c_x x + c_x0 x0_hat + c_prev x0_hat_prev + c_noise z,   z ~ N(0, I)

so a sampler is a table with one row for each step, and a new sampler is a new table.
With

(2) a = alpha_t / alpha_s,  s2 = sigma_t^2 - a^2 sigma_s^2   (noise added from s to t)

which hold between any two levels, also of a sub-grid:

(3) DDPM: c_x = a sigma_s^2 / sigma_t^2, c_x0 = alpha_s s2 / sigma_t^2,
    variance = s2 sigma_s^2 / sigma_t^2 ("posterior") or s2 ("beta")
    [Ho et al. 2020, eqs. 6 and 7]
(4) DDIM: c_noise = eta sqrt(posterior variance), d = sqrt(sigma_s^2 - c_noise^2),
    c_x = d / sigma_t, c_x0 = alpha_s - alpha_t d / sigma_t
    [Song, Meng & Ermon 2021, eq. 12]
(5) DPM-Solver++: lambda = log(alpha / sigma), h = lambda_s - lambda_t,
    x <- sigma_s / sigma_t x - alpha_s (exp(-h) - 1) D; first order: D = x0_hat;
    2M: D = (1 + 1/(2r)) x0_hat - 1/(2r) x0_hat_prev, r = h_prev / h
    [Lu et al. 2022b, algorithm 2]

All samplers obey c_x alpha_t + c_x0 + c_prev = alpha_s. All but the "beta" DDPM obey
(c_x sigma_t)^2 + c_noise^2 = sigma_s^2: a perfect estimate lands exactly on level s.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.diffusion import constraint
from jaxdiff.diffusion.constraint import Clamp
from jaxdiff.diffusion.keys import normal, split_keys
from jaxdiff.diffusion.schedule import NoiseLevels, Prediction, take, to_x0
from jaxdiff.pytree import pytree_dataclass
from jaxdiff.registry import Registry

Denoise: TypeAlias = Callable[[jax.Array, NoiseLevels], jax.Array]
Projection: TypeAlias = Callable[[jax.Array], jax.Array]


@pytree_dataclass
class Steps:
    """The table of a sampler: float32 NumPy leaves `[S]`, the noisiest step first.

    Attributes:
      level: level of x at the start of the step.
      variance: posterior variance of the interval, eq. (3). Guides scale by it, also
        where the sampler adds no noise.
      x: c_x of eq. (1), coefficient of the sample.
      x0: c_x0, coefficient of the estimate.
      x0_prev: c_prev, coefficient of the estimate one step earlier.
      noise: c_noise, standard deviation of the noise.
    """

    level: NoiseLevels
    variance: Any
    x: Any
    x0: Any
    x0_prev: Any
    noise: Any


Guide: TypeAlias = Callable[[jax.Array, Steps], jax.Array]


@pytree_dataclass
class SampleOutput:
    """What `sample` returns.

    Attributes:
      x: the sample, `shape`.
      path: x at every level, noisiest first, after clamping, `[S + 1, *shape]`, with
        `x` as its last entry. None unless `return_path`.
      x0_path: the estimate of x0 of every step, `[S, *shape]`. None unless
        `return_path`.
    """

    x: jax.Array
    path: jax.Array | None
    x0_path: jax.Array | None


def ddpm(
    levels: NoiseLevels,
    *,
    variance: Literal["posterior", "beta"] = "posterior",
    extra_steps: int = 0,
) -> Steps:
    """Tabulate ancestral sampling, eq. (3).

    Args:
      levels: leaves `[S+1]`, row 0 clean.
      variance: `"posterior"`, exact if the data are one point, or `"beta"`, exact if
        they are N(0, I) (Diffusion BC, IDQL). The step onto the clean row adds no noise
        in either.
      extra_steps: number of times to repeat the last step, without noise (M of
        Diffusion-X, Pearce et al. 2023). The size of that step is the first beta, so an
        M has its meaning for one schedule only.

    Returns:
      A table of S + extra_steps rows.

    Raises:
      ValueError: unknown variance.
    """
    if variance not in ("posterior", "beta"):
        raise ValueError(f"variance must be 'posterior' or 'beta', got {variance!r}")
    t, s, a, s2 = _intervals(levels)
    noise = np.sqrt(_posterior_variance(levels))
    if variance == "beta":
        noise = np.where(s.sigma > 0, np.sqrt(s2), 0.0)
    steps = _steps(
        levels,
        x=a * s.sigma**2 / t.sigma**2,
        x0=s.alpha * s2 / t.sigma**2,
        noise=noise,
    )
    rows = np.append(np.arange(len(a)), np.full(extra_steps, len(a) - 1))
    return jax.tree.map(lambda leaf: leaf[rows], steps)


def ddim(levels: NoiseLevels, *, eta: float = 0.0) -> Steps:
    """Tabulate DDIM, eq. (4).

    Args:
      levels: leaves `[S+1]`, row 0 clean; often `subgrid(levels, S)`.
      eta: in [0, 1]; 0 is deterministic, 1 is DDPM with the posterior variance.

    Raises:
      ValueError: eta out of range.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be in [0, 1], got {eta}")
    t, s, _, _ = _intervals(levels)
    noise = eta * np.sqrt(_posterior_variance(levels))
    kept = np.sqrt(s.sigma**2 - noise**2) / t.sigma
    return _steps(levels, x=kept, x0=s.alpha - t.alpha * kept, noise=noise)


def dpm_solver_pp(levels: NoiseLevels, *, order: Literal[1, 2] = 2) -> Steps:
    """Tabulate DPM-Solver++, eq. (5).

    The first step is of first order, because there is no earlier estimate. So is the
    last step, because lambda is infinite on the clean row. A warm start must therefore
    tabulate the levels that it walks, and not slice a longer table.

    Args:
      levels: leaves `[S+1]`, row 0 clean.
      order: 1, which equals DDIM, or 2, the multistep 2M.

    Raises:
      ValueError: another order.
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")
    t, s, _, _ = _intervals(levels)
    kept = s.sigma / t.sigma
    x0 = s.alpha - t.alpha * kept  # -alpha_s (exp(-h) - 1), finite on the clean row
    extrapolation = np.zeros_like(kept)
    if order == 2:
        h = np.diff(np.log(t.alpha / t.sigma))  # of every step but the last
        extrapolation[1:-1] = h[1:] / (2 * h[:-1])
    return _steps(
        levels,
        x=kept,
        x0=x0 * (1 + extrapolation),
        x0_prev=-x0 * extrapolation,
        noise=np.zeros_like(kept),
    )


def denoiser(
    network: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    prediction: Prediction,
    clip: float | None = None,
) -> Denoise:
    """Turn a network into an estimate of x0.

    Updates are written in x0, so that a clipped estimate also corrects the noise that
    the update implies.

    Args:
      network: `(x_t [B, ...], time [B]) -> output [B, ...]`. Where the time of a level
        is more than a number, such as its embedding, leaves are `[B, ...]`.
      prediction: what the network predicts.
      clip: limits the estimate to [-clip, clip]; None does not.

    Returns:
      `(x [B, ...], scalar level) -> x0_hat [B, ...]`.
    """

    def denoise(x: jax.Array, level: NoiseLevels) -> jax.Array:
        time = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (len(x), *jnp.shape(leaf))), level.time
        )
        x0 = jnp.asarray(to_x0(network(x, time), x, level, prediction=prediction))
        return x0 if clip is None else jnp.clip(x0, -clip, clip)

    return denoise


def sample(
    key: jax.Array,
    denoise: Denoise,
    steps: Steps,
    shape: tuple[int, ...],
    *,
    guide: Guide | None = None,
    guide_at: Literal["x_t", "mean"] = "x_t",
    guide_steps: int = 1,
    clamp: Clamp | None = None,
    project: Projection | None = None,
    init: jax.Array | None = None,
    temperature: Any = 1.0,
    init_temperature: Any = None,
    return_path: bool = False,
) -> SampleOutput:
    """Run a sampler from noise to data.

    One step: [guide, clamp] x guide_steps if at x_t -> x0_hat = project(denoise(x)) ->
    the mean of eq. (1) -> [guide, clamp] x guide_steps if at the mean -> + noise ->
    clamp. Conditions of the network are inside `denoise`.

    Args:
      key: consumed. One key `[]`, or `[B]` keys, one for each sample: the noise of a
        sample then depends on its own key alone, whatever B is.
      denoise: `(x, scalar level) -> x0_hat`, see `denoiser`.
      steps: the table of the sampler.
      shape: of the sample, `(B, ...)`.
      guide: `(x, step) -> x`, where `step` is one row of `steps`.
      guide_at: `"x_t"`, before denoising (the released code of Diffuser), or `"mean"`,
        after it (Janner et al. 2022, algorithm 1).
      guide_steps: number of times that the guide acts in a step.
      clamp: known entries, written on the initial noise and after every change of x. In
        the result they are bit-equal to the given values.
      project: `x -> x`, applied to every x0_hat and to the result, before its clamp.
      init: x at the first level of the table in place of N(0, I). A warm start noises a
        plan to level k and uses a table of `take(levels, np.arange(k + 1))`.
      temperature: factor of the standard deviation of the noise of the steps.
      init_temperature: factor of the initial noise; by default `temperature`.
      return_path: also return every x and x0_hat, which takes S times the memory.

    Returns:
      The sample and, if asked for, the path to it.

    Raises:
      ValueError: unknown `guide_at`.
    """
    if guide_at not in ("x_t", "mean"):
        raise ValueError(f"guide_at must be 'x_t' or 'mean', got {guide_at!r}")
    # Known while tracing, so that deterministic samplers draw no random numbers.
    noiseless = isinstance(steps.noise, np.ndarray) and not steps.noise.any()

    def clamped(x: jax.Array) -> jax.Array:
        return x if clamp is None else constraint.apply(clamp, x)

    def projected(x: jax.Array) -> jax.Array:
        return x if project is None else project(x)

    def guided(x: jax.Array, step: Steps, place: str) -> jax.Array:
        if guide is not None and guide_at == place:
            for _ in range(guide_steps):
                x = clamped(guide(x, step))
        return x

    def body(carry: Any, step: Steps) -> Any:
        x, x0_prev, key = carry
        key, noise_key = split_keys(key)
        x = guided(x, step, "x_t")
        x0 = projected(denoise(x, step.level))
        x = step.x * x + step.x0 * x0 + step.x0_prev * x0_prev
        x = guided(x, step, "mean")
        if not noiseless:
            noise = normal(noise_key, shape)
            x = x + temperature * step.noise * noise
        x = clamped(x)
        return (x, x0, key), (x, x0) if return_path else None

    init_key, key = split_keys(key)
    if init is None:
        scale = temperature if init_temperature is None else init_temperature
        start = clamped(scale * normal(init_key, shape))
    else:
        start = clamped(init)
    chex.assert_shape(start, shape)
    (x, _, _), ys = jax.lax.scan(body, (start, jnp.zeros_like(start), key), steps)
    x = clamped(projected(x))
    if not return_path:
        return SampleOutput(x=x, path=None, x0_path=None)
    path = jnp.concatenate([start[None], ys[0][:-1], x[None]])
    return SampleOutput(x=x, path=path, x0_path=ys[1])


def _intervals(levels: NoiseLevels) -> tuple[NoiseLevels, NoiseLevels, Any, Any]:
    """Return levels t and s, and a and s2 of eq. (2), of each step, noisiest first."""
    rows = np.arange(len(levels.alpha) - 1, 0, -1)
    t, s = take(levels, rows), take(levels, rows - 1)
    a = t.alpha / s.alpha
    return t, s, a, t.sigma**2 - a**2 * s.sigma**2


def _posterior_variance(levels: NoiseLevels) -> np.ndarray:
    t, s, _, s2 = _intervals(levels)
    return s2 * s.sigma**2 / t.sigma**2


def _steps(
    levels: NoiseLevels,
    *,
    x: np.ndarray,
    x0: np.ndarray,
    noise: np.ndarray,
    x0_prev: np.ndarray | None = None,
) -> Steps:
    """Fill in the columns that all samplers share, and cast to float32."""
    steps = Steps(
        level=_intervals(levels)[0],
        variance=_posterior_variance(levels),
        x=x,
        x0=x0,
        x0_prev=np.zeros_like(x) if x0_prev is None else x0_prev,
        noise=noise,
    )
    return jax.tree.map(lambda leaf: leaf.astype(np.float32), steps)


SAMPLERS: Registry[Callable[[NoiseLevels], Steps]] = Registry(
    "sampler",
    {"ddpm": ddpm, "ddim": ddim, "dpmpp2m": dpm_solver_pp},
    group="jaxdiff.samplers",
)
"""Name -> `levels -> Steps`, the samplers that options may name."""
