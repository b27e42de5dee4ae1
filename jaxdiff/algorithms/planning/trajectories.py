"""Trajectories: their rows, what is known of them, what is measured, windows of them.

A row is `[action | observation]`, D = A + O numbers. In a window of H rows the network
is shown clean what will be known of a plan: the history, K states up to the present
one, and the entries of the last state that a goal gives. The `Layout` of the data says
which entries these are; without one, a goal gives the leading entries.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.algorithms.planning.dynamics import Dynamics, fit_dynamics
from jaxdiff.algorithms.planning.options import PlannerConfig
from jaxdiff.algorithms.planning.support import Support, fit_support
from jaxdiff.data.episodes import Episodes, acted_rows
from jaxdiff.data.normalizer import Normalizer, fit_normalizer, normalize
from jaxdiff.data.spec import Spec
from jaxdiff.data.windows import Windows, padded_windows, window_starts
from jaxdiff.pytree import pytree_dataclass


@pytree_dataclass
class Statistics:
    """What planning must know of the dataset, beside the network.

    Attributes:
      normalizer: of rows `[action | observation]`.
      dynamics: the model of one step that plans are compared with.
      support: where the data have been, in the entries that goals are given in.
    """

    normalizer: Normalizer
    dynamics: Dynamics
    support: Support


def measure(config: PlannerConfig, episodes: Episodes, spec: Spec) -> Statistics:
    """Measure a dataset: its normalizer, the dynamics of one step, its support."""
    rows = _rows(episodes)
    # The last row of an episode has an action of zeros, which is no data.
    acted = acted_rows(episodes)
    normalizer = fit_normalizer(config.normalizer, rows[acted])
    scaled = np.asarray(normalize(normalizer, rows))
    goals = goal_entries(spec, config.goal_dim)
    following = np.roll(scaled, -1, axis=0)[:, spec.action_dim :]
    return Statistics(
        normalizer=normalizer,
        dynamics=fit_dynamics(scaled[acted], following[acted]),
        support=fit_support(scaled[:, spec.action_dim + goals]),
    )


def goal_entries(spec: Spec, count: int) -> np.ndarray:
    """Return the entries of an observation that a goal of `count` numbers gives."""
    entries = spec.layout.goal or range(spec.observation_dim)
    return np.array([*entries][:count], int)


def known_mask(
    config: PlannerConfig, spec: Spec, horizon: int, *, goal: bool = True
) -> np.ndarray:
    """Mark the known entries of a window `[H, D]`: the history, and the goal's.

    The same mask serves the loss and the sampler, so they cannot disagree.
    """
    mask = np.zeros((horizon, spec.action_dim + spec.observation_dim), bool)
    mask[: config.history, spec.action_dim :] = True
    if goal:
        mask[-1, spec.action_dim + goal_entries(spec, config.goal_dim)] = True
    return mask


def cut_windows(
    config: PlannerConfig, normalizer: Normalizer, episodes: Episodes, horizon: int
) -> Windows:
    """Cut episodes into normalised windows, whose starts are the present rows."""
    rows = normalize(normalizer, _rows(episodes))
    if config.padding:
        # Zeros before normalising, as the released code pads.
        fill = normalize(normalizer, jnp.zeros(rows.shape[-1]))
        windows = padded_windows(rows, episodes, fill=fill)
    else:
        starts = window_starts(episodes, horizon - config.history + 1)
        windows = Windows(rows=rows, starts=jnp.asarray(starts))
    episode = np.searchsorted(episodes.starts, windows.starts, side="right") - 1
    first = jnp.asarray(episodes.starts[episode], jnp.int32)
    return dataclasses.replace(windows, first=first)


def take_rows(x: jax.Array, rows: jax.Array) -> jax.Array:
    """Take row `rows [B]` of each trajectory `[B, H, D]`: `[B, D]`."""
    return jax.vmap(lambda each, i: each[i])(x, rows)


def _rows(episodes: Episodes) -> np.ndarray:
    return np.concatenate([episodes.actions, episodes.observations], axis=1)
