"""Transitions of episodes: what a critic learns from.

An episode of T transitions in T + 1 rows (`jaxdiff.data.episodes`) gives the T tuples

(1) (s_t, a_t, r_t, s_{t+1}, terminal_t),   s = [observation | goal],

where terminal_t is true in the last transition of an episode that *terminated* alone.
An episode that ran out of time goes on beyond its last row: a critic must look ahead
from s_T, which is there to be looked at. Rewards may be shifted and scaled,

(2) r' = scale (r + shift),

which changes no optimal policy of an endless task, but the weight of values beside
everything that they are weighed against. The scale of D4RL's locomotion tasks is
1000 / (R_max - R_min) over the returns R of the episodes, and the shift of its AntMaze
-1 (Kostrikov et al., 2021, arXiv:2110.06169, in the released code).
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
    """N transitions, equation (1): NumPy arrays on the host or JAX arrays.

    Attributes:
      inputs: `[N, S]`, observations, with goals beside them where there are goals.
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
    """The two numbers of equation (2), both `[]`."""

    shift: Any
    scale: Any


def transitions(episodes: Episodes, *, drop_timeouts: bool = False) -> Transitions:
    """List the transitions of episodes, in their order.

    Args:
      episodes: E episodes.
      drop_timeouts: leave out the last transition of every episode that ran out of
        time, as D4RL's `qlearning_dataset` does, for D4RL's files lack its s_{t+1}.

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
            "no transition is left when the last of every episode is dropped; keep "
            "them with --no-drop-timeouts"
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
      kind: "raw" leaves rewards as they are, "minus-one" subtracts 1 from each,
        "centred" makes 0 and 1 of AntMaze -2 and 2, and "range" makes returns of
        episodes 1000 apart.
      episodes: the dataset.

    Raises:
      UserError: "range" of episodes that all return the same.
    """
    shift = {"minus-one": -1.0, "centred": -0.5}.get(kind, 0.0)
    scale = 4.0 if kind == "centred" else 1.0
    if kind == "range":
        returns = np.add.reduceat(episodes.rewards.astype(np.float64), episodes.starts)
        spread = float(np.ptp(returns))
        if spread == 0:
            raise UserError(
                f"all {len(returns)} episodes return {returns[0]:g}, which is no range "
                "to scale rewards by; choose --rewards raw"
            )
        scale = 1000 / spread
    return RewardScale(shift=np.float32(shift), scale=np.float32(scale))


def scale_rewards(scale: RewardScale, rewards: Any) -> Any:
    """Apply equation (2)."""
    return scale.scale * (rewards + scale.shift)


def draw_transition(data: Transitions, key: jax.Array) -> Transitions:
    """Draw one transition uniformly, with replacement: leaves without `[N]`."""
    row = jax.random.randint(key, (), 0, data.rewards.shape[0])
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[row], data)


def beside(observation: Any, goal: Any, size: int) -> jax.Array:
    """Put a goal beside an observation, where `size` inputs ask for one.

    Args:
      observation: `[..., O]`.
      goal: `[..., G]`, or None.
      size: O where the data had no goals, O + G where they had.

    Returns:
      `[..., size]`.

    Raises:
      UserError: a goal is needed and there is none.
    """
    if observation.shape[-1] == size:
        return jnp.asarray(observation)
    if goal is None:
        raise UserError(
            f"this policy was trained on data with goals, {size} numbers beside the "
            f"observation's {observation.shape[-1]}; give it a goal"
        )
    return jnp.concatenate([observation, goal], axis=-1)
