"""Behaviour cloning without diffusion: policies that answer in one pass.

`jaxdiff.algorithms.imitation.heads` has the six kinds with their equations.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal

import jax

from jaxdiff.algorithms.base import Algorithm, Entry, Preset
from jaxdiff.algorithms.imitation import heads, policy
from jaxdiff.algorithms.imitation.decisions import action_targets
from jaxdiff.algorithms.imitation.options import ImitationConfig, reference_entries
from jaxdiff.algorithms.imitation.policy import (
    Head,
    generic_config,
    generic_training,
    imitation,
)
from jaxdiff.data.episodes import Dataset, Episodes
from jaxdiff.data.kmeans import kmeans
from jaxdiff.data.normalizer import normalize
from jaxdiff.data.spec import Spec
from jaxdiff.errors import UserError
from jaxdiff.options import Options, at_least
from jaxdiff.pytree import pytree_dataclass

# Clusters are found in an even selection of at most this many actions.
_ENOUGH_ACTIONS = 50_000


@dataclasses.dataclass(frozen=True)
class BCConfig(ImitationConfig):
    """Options of behaviour cloning that training reads.

    Attributes:
      kind: the policy: "mse", "discretised", "gaussian", "kmeans", "kmeans-residual" or
        "energy".
      bins: bins of each dimension, for "discretised".
      clusters: number K of centres, for "kmeans" and "kmeans-residual".
      residual_weight: weight of the squared error of offsets, for "kmeans-residual".
      negatives: number N of uniform actions for each action of the data, for "energy".
        An update costs N + 1 times as much as that of the other kinds.
    """

    network: Literal["mlp", "sieve", "transformer"] = "mlp"
    kind: Literal[
        "mse", "discretised", "gaussian", "kmeans", "kmeans-residual", "energy"
    ] = "mse"
    bins: int = 20
    clusters: int = 10
    residual_weight: float = 100.0
    negatives: int = 256

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 1, "bins", "clusters", "negatives")
        yield from at_least(self, 0, "residual_weight")


@dataclasses.dataclass(frozen=True)
class BCActing(Options):
    """Options of behaviour cloning that may change after training.

    Attributes:
      candidates: actions that the search for the least energy compares, for "energy".
    """

    candidates: int = 128

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 1, "candidates")


@pytree_dataclass
class Statistics(policy.Statistics):
    """What acting reads of the dataset, beside the parameters.

    Attributes:
      centers: `[K, A]` cluster centres of normalized actions; K is 0 for kinds without.
    """

    centers: jax.Array


def measure(config: BCConfig, episodes: Episodes, spec: Spec) -> Statistics:
    """Measure the normalizers of a dataset and the clusters of its actions.

    Raises:
      UserError: as in `policy.measure`, or fewer actions than clusters.
    """
    found = policy.measure(config, episodes, spec)
    targets = action_targets(episodes, reference_entries(config, spec))
    actions = normalize(found.actions, targets)
    centers = actions[:0]
    if config.kind in ("kmeans", "kmeans-residual"):
        if len(actions) < config.clusters:
            raise UserError(
                f"`clusters` is {config.clusters} and the dataset has {len(actions)} "
                "actions; ask for no more clusters than actions"
            )
        chosen = actions[:: -(-len(actions) // _ENOUGH_ACTIONS)]
        centers = kmeans(jax.random.key(0), chosen, config.clusters)
    return Statistics(inputs=found.inputs, actions=found.actions, centers=centers)


def bc(
    config: BCConfig, acting: BCActing, statistics: Statistics, spec: Spec
) -> Algorithm:
    """Build behaviour cloning for a dataset.

    Args:
      config: options that training reads.
      acting: options that may change after training.
      statistics: of the dataset, from `measure`.
      spec: of the dataset.

    Returns:
      An algorithm with the learner "policy".

    Raises:
      UserError: options that do not fit the observations.
    """
    action_dim, residual = spec.action_dim, config.residual_weight
    makers: dict[str, Callable[[], Head]] = {
        "mse": lambda: heads.squared_error(action_dim),
        "discretised": lambda: heads.discretised(action_dim, config.bins),
        "gaussian": lambda: heads.gaussian(action_dim),
        "kmeans": lambda: heads.clustered(statistics.centers),
        "kmeans-residual": lambda: heads.clustered(
            statistics.centers, residual_weight=residual
        ),
        "energy": lambda: heads.energy(
            action_dim, negatives=config.negatives, candidates=acting.candidates
        ),
    }
    return imitation(config, statistics, spec, makers[config.kind]())


def generic(dataset: Dataset, spec: Spec) -> Preset:
    """Return options for data that no task has presets for; see `Entry.generic`."""
    config = generic_config(BCConfig(hidden=256), dataset, spec)
    return Preset(config, BCActing(), generic_training(spec))


ENTRY = Entry(
    name="bc",
    summary="behaviour cloning: regression, bins, Gaussian, clusters or energies",
    config=BCConfig,
    acting=BCActing,
    statistics=Statistics,
    measure=measure,
    build=bc,
    generic=generic,
)
