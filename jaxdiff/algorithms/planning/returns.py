"""A model of returns: what a trajectory is worth, seen through noise.

A network reads a window whose present row is step h of an episode, noised as for the
denoiser and with its known entries clean. It predicts the return to the *end of the
episode*, however far beyond the window that lies:

(1) min_V E (V(x_t, t) - R_h)^2,   R_h = sum_k discount^k r[h + k],

in the rewards' own units (Janner et al., 2022, arXiv:2205.09991, section 3.1, and the
released code, which adds a penalty to the last reward of an episode that terminated:
without it the return-to-go says little of an end that lies far ahead).

A guide feeds V what it was trained on: x_t, noised, and its level t. With
`noised=False` V is trained on clean windows alone and takes all that it is fed for
clean: the level is hidden from it, and a plan that is mostly noise tells it nothing.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdiff.algorithms.base import ArrayTree, Learner, supervised
from jaxdiff.data.episodes import Episodes
from jaxdiff.data.windows import Windows, return_to_go, take_window
from jaxdiff.diffusion import NoiseLevels, noise_examples, take, uniform_row
from jaxdiff.diffusion.guide import Value
from jaxdiff.pytree import pytree_dataclass


@pytree_dataclass
class ReturnWindows:
    """Windows and their returns.

    Attributes:
      windows: W windows.
      returns: `[W]`, the return from the first step of each, equation (1).
    """

    windows: Windows
    returns: jax.Array


def returns_learner(
    network: Any,
    cut: Callable[[Episodes], Windows],
    levels: NoiseLevels,
    optimizer: optax.GradientTransformation,
    *,
    horizon: int,
    mask: np.ndarray,
    discount: float,
    termination_penalty: float,
    history: int = 1,
    noised: bool = True,
    **descent: Any,
) -> Learner:
    """Build the learner of equation (1).

    Args:
      network: `(x [B, H, D], time [B]) -> [B]`, such as `TemporalValue`.
      cut: cuts episodes into normalised windows.
      levels: the noise levels of the denoiser, leaves `[N + 1]`.
      optimizer: of the parameters.
      horizon: H.
      mask: `[H, D]`, true for the entries that are known and therefore shown clean.
      discount: of a reward relative to the one a step earlier.
      termination_penalty: added to the last reward of each episode that terminated,
        not of those that ran out of time (Diffuser: -100).
      history: K, rows of a window up to the present one, from which R counts.
      noised: train at levels 1 .. N; otherwise on clean windows.
      **descent: keywords of `supervised`, such as `averaging`.
    """

    def prepare(data, frozen, key):
        del frozen, key
        windows = cut(data)
        returns = return_to_go(data, discount, terminal_penalty=termination_penalty)
        return ReturnWindows(
            windows=windows, returns=jnp.asarray(returns)[windows.starts]
        )

    def draw(data, key):
        index = jax.random.randint(key, (), 0, data.returns.shape[0])
        window = take_window(data.windows, index, horizon, before=history - 1)
        return window, data.returns[index]

    def init_params(key, batch):
        return network.init(key, batch[0][:1], jnp.zeros(1))

    def loss(params, keys, batch):
        x, returns = batch
        if noised:
            x_t, level = noise_examples(keys, uniform_row(levels), x)
            x, time = jnp.where(mask, x, x_t), level.time
        else:
            time = _clean_time(levels, x)
        error = network.apply(params, x, time) - returns
        mean = jnp.mean(error**2)
        return mean, {"loss": mean}

    return supervised(
        prepare,
        draw,
        init_params,
        [loss],
        optimizer,
        **descent,
    )


def return_value(
    network: Any, params: ArrayTree, levels: NoiseLevels, *, noised: bool = True
) -> Value:
    """Build `(x [B, H, D], level) -> [B]`, the return that a trained model expects.

    Args:
      network: as in `returns_learner`.
      params: averaged parameters.
      levels: as in `returns_learner`.
      noised: as in `returns_learner`; without it the level is not told.
    """

    def value(x: jax.Array, level: NoiseLevels) -> jax.Array:
        time = jnp.broadcast_to(jnp.asarray(level.time), x.shape[:1])
        return network.apply(params, x, time if noised else _clean_time(levels, x))

    return value


def expected_return(
    value: Value, levels: NoiseLevels, trajectories: jax.Array
) -> jax.Array:
    """Compute the returns that finished trajectories are expected to earn.

    The network is told the least noise of the schedule, because a model that was
    trained on noised windows never saw the clean level.

    Args:
      value: from `return_value`.
      levels: all N + 1 of the schedule, whatever the sampler's sub-grid.
      trajectories: `[B, H, D]`, normalised.

    Returns:
      `[B]`, in the units of the rewards.
    """
    return value(trajectories, take(levels, 1))


def _clean_time(levels: NoiseLevels, x: jax.Array) -> jax.Array:
    """The time of the clean level, once an example: `[B]`."""
    return jnp.broadcast_to(jnp.float32(levels.time[0]), x.shape[:1])
