"""Named options of offline reinforcement learning; see `jaxdiff.tasks.presets`.

`released` are those of the authors' code in D4RL's locomotion tasks and AntMaze; other
data get the locomotion ones, and TD3+BC has the paper's. Where code and paper of an
algorithm are not known to disagree, `paper` is the same. SRPO's paper subtracts the
baseline, its released code does not. IDQL's authors tried 16, 64 and 256 candidates,
and those of QGPO strengths of guidance from 0 to 10; here it has 1, which is exact.
`demo` is for a laptop: 20,000 updates a learner, actions scaled to [-1, 1], and
diffusion models of a sixth of the authors' size, or of Diffusion-QL's own size.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from jaxdiff.algorithms.offline.bcq import BCQConfig
from jaxdiff.algorithms.offline.bear import BEARConfig
from jaxdiff.algorithms.offline.cql import CQLConfig
from jaxdiff.algorithms.offline.diffusion_ql import DiffusionQLConfig
from jaxdiff.algorithms.offline.fql import FQLConfig
from jaxdiff.algorithms.offline.idql import IDQLConfig
from jaxdiff.algorithms.offline.iql import IQLConfig
from jaxdiff.algorithms.offline.qgpo import QGPOConfig
from jaxdiff.algorithms.offline.srpo import SRPOConfig
from jaxdiff.algorithms.offline.td3_bc import TD3BCConfig
from jaxdiff.train import TrainConfig

Training = dict[str, TrainConfig]
T = TypeVar("T")

# Temperature of SRPO, of rewards scaled by the range of returns, or in AntMaze of the
# mere direction of Q. The first line whose words are all in a dataset's name decides.
_TEMPERATURES: dict[str, float] = {
    "halfcheetah medium expert": 0.01,
    "halfcheetah": 0.2,
    "hopper medium expert": 0.01,
    "hopper medium replay": 0.2,
    "hopper": 0.05,
    "walker2d medium expert": 0.1,
    "walker2d medium replay": 0.5,
    "walker2d": 0.05,
    "antmaze umaze diverse": 0.04,
    "antmaze umaze": 0.02,
    "antmaze medium play": 0.08,
    "antmaze medium": 0.05,
    "antmaze large play": 0.06,
    "antmaze": 0.05,
}

# Bound of the gradient of Diffusion-QL's policy, and eta in AntMaze; read likewise.
_GRADIENTS: dict[str, float] = {
    "halfcheetah medium expert": 7.0,
    "halfcheetah medium replay": 2.0,
    "halfcheetah": 9.0,
    "hopper medium expert": 5.0,
    "hopper medium replay": 4.0,
    "hopper": 9.0,
    "walker2d medium expert": 5.0,
    "walker2d medium replay": 4.0,
    "walker2d": 1.0,
    "antmaze umaze diverse": 3.0,
    "antmaze umaze": 2.0,
    "antmaze medium play": 2.0,
    "antmaze medium": 1.0,
    "antmaze large play": 10.0,
    "antmaze": 7.0,
}
_ETAS: dict[str, float] = {
    "antmaze umaze diverse": 2.0,
    "antmaze umaze": 0.5,
    "antmaze medium play": 2.0,
    "antmaze medium": 3.0,
    "antmaze large play": 4.5,
    "antmaze": 3.5,
}

# Of a diffusion model on a laptop, in place of 256 and three blocks.
_SMALL: dict[str, Any] = {"score_width": 128, "score_blocks": 2}

# Of locomotion, whose rewards IQL and its kin scale by the range of returns.
_LOCOMOTION = ("hopper", "walker2d", "halfcheetah")


class _Asked(NamedTuple):
    """What is asked for.

    Attributes:
      name: demo, released or paper.
      dataset: its name, in small letters.
      data: options of an `OfflineConfig` that all have.
      training: of a learner.
    """

    name: str
    dataset: str
    data: dict[str, Any]
    training: TrainConfig

    @property
    def demo(self) -> bool:
        return self.name == "demo"

    @property
    def ants(self) -> bool:
        return "antmaze" in self.dataset

    @property
    def small(self) -> dict[str, Any]:
        """The size of a diffusion model on a laptop, else the default."""
        return _SMALL if self.demo else {}

    @property
    def of_iql(self) -> dict[str, Any]:
        """Options of IQL's critic, beside those of the data."""
        ranged = any(task in self.dataset for task in _LOCOMOTION)
        rewards = {"rewards": "range"} if ranged else {}
        return {**self.data, **rewards, "expectile": 0.9 if self.ants else 0.7}

    def listed(self, table: Mapping[str, T], otherwise: T) -> T:
        """Look up the first line whose words are all in the dataset's name."""
        lines = (x for x in table if all(word in self.dataset for word in x.split()))
        return table.get(next(lines, ""), otherwise)

    def trained(self, num_steps: int, batch_size: int = 256) -> TrainConfig:
        """Training of so many updates; on a laptop as long as all."""
        if self.demo:
            return self.training
        return dataclasses.replace(
            self.training, num_steps=num_steps, batch_size=batch_size
        )


def offline_preset(algorithm: str, name: str, dataset: str) -> tuple[Any, Training]:
    """Return what `jaxdiff.tasks.presets.preset` does.

    Args:
      algorithm: one of `OFFLINE`.
      name: of the preset, one that there is.
      dataset: a name of a dataset, in small letters.
    """
    demo = name == "demo"
    updates = 20_000 if demo else 1_000_000
    training = TrainConfig(
        num_steps=updates,
        batch_size=256,
        log_every=updates // 100,
        save_every=updates // 10,
    )
    data: dict[str, Any] = {"rewards": "minus-one" if "antmaze" in dataset else "raw"}
    if not demo:
        data |= {"normalizer": "none", "scale_actions": False, "drop_timeouts": True}
    return OFFLINE[algorithm](_Asked(name, dataset, data, training))


