"""Training data of imitation: decisions and the observations before them.

A decision is an action with the last k observations, the newest first. Observations
before the first one of the episode are replaced by that first one.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data.episodes import Episodes, acted_rows, goals_beside
from jaxdiff.data.host import HostRows
from jaxdiff.data.normalizer import Normalizer, normalize
from jaxdiff.pytree import pytree_dataclass


@pytree_dataclass
class Decisions:
    """N decisions on the device, and all rows that a history may contain.

    Attributes:
      inputs: `[M, O + G]`, every row of the dataset, data units; `HostRows` where they
        stay on the host.
      rows: int32 `[N]`, the row of each decision.
      firsts: int32 `[N]`, the first row of its episode.
      actions: `[N, A]`, what to learn, normalized.
    """

    inputs: jax.Array | HostRows
    rows: jax.Array
    firsts: jax.Array
    actions: jax.Array


def action_targets(episodes: Episodes, entries: tuple[int, ...]) -> np.ndarray:
    """Return what a policy learns to predict, `[N, A]`, data units.

    Args:
      episodes: the data.
      entries: entries of the observation to subtract from actions; none for actions
        as they are.
    """
    rows = acted_rows(episodes)
    actions = episodes.actions[rows]
    if entries:
        actions = actions - episodes.observations[rows][:, list(entries)]
    return actions


def prepare_decisions(
    episodes: Episodes,
    actions: Normalizer,
    entries: tuple[int, ...],
    *,
    pictures: bool,
    host_memory: bool,
) -> Decisions:
    """Place decisions on the device.

    Args:
      episodes: the data.
      actions: normalizer of the targets.
      entries: see `action_targets`.
      pictures: store inputs as bytes where that loses nothing, a quarter of the memory.
      host_memory: leave inputs on the host.
    """
    inputs: Any = goals_beside(episodes)
    if pictures and inputs.dtype != np.uint8:
        as_bytes = inputs.astype(np.uint8)
        inputs = as_bytes if np.array_equal(inputs, as_bytes) else inputs
    return Decisions(
        inputs=HostRows(inputs) if host_memory else jnp.asarray(inputs),
        rows=jnp.asarray(acted_rows(episodes), jnp.int32),
        firsts=jnp.asarray(np.repeat(episodes.starts, episodes.lengths), jnp.int32),
        actions=normalize(actions, action_targets(episodes, entries)),
    )


def draw_decision(
    history: int, data: Decisions, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Draw one decision: its history `[k, O + G]`, newest first, and action `[A]`."""
    index = jax.random.randint(key, (), 0, data.rows.shape[0])
    rows = jnp.maximum(data.rows[index] - jnp.arange(history), data.firsts[index])
    return data.inputs[rows], data.actions[index]
