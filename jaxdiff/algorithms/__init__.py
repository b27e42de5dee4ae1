"""The algorithms, by the name that commands use."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxdiff.algorithms.base import ActOutput, Algorithm, Learner, TrainState
from jaxdiff.algorithms.imitation import bc as _bc
from jaxdiff.algorithms.imitation import diffusion_bc as _diffusion_bc
from jaxdiff.algorithms.imitation import policy as _cloning
from jaxdiff.algorithms.offline import bcq as _bcq
from jaxdiff.algorithms.offline import bear as _bear
from jaxdiff.algorithms.offline import common as _offline
from jaxdiff.algorithms.offline import cql as _cql
from jaxdiff.algorithms.offline import diffusion_ql as _diffusion_ql
from jaxdiff.algorithms.offline import fql as _fql
from jaxdiff.algorithms.offline import idql as _idql
from jaxdiff.algorithms.offline import iql as _iql
from jaxdiff.algorithms.offline import qgpo as _qgpo
from jaxdiff.algorithms.offline import srpo as _srpo
from jaxdiff.algorithms.offline import td3_bc as _td3_bc
from jaxdiff.algorithms.planning import decision_diffuser as _decision_diffuser
from jaxdiff.algorithms.planning import diffuser as _diffuser


class Entry(NamedTuple):
    """What a run must know to build an algorithm.

    Attributes:
      config: class of its options.
      statistics: class of what it measures on a dataset.
      measure: `(config, episodes) -> statistics`.
      build: `(config, statistics, *, action_dim) -> Algorithm`.
    """

    config: type
    statistics: type
    measure: Callable[..., Any]
    build: Callable[..., Algorithm]


ALGORITHMS: dict[str, Entry] = {
    "diffuser": Entry(
        _diffuser.DiffuserConfig,
        _diffuser.Statistics,
        _diffuser.measure,
        _diffuser.diffuser,
    ),
    "decision-diffuser": Entry(
        _decision_diffuser.DecisionDiffuserConfig,
        _decision_diffuser.Statistics,
        _decision_diffuser.measure,
        _decision_diffuser.decision_diffuser,
    ),
    "diffusion-bc": Entry(
        _diffusion_bc.DiffusionBCConfig,
        _cloning.Statistics,
        _cloning.measure,
        _diffusion_bc.diffusion_bc,
    ),
    "bc": Entry(_bc.BCConfig, _bc.Statistics, _bc.measure, _bc.bc),
    **{
        name: Entry(config, _offline.Statistics, _offline.measure, build)
        for name, config, build in (
            ("iql", _iql.IQLConfig, _iql.iql),
            ("srpo", _srpo.SRPOConfig, _srpo.srpo),
            ("td3-bc", _td3_bc.TD3BCConfig, _td3_bc.td3_bc),
            ("idql", _idql.IDQLConfig, _idql.idql),
            (
                "diffusion-ql",
                _diffusion_ql.DiffusionQLConfig,
                _diffusion_ql.diffusion_ql,
            ),
            ("fql", _fql.FQLConfig, _fql.fql),
            ("qgpo", _qgpo.QGPOConfig, _qgpo.qgpo),
            ("cql", _cql.CQLConfig, _cql.cql),
            ("bcq", _bcq.BCQConfig, _bcq.bcq),
            ("bear", _bear.BEARConfig, _bear.bear),
        )
    },
}

__all__ = ["ALGORITHMS", "ActOutput", "Algorithm", "Entry", "Learner", "TrainState"]