def _iql(asked: _Asked) -> tuple[IQLConfig, Training]:
    config = IQLConfig(
        temperature=10.0 if asked.ants else 3.0,
        policy_decay=asked.training.num_steps,
        **asked.of_iql,
    )
    return config, {"critic": asked.training, "policy": asked.training}


def _srpo(asked: _Asked) -> tuple[SRPOConfig, Training]:
    config = SRPOConfig(
        widths=(256,) * (4 if asked.ants else 2),
        temperature=asked.listed(_TEMPERATURES, 0.1),
        unit_gradient=asked.ants,
        baseline=asked.name != "released",
        policy_decay=asked.training.num_steps,
        **asked.small,
        **asked.of_iql,
    )
    return config, {
        "critic": asked.trained(1_500_000),
        "behaviour": asked.trained(2_000_000, 2048),
        "policy": asked.training,
    }


def _idql(asked: _Asked) -> tuple[IDQLConfig, Training]:
    training = asked.trained(3_000_000, 512)
    config = IDQLConfig(
        candidates=16 if asked.demo else 64,
        ema_decay=0.995 if asked.demo else 0.999,
        score_rate_decay=training.num_steps,
        **asked.small,
        **asked.of_iql,
    )
    return config, {"critic": training, "behaviour": training}


def _td3_bc(asked: _Asked) -> tuple[TD3BCConfig, Training]:
    # The normaliser of states is the paper's own, but for AntMaze.
    data = {**asked.data, "normalizer": "none" if asked.ants else "gaussian"}
    return TD3BCConfig(**data), {"policy": asked.training}


def _diffusion_ql(asked: _Asked) -> tuple[DiffusionQLConfig, Training]:
    training = asked.trained(1_000_000 if asked.ants else 2_000_000)
    plays = ["antmaze", "medium", "play"]
    hasty = not asked.demo and all(word in asked.dataset for word in plays)
    max_over = asked.ants and "umaze" not in asked.dataset
    config = DiffusionQLConfig(
        widths=(256,) * 3,
        eta=asked.listed(_ETAS, 1.0),
        max_gradient=asked.listed(_GRADIENTS, None),
        backup_candidates=10 if max_over and not asked.demo else 1,
        learning_rate=1e-3 if hasty else 3e-4,
        candidates=16 if asked.demo else 50,
        **({**asked.small, "score_blocks": 1} if asked.demo else {}),
        **{**asked.data, "rewards": "centred" if asked.ants else "raw"},
    )
    return config, {"policy": training}


def _fql(asked: _Asked) -> tuple[FQLConfig, Training]:
    training = asked.trained(500_000)
    wide = {} if asked.demo else {"widths": (512,) * 4, "layer_norm": True}
    large = asked.ants and "large" in asked.dataset
    config = FQLConfig(alpha=3.0 if large else 10.0, **wide, **asked.data)
    return config, {"policy": training}


def _qgpo(asked: _Asked) -> tuple[QGPOConfig, Training]:
    sizes: dict[str, Any] = {
        "widths": (256,) * 3,
        "energy_blocks": 3,
        "support_actions": 32 if asked.ants else 16,
    }
    if asked.demo:
        sizes = {"energy_width": 128, "support_actions": 8, "sampling_steps": 10}
    config = QGPOConfig(
        **sizes,
        **asked.small,
        **{key: value for key, value in asked.of_iql.items() if key != "expectile"},
    )
    return config, {
        "behaviour": asked.trained(600_000, 4_096),
        "critic": asked.trained(500_000),
        "energy": asked.trained(1_000_000),
    }


def _cql(asked: _Asked) -> tuple[CQLConfig, Training]:
    data = {**asked.data, "rewards": "centred" if asked.ants else "raw"}
    if asked.demo:
        return CQLConfig(warm_up=2_000, **data), {"policy": asked.training}
    config = CQLConfig(widths=(256,) * 3, warm_up=40_000, **data)
    return config, {"policy": asked.training}


def _bcq(asked: _Asked) -> tuple[BCQConfig, Training]:
    training = asked.trained(1_000_000, 100)
    if asked.demo:
        config = BCQConfig(vae_widths=(256, 256), candidates=20, **asked.data)
    else:
        config = BCQConfig(widths=(400, 300), learning_rate=1e-3, **asked.data)
    return config, {"behaviour": training, "policy": training}


def _bear(asked: _Asked) -> tuple[BEARConfig, Training]:
    smooth = any(task in asked.dataset for task in ("walker2d", "ant"))
    kernel = {"kernel": "gaussian", "width": 20.0} if smooth else {}
    small = {"vae_widths": (256, 256)} if asked.demo else {}
    config = BEARConfig(
        warm_up=2_000 if asked.demo else 20_000, **kernel, **small, **asked.data
    )
    return config, {"behaviour": asked.training, "policy": asked.training}


OFFLINE: dict[str, Callable[[_Asked], tuple[Any, Training]]] = {
    "iql": _iql,
    "srpo": _srpo,
    "td3-bc": _td3_bc,
    "idql": _idql,
    "diffusion-ql": _diffusion_ql,
    "fql": _fql,
    "qgpo": _qgpo,
    "cql": _cql,
    "bcq": _bcq,
    "bear": _bear,
}
