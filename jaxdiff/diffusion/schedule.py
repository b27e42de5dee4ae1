"""Noise levels: how much of the data and how much noise is in x_t.

Equations (time runs from 0, clean data, to its largest value, almost pure noise):

(1) x_t = alpha x0 + sigma noise, with noise ~ N(0, I)
    [Ho et al. 2020, eq. 4; Kingma et al. 2021, eq. 1]
(2) alpha_i^2 = prod_{j<=i} (1 - beta_j), sigma_i^2 = 1 - alpha_i^2  [Ho et al. 2020]
(3) cosine: beta_i = min(1 - f(i) / f(i-1), max_beta),
    f(i) = cos^2((i/N + s) / (1 + s) pi/2)  [Nichol & Dhariwal 2021, eq. 17]
(4) linear: beta_i evenly spaced from beta_min to beta_max, whatever N is [Ho et al.
    2020, section 4, where N = 1000]; rescaled: beta_i 1000/N, which keeps the last
    noise level high for a small N
(5) VP, discrete: beta_i = 1 - exp(-beta_min/N - (beta_max - beta_min)(2i - 1)/(2 N^2))
    [Xiao et al. 2022, the schedule of Diffusion-QL and IDQL]
(6) VP, continuous: log alpha = -t^2 (beta_max - beta_min)/4 - t beta_min/2
    [Song et al. 2021, eq. 29 and appendix B]

A network can predict x0 or one of these functions of x0 and x_t. Each has one inverse,
so that k kinds of prediction need 2k converters:

(7) noise = (x_t - alpha x0) / sigma
(8) v     = alpha noise - sigma x0 = (alpha x_t - x0) / sigma
    [Salimans & Ho 2022, section 4; needs alpha^2 + sigma^2 = 1]
(9) score = -noise / sigma  [Song et al. 2021]

Neighbouring entries of a long sample average the noise away, so that its outline stays
visible at most levels of a schedule made for few entries. A shift adds noise:

(10) sigma' / alpha' = shift sigma / alpha  [Hoogeboom et al. 2023, section 3.1]

A discrete schedule with N noisy levels is N+1 stacked levels. Row 0 is clean data
(alpha 1, sigma 0), so that no other formula treats the last step apart. The tables are
float64 NumPy arrays, because sigma_t^2 - a^2 sigma_s^2 cancels badly in float32.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.pytree import pytree_dataclass
from jaxdiff.registry import Registry

Array: TypeAlias = jax.Array | np.ndarray
Prediction: TypeAlias = Literal["noise", "x0", "v", "score"]
TimeKind: TypeAlias = Literal["index", "fraction"]
Spacing: TypeAlias = Literal["even", "quadratic", "logsnr"]

SPACINGS = get_args(Spacing)

_PREDICTIONS = ("noise", "x0", "v", "score")


@pytree_dataclass
class NoiseLevels:
    """One noise level or a stack of them; the leaves have equal shapes.

    Attributes:
      time: `[...]`, input of the network that tells it the level.
      alpha: `[...]`, factor of the data, 1 when clean.
      sigma: `[...]`, standard deviation of the noise, 0 when clean.
    """

    time: Any
    alpha: Any
    sigma: Any


LevelFn: TypeAlias = Callable[[Any], NoiseLevels]


def take(levels: NoiseLevels, rows: Any) -> NoiseLevels:
    """Pick rows of stacked levels.

    Args:
      levels: leaves `[N+1]`.
      rows: an integer, a slice or an integer array. A JAX array, traced or not, gives
        float32 JAX leaves; anything else keeps float64 NumPy leaves.

    Returns:
      Levels whose leaves have the shape of `rows`.
    """
    if isinstance(rows, jax.Array):
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], levels)
    return jax.tree.map(lambda leaf: leaf[rows], levels)


def subgrid(
    levels: NoiseLevels, num_steps: int, *, spacing: Spacing = "even"
) -> NoiseLevels:
    """Keep `num_steps + 1` rows, with the first and the last.

    With u = j / num_steps, row j of the result is row `round(r)` of `levels`, where

    - "even": r = N u. The library diffusers calls this spacing "trailing" (Lin et al.,
      2024, arXiv:2305.08891).
    - "quadratic": r = N u^2 (Song, Meng & Ermon, 2021, appendix D.2). Steps are small
      near clean data. Choose it for few steps, because there the last step of the even
      grid removes too much noise at once.
    - "logsnr": log(alpha / sigma) is evenly spaced from row 1 to row N (Lu et al.,
      2022, arXiv:2206.00927). The last step is from row 1 to clean data.

    Halves round to the even row, as in NumPy, and rows that would fall together move to
    the next free ones.

    Args:
      levels: leaves `[N + 1]`, row 0 clean.
      num_steps: from 1 to N.
      spacing: of the rows.

    Raises:
      ValueError: `num_steps` is not in 1..N, or an unknown spacing.
    """
    last = len(levels.alpha) - 1
    if not 1 <= num_steps <= last:
        raise ValueError(f"num_steps must be in 1..{last}, got {num_steps}")
    share = np.linspace(0, 1, num_steps + 1)
    if spacing == "even":
        rows = last * share
    elif spacing == "quadratic":
        rows = last * share**2
    elif spacing == "logsnr":
        noise = np.log(levels.sigma[1:] / levels.alpha[1:])  # grows with the row
        wanted = np.linspace(noise[0], noise[-1], num_steps)
        rows = np.append(0, np.interp(wanted, noise, np.arange(1, last + 1)))
        rows[-1] = last  # also of a single step
    else:
        raise ValueError(f"spacing must be one of {', '.join(SPACINGS)}, got {spacing}")
    rows = np.round(rows).astype(int)
    order = np.arange(num_steps + 1)
    # Row j has j rows below it and num_steps - j above it.
    rows = np.maximum.accumulate(rows - order) + order
    rows = np.minimum(rows, last - num_steps + order)
    return take(levels, rows)


def shift_noise(levels: NoiseLevels, shift: float) -> NoiseLevels:
    """Multiply the noise of every level relative to the data by `shift`, eq. (10).

    Args:
      levels: of a variance-preserving schedule, any shape; clean rows stay clean.
      shift: above 1 for more noise; in the source the side of an image over 64.

    Raises:
      ValueError: `shift` is not positive.
    """
    if shift <= 0:
        raise ValueError(f"shift must be positive, got {shift}")
    noise = shift * levels.sigma
    size = np.sqrt(levels.alpha**2 + noise**2)
    return NoiseLevels(time=levels.time, alpha=levels.alpha / size, sigma=noise / size)


def from_betas(betas: np.ndarray, *, time: TimeKind) -> NoiseLevels:
    """Stack the levels of a discrete schedule, eq. (2).

    Args:
      betas: `[N]`, share of the variance that each step replaces by noise, in (0, 1).
      time: time of row i: `"index"` is i - 1, so that noisy rows count from 0
        (Diffuser); `"fraction"` is i / N (Diffusion BC). No network sees row 0.

    Returns:
      Levels with float64 NumPy leaves `[N+1]`, row 0 clean.
    """
    betas = np.asarray(betas, np.float64)
    rows = np.arange(len(betas) + 1, dtype=np.float64)
    if time == "index":
        times = rows - 1
    elif time == "fraction":
        times = rows / len(betas)
    else:
        raise ValueError(f"time must be 'index' or 'fraction', got {time!r}")
    # Logarithms keep all digits of a tiny first sigma.
    log_alpha2 = np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])
    return NoiseLevels(
        time=times, alpha=np.exp(log_alpha2 / 2), sigma=np.sqrt(-np.expm1(log_alpha2))
    )


def cosine_schedule(
    num_steps: int,
    *,
    offset: float = 0.008,
    max_beta: float = 0.999,
    time: TimeKind = "index",
) -> NoiseLevels:
    """Stack the levels of the cosine schedule, eq. (3), leaves `[num_steps + 1]`."""
    fraction = np.linspace(0, 1, num_steps + 1)
    alpha2 = np.cos((fraction + offset) / (1 + offset) * np.pi / 2) ** 2
    # The cap keeps the last alpha above 0, because predictions divide by it.
    betas = np.clip(1 - alpha2[1:] / alpha2[:-1], 0, max_beta)
    return from_betas(betas, time=time)


def linear_schedule(
    num_steps: int,
    *,
    beta_min: float = 1e-4,
    beta_max: float = 0.02,
    rescale: bool = False,
    max_beta: float = 0.999,
    time: TimeKind = "index",
) -> NoiseLevels:
    """Stack the levels of the linear schedule, eq. (4), leaves `[num_steps + 1]`.

    Without `rescale` and with `time="fraction"` this is the schedule of Pearce et al.
    2023. The first and the last beta do not depend on `num_steps`, so that few steps
    leave much of the data in the last level, although the sampler starts from N(0, I):
    alpha is 0.90 after 20 steps, 0.78 after 50, and 0.006 after 1000.

    Args:
      num_steps: N.
      beta_min: of the first step, before rescaling.
      beta_max: of the last step, before rescaling.
      rescale: multiply every beta by 1000 / N.
      max_beta: largest beta after rescaling.
      time: as in `from_betas`.
    """
    betas = np.linspace(beta_min, beta_max, num_steps)
    if rescale:
        # 1000/N times 0.02 reaches 1 at N = 20, where alpha would be 0.
        betas = np.clip(betas * 1000 / num_steps, 0, max_beta)
    return from_betas(betas, time=time)


def vp_schedule(
    num_steps: int,
    *,
    beta_min: float = 0.1,
    beta_max: float = 10.0,
    time: TimeKind = "index",
) -> NoiseLevels:
    """Stack the levels of the discrete VP schedule, eq. (5), leaves `[num_steps + 1]`.

    The defaults are those of Diffusion-QL and IDQL, where num_steps is 5.
    """
    row = np.arange(1, num_steps + 1)
    slope = (beta_max - beta_min) * (2 * row - 1) / (2 * num_steps**2)
    return from_betas(-np.expm1(-beta_min / num_steps - slope), time=time)


def vp_level(
    time: Any, *, beta_min: float = 0.1, beta_max: float = 20.0
) -> NoiseLevels:
    """Compute the continuous VP level, eq. (6); the network sees the time itself.

    Args:
      time: in [0, 1]; a JAX array gives JAX leaves, anything else float64 NumPy.
      beta_min: noise rate at time 0, per unit of time.
      beta_max: noise rate at time 1, per unit of time.

    Returns:
      Levels whose leaves have the shape of `time`.
    """
    xp = jnp if isinstance(time, jax.Array) else np
    time = time if isinstance(time, jax.Array) else np.asarray(time, np.float64)
    log_alpha = -(time**2) * (beta_max - beta_min) / 4 - time * beta_min / 2
    return NoiseLevels(
        time=time, alpha=xp.exp(log_alpha), sigma=xp.sqrt(-xp.expm1(2 * log_alpha))
    )


def discretize(level_fn: LevelFn, times: np.ndarray) -> NoiseLevels:
    """Stack the levels of a continuous schedule at chosen times, as samplers need them.

    Args:
      level_fn: time -> level, such as `vp_level`.
      times: `[N]`, positive and ascending.

    Returns:
      Levels with float64 NumPy leaves `[N+1]`; the clean row, time 0, comes first.

    Raises:
      ValueError: the times are not positive and ascending.
    """
    times = np.asarray(times, np.float64)
    if not np.all(np.diff(times, prepend=0.0) > 0):
        raise ValueError("times must be positive and ascending")
    clean = NoiseLevels(time=0.0, alpha=1.0, sigma=0.0)
    return jax.tree.map(
        lambda first, rest: np.concatenate([[first], rest]), clean, level_fn(times)
    )


def add_noise(x0: Array, noise: Array, level: NoiseLevels) -> Array:
    """Noise clean data to a level, eq. (1).

    Args:
      x0: `[..., *]`, clean data.
      noise: like `x0`, standard normal.
      level: leaves `[...]`, broadcast over the trailing dimensions of `x0`.

    Returns:
      x_t, like `x0`.
    """
    alpha, sigma = _broadcast(level, x0)
    return alpha * x0 + sigma * noise


def to_x0(
    output: Array, x_t: Array, level: NoiseLevels, *, prediction: Prediction
) -> Array:
    """Convert a prediction to an estimate of x0, eqs. (7)-(9) inverted.

    Args:
      output: `[..., *]`, output of the network.
      x_t: like `output`, input of the network.
      level: leaves `[...]`, broadcast over the trailing dimensions.
      prediction: `"noise"`, `"x0"`, `"v"` or `"score"`.

    Returns:
      x0, like `output`.

    Raises:
      ValueError: unknown kind of prediction.
    """
    alpha, sigma = _broadcast(level, x_t)
    if prediction == "noise":
        return (x_t - sigma * output) / alpha
    if prediction == "x0":
        return output
    if prediction == "v":
        return alpha * x_t - sigma * output
    if prediction == "score":
        return (x_t + sigma**2 * output) / alpha
    raise ValueError(f"prediction must be one of {_PREDICTIONS}, got {prediction!r}")


def from_x0(
    x0: Array, x_t: Array, level: NoiseLevels, *, prediction: Prediction
) -> Array:
    """Convert x0 to the target of a prediction at x_t, eqs. (7)-(9).

    This is the inverse of `to_x0`, with its arguments and errors. All kinds but `"x0"`
    divide by sigma, so that the level must not be clean.
    """
    alpha, sigma = _broadcast(level, x_t)
    if prediction == "noise":
        return (x_t - alpha * x0) / sigma
    if prediction == "x0":
        return x0
    if prediction == "v":
        return (alpha * x_t - x0) / sigma
    if prediction == "score":
        return (alpha * x0 - x_t) / sigma**2
    raise ValueError(f"prediction must be one of {_PREDICTIONS}, got {prediction!r}")


def _broadcast(level: NoiseLevels, x: Array) -> tuple[Any, Any]:
    """Append to alpha and sigma the dimensions that `x` has beyond theirs."""
    shape = np.shape(level.alpha)
    shape = shape + (1,) * (x.ndim - len(shape))
    return level.alpha.reshape(shape), level.sigma.reshape(shape)


SCHEDULES: Registry[Callable[..., NoiseLevels]] = Registry(
    "schedule",
    {
        "cosine": cosine_schedule,
        "linear": linear_schedule,
        "linear_rescaled": functools.partial(linear_schedule, rescale=True),
        "vp": vp_schedule,
    },
    group="jaxdiff.schedules",
)
"""Name -> `(num_steps, *, time) -> NoiseLevels`, schedules that options may name."""
