"""A recording: what a dataset stores, before any task has read its observations."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.data.spec import Environment


class Recording(NamedTuple):
    """E episodes as they were stored; episode e has T_e transitions.

    Attributes:
      observations: E arrays `[T + 1, ...]`, or E dictionaries of such arrays, perhaps
        nested, as the environment gave them.
      actions: E arrays `[T, A]`.
      rewards: E arrays `[T]`.
      terminated: E flags; False where a time limit ended the episode.
      goals: E arrays `[T + 1, G]` where goals are stored beside the observations, or
        empty. Goals within observations stay there.
      environment: the environment that was recorded, if known.
      evaluation: the environment to score policies in, if the dataset names one.
      references: mean returns `random` and `expert`, if known.
      metadata: what else is stored about the data, as JSON values: `dataset_id`,
        `description`, and what a recipe of jaxdiff wrote.
    """

    observations: Sequence[Any]
    actions: Sequence[np.ndarray]
    rewards: Sequence[np.ndarray]
    terminated: Sequence[bool]
    goals: Sequence[np.ndarray] = ()
    environment: Environment | None = None
    evaluation: Environment | None = None
    references: Mapping[str, float] = {}
    metadata: Mapping[str, Any] = {}
