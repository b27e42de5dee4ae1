"""Transitions of episodes, the data of critics.

An episode of T transitions in T + 1 rows (`jaxdiff.data.episodes`) gives the T tuples

(1) (s_t, a_t, r_t, s_{t+1}, terminal_t),   s = [observation | goal],

where terminal_t is true only in the last transition of an episode that *terminated*.
An episode that ran out of time would go on, so that a critic bootstraps from its s_T.
Rewards may be shifted and scaled,

(2) r' = scale (r + shift),

which keeps the optimal policies of an endless task, but changes the weight of values
relative to other terms of a loss. For D4RL, the released code of Kostrikov et al.
(2021, arXiv:2110.06169) scales rewards of locomotion tasks by 1000 / (R_max - R_min),
over the returns R of the episodes, and shifts those of AntMaze by -1.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data.episodes import Episodes, acted_rows, goals_beside
from jaxdiff.errors import UserError
from jaxdiff.pytree import pytree_dataclass

Rewards = Literal["raw", "range", "minus-one", "centred"]


@pytree_dataclass
class Transitions:
    """N transitions, equation (1): NumPy or JAX arrays.

    Attributes:
      inputs: `[N, S]`, observations, or `[observation | goal]` if there are goals.
      actions: `[N, A]`.
      rewards: `[N]`.
      next_inputs: `[N, S]`.
      terminals: `[N]` bool.
    """

    inputs: Any
    actions: Any
    rewards: Any
    next_inputs: Any
    terminals: Any


@pytree_dataclass
class RewardScale:
    """Shift and scale of equation (2).

    Attributes:
      shift: `[]`, added to rewards first.
      scale: `[]`, factor of shifted rewards.
    """

    shift: Any
    scale: Any


def transitions(episodes: Episodes, *, drop_timeouts: bool = False) -> Transitions:
    """List the transitions of episodes, in their order.

    Args:
      episodes: E episodes.
      drop_timeouts: leave out the last transition of every episode that ran out of
        time, as D4RL's `qlearning_dataset` does, because D4RL's files lack its s_{t+1}.

    Returns:
      float32 and bool NumPy arrays.

    Raises:
      UserError: nothing is left.
    """
    ends = episodes.starts + episodes.lengths
    rows = acted_rows(episodes)
    if drop_timeouts:
        rows = np.setdiff1d(rows, ends[~episodes.terminated] - 1)
    if not len(rows):
        raise UserError(
            "no transition is left when the last of every episode is dropped; choose "
            "`drop_timeouts=False`"
        )
    terminals = np.zeros(len(episodes.rewards), bool)
    terminals[ends[episodes.terminated] - 1] = True
    inputs = goals_beside(episodes)
    return Transitions(
        inputs=inputs[rows],
        actions=episodes.actions[rows],
        rewards=episodes.rewards[rows],
        next_inputs=inputs[rows + 1],
        terminals=terminals[rows],
    )


def measure_rewards(kind: Rewards, episodes: Episodes) -> RewardScale:
    """Choose shift and scale of equation (2) for a dataset.

    Args:
      kind: "raw" keeps rewards, "minus-one" subtracts 1 from each, "centred" maps 0 and
        1 to -2 and 2, and "range" scales the returns of episodes to a range of 1000.
      episodes: the dataset.

    Raises:
      UserError: "range", and all episodes have the same return.
    """
    shift = {"minus-one": -1.0, "centred": -0.5}.get(kind, 0.0)
    scale = 4.0 if kind == "centred" else 1.0
    if kind == "range":
        returns = np.add.reduceat(episodes.rewards.astype(np.float64), episodes.starts)
        spread = float(np.ptp(returns))
        if spread == 0:
            raise UserError(
                f"all {len(returns)} episodes return {returns[0]:g}, and rewards are "
                "scaled by the range of returns; choose `rewards='raw'`"
            )
        scale = 1000 / spread
    return RewardScale(shift=np.float32(shift), scale=np.float32(scale))


def scale_rewards(scale: RewardScale, rewards: Any) -> Any:
    """Apply equation (2)."""
    return scale.scale * (rewards + scale.shift)


def draw_transition(data: Transitions, key: jax.Array) -> Transitions:
    """Draw one transition uniformly; leaves lose their axis `[N]`."""
    row = jax.random.randint(key, (), 0, data.rewards.shape[0])
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[row], data)


def beside(observation: Any, goal: Any, size: int) -> jax.Array:
    """Append a goal to an observation if a network needs one.

    Args:
      observation: `[..., O]`.
      goal: `[..., G]`, or None.
      size: number of inputs of the network, O or O + G.

    Returns:
      `[..., size]`.

    Raises:
      UserError: a goal is needed and there is none.
    """
    if observation.shape[-1] == size:
        return jnp.asarray(observation)
    if goal is None:
        raise UserError(
            f"this policy was trained with goals, on inputs of {size} numbers, and the "
            f"observation alone has {observation.shape[-1]}; give it a goal"
        )
    return jnp.concatenate([observation, goal], axis=-1)
