"""Trajectories: their rows, what is known of them, what is measured, windows of them.

A row is `[action | observation]`, D = A + O numbers. In a window of H rows the network
is shown clean what will be known of a plan: the history, K states up to the present
one, and the entries of the last state that a goal gives. The `Layout` of the data says
which entries these are; without one, a goal gives the leading entries.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.algorithms.planning.dynamics import Dynamics, fit_dynamics
from jaxdiff.algorithms.planning.options import PlannerConfig, training_horizons
from jaxdiff.algorithms.planning.support import Support, fit_support
from jaxdiff.data.episodes import Episodes, acted_rows
from jaxdiff.data.normalizer import Normalizer, fit_normalizer, normalize
from jaxdiff.data.spec import Spec
from jaxdiff.data.windows import Windows, padded_windows, window_starts
from jaxdiff.progress import note
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
    """Measure a dataset: its normalizer, the dynamics of one step, its support.

    It says which episodes are too short for a window.
    """
    _say_unused(config, episodes)
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
    config: PlannerConfig,
    spec: Spec,
    horizon: int,
    *,
    goal: bool = True,
    length: jax.Array | None = None,
) -> Any:
    """Mark the known entries of a window `[H, D]`: the history, and the goal's.

    The same mask serves the loss and the sampler, so they cannot disagree. With
    `length [B]` windows end after so many rows, and the mask is `[B, H, D]`.
    """
    mask = np.zeros((horizon, spec.action_dim + spec.observation_dim), bool)
    mask[: config.history, spec.action_dim :] = True
    if not goal:
        return mask
    arrives = np.zeros(mask.shape[1], bool)
    arrives[spec.action_dim + goal_entries(spec, config.goal_dim)] = True
    last = horizon - 1 if length is None else length[:, None] - 1
    return mask | (np.arange(horizon) == last)[..., None] & arrives


def cut_windows(
    config: PlannerConfig, normalizer: Normalizer, episodes: Episodes, horizon: int
) -> Windows:
    """Cut episodes into normalised windows, whose starts are the present rows."""
    rows = normalize(normalizer, _rows(episodes))
    horizon -= config.history - 1
    if config.padding:
        # Zeros before normalising, as the released code pads.
        fill = normalize(normalizer, jnp.zeros(rows.shape[-1]))
        windows = padded_windows(rows, episodes, horizon, fill=fill)
    else:
        starts = window_starts(episodes, horizon)
        windows = Windows(rows=rows, starts=jnp.asarray(starts))
    episode = np.searchsorted(episodes.starts, windows.starts, side="right") - 1
    first = jnp.asarray(episodes.starts[episode], jnp.int32)
    return dataclasses.replace(windows, first=first)


def take_rows(x: jax.Array, rows: jax.Array) -> jax.Array:
    """Take row `rows [B]` of each trajectory `[B, H, D]`: `[B, D]`."""
    return jax.vmap(lambda each, i: each[i])(x, rows)


def _say_unused(config: PlannerConfig, episodes: Episodes) -> None:
    longest = max(training_horizons(config)) - config.history + 1
    lengths = episodes.lengths
    short = lengths < longest
    if config.padding or not short.any() or short.all():
        return
    note(
        f"{short.sum():,} of {len(lengths):,} episodes ({lengths[short].sum():,} of "
        f"{lengths.sum():,} steps) are shorter than a window of {longest} steps and "
        "are left out; a shorter horizon or padding would use them"
    )


def _rows(episodes: Episodes) -> np.ndarray:
    return np.concatenate([episodes.actions, episodes.observations], axis=1)
