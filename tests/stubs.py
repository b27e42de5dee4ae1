"""Runs that were never trained: an `act` of a few lines in place of an algorithm."""

from pathlib import Path

import jax.numpy as jnp

from jaxdiff.algorithms.base import Algorithm
from jaxdiff.data.spec import Environment, Spec
from jaxdiff.options import NoOptions
from jaxdiff.run import Run


def stub_run(
    path,
    act,
    environment,
    *,
    observation_shape,
    action_dim,
    dataset="stub",
    references=None,
    config=None,
):
    """A run whose algorithm acts by `act`; its carry is a number for each environment.

    Args:
      path: its folder.
      act: as in `Algorithm`.
      environment: Gymnasium id of its dataset, or None.
      observation_shape: of its spec.
      action_dim: of its spec.
      dataset: name of its dataset.
      references: of its dataset.
      config: its config.
    """
    stored = None if environment is None else Environment(environment)._asdict()
    document = {
        "acting": {},
        "id": "stub",
        "dataset": {
            "name": dataset,
            "environment": stored,
            "evaluation": stored,
            "references": references or {},
            "fingerprint": "",
            "metadata": {},
        },
    }
    return Run(
        Path(path),
        "stub",
        config or NoOptions(),
        NoOptions(),
        None,
        Spec(tuple(observation_shape), action_dim),
        Algorithm({}, act, jnp.zeros),
        {},
        document,
    )
