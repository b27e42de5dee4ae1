"""What a planner may be asked for: returns, goals, regions to keep out of.

A condition is a vector that belongs to a window of the dataset. There are three kinds:

- "return": the return-to-go R from the window's present row to the end of the episode,
  however far beyond the window, on the scale of the dataset,

  (1) y = (R - R_1%) / (R_99% - R_1%),

  with quantiles over all rows that have an action. The paper takes the range of the
  data in their place; a percent is left out at both ends so that no single episode, nor
  a penalty for falling, sets the scale. Acting asks for

  (2) target = the quantile 95% of y,

  which is more than the data usually earn and no more than they ever do: beyond the
  data a network answers anything;
- "goal": what `goals` of the dataset hold in that row, such as a goal, or the one-hot
  label of a skill or of a constraint that an episode obeys;
- "region": one-hot, a region that all of the window keeps out of, drawn among all such
  regions. A window that enters every region has no condition.

Ajay et al., "Is conditional generative modeling all you need for decision making?",
2023 (arXiv:2211.15657), sections 3.2 and 4; their released code divides R by a number
that is chosen by hand for each dataset.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data.episodes import Episodes, acted_rows
from jaxdiff.data.normalizer import Normalizer, normalize
from jaxdiff.data.windows import Windows, return_to_go, take_window
from jaxdiff.errors import UserError
from jaxdiff.pytree import pytree_dataclass

_BINS = 50


@pytree_dataclass
class Returns:
    """Returns-to-go of a dataset, in the units of its rewards except for `target`.

    Attributes:
      low: `[]`, the return of y = 0.
      high: `[]`, the return of y = 1.
      target: `[]`, the target y, equation (2).
      edges: `[51]`, of the bins of a histogram over all rows with an action.
      counts: `[50]`, rows in them.
    """

    low: Any
    high: Any
    target: Any
    edges: Any
    counts: Any


@pytree_dataclass
class Conditions:
    """Conditions of plans, as arrays, in place of the acting options.

    Attributes:
      values: `[N, C]`, N conditions: returns on the scale of the dataset, one-hot
        regions, or goals as the dataset holds them.
      weights: `[N]`, below 0 for a condition that is ruled out; see
        `jaxdiff.diffusion.compose`.
    """

    values: Any
    weights: Any


@pytree_dataclass
class ConditionedWindows:
    """Windows and their conditions, on the device.

    Attributes:
      windows: W windows, whose starts are the present rows.
      conditions: `[W, C]`; C is 0 where they are computed from a drawn window.
    """

    windows: Windows
    conditions: jax.Array


def measure_returns(
    episodes: Episodes,
    *,
    discount: float,
    termination_penalty: float,
    bounds: Sequence[float] = (),
) -> Returns:
    """Measure the scale of equation (1), the target of (2) and a histogram.

    Args:
      episodes: the dataset.
      discount: of a reward relative to the one a step earlier.
      termination_penalty: added to the last reward of an episode that terminated.
      bounds: returns that are y = 0 and y = 1, in place of those measured.
    """
    returns = return_to_go(episodes, discount, terminal_penalty=termination_penalty)
    returns = returns[acted_rows(episodes)]
    low, usual, high = np.quantile(returns, [0.01, 0.95, 0.99])
    if high <= low:  # one return for all: nothing to ask for
        high = low + 1.0
    low, high = bounds or (low, high)
    counts, edges = np.histogram(returns, bins=_BINS)
    return Returns(
        low=np.float32(low),
        high=np.float32(high),
        target=np.float32((usual - low) / (high - low)),
        edges=edges.astype(np.float32),
        counts=counts.astype(np.float32),
    )


def scaled(returns: Returns, values: Any) -> Any:
    """Put returns on the scale of a dataset, equation (1)."""
    return (values - returns.low) / (returns.high - returns.low)


def condition_size(config: Any, goal_size: int) -> int:
    """Return C, the numbers of a condition.

    Args:
      config: options `condition` and `regions`.
      goal_size: G of the dataset's goals, 0 where it has none.

    Raises:
      UserError: goals are the condition and the dataset has none.
    """
    if config.condition == "return":
        return 1
    if config.condition == "region":
        return len(config.regions) // 3
    if not goal_size:
        raise UserError(
            "`condition='goal'` asks for what the dataset holds as goals, and it holds "
            "none; choose `condition='return'`"
        )
    return goal_size


def asked(
    config: Any,
    acting: Any,
    returns: Returns,
    goals: Normalizer,
    *,
    goal: Any = None,
    given: Conditions | None = None,
) -> tuple[list[Any], list[Any]]:
    """Return the conditions that plans are asked for, `[1 or N, C]`, and weights.

    Args:
      config: options `condition` and `regions`.
      acting: options `target` and `guidance_weight`.
      returns: of the dataset.
      goals: normalizer of the dataset's goals.
      goal: `[N, C]`, where goals are the condition.
      given: takes the place of the options.

    Raises:
      UserError: a goal is the condition and there is none, or conditions of another
        size than those of training.
    """
    size = condition_size(config, goals.low.shape[-1])
    weight = float(acting.guidance_weight)
    if given is not None:
        conditions = [jnp.asarray(each)[None] for each in given.values]
        weights = list(given.weights)
    elif config.condition == "return":
        target = returns.target if acting.target is None else acting.target
        conditions, weights = [jnp.full((1, 1), target)], [weight]
    elif config.condition == "region":
        conditions = [each[None] for each in jnp.eye(size)]
        weights = [weight] * size
    elif goal is None:
        raise UserError(
            "this run was trained on data with goals and asks for one; give it a goal"
        )
    else:
        conditions, weights = [goal], [weight]
    if any(each.shape[-1] != size for each in conditions):
        raise UserError(
            f"a condition of {conditions[0].shape[-1]} numbers was asked for, and this "
            f"run was trained on conditions of {size}; give as many"
        )
    if config.condition == "goal":
        conditions = [normalize(goals, each) for each in conditions]
    return conditions, weights


def window_conditions(
    config: Any, returns: Returns, episodes: Episodes, starts: np.ndarray
) -> np.ndarray:
    """Look up the conditions `[W, C]` of windows whose present rows are `starts`.

    Those of regions depend on whole windows and come from `regions_kept`; here C is 0.
    """
    if config.condition == "region":
        return np.zeros((len(starts), 0), np.float32)
    if config.condition == "goal":
        assert episodes.goals is not None
        return episodes.goals[starts]
    values = return_to_go(
        episodes, config.discount, terminal_penalty=config.termination_penalty
    )
    return np.asarray(scaled(returns, values[starts]), np.float32)[:, None]


def draw_conditioned(
    data: ConditionedWindows,
    key: jax.Array,
    *,
    horizon: int,
    before: int,
) -> tuple[jax.Array, jax.Array]:
    """Draw a window `[H, D]` and its condition `[C]`, uniformly among the starts.

    Args:
      data: the windows.
      key: consumed.
      horizon: H.
      before: rows of the window that lie before its start.
    """
    index = jax.random.randint(key, (), 0, data.windows.starts.shape[0])
    window = take_window(data.windows, index, horizon, before=before)
    return window, data.conditions[index]


def keeps_out(positions: Any, regions: Any) -> jax.Array:
    """Tell which positions lie outside of which regions, or on their rim.

    Args:
      positions: `[..., 2]`.
      regions: `[R, 3]`, centres and radii, in the units of the positions.

    Returns:
      bool `[..., R]`.
    """
    positions, regions = jnp.asarray(positions), jnp.asarray(regions)
    offset = positions[..., None, :] - regions[:, :2]
    return jnp.linalg.norm(offset, axis=-1) >= regions[:, 2]


def regions_kept(
    key: jax.Array, positions: jax.Array, regions: Any
) -> tuple[jax.Array, jax.Array]:
    """Draw a region that a path keeps out of.

    Args:
      key: consumed.
      positions: `[H, 2]`.
      regions: `[R, 3]`, centres and radii, in the units of the positions.

    Returns:
      One-hot `[R]`, zero where the path enters all regions, and whether it does not.
    """
    outside = keeps_out(positions, regions).all(0)
    chosen = jax.random.categorical(key, jnp.where(outside, 0.0, -jnp.inf))
    kept = outside.any()
    return jax.nn.one_hot(jnp.where(kept, chosen, -1), len(regions)), kept
