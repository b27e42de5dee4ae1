"""Presets of offline reinforcement learning, for the tasks that have any.

`released` has the options of the authors' code, and of the paper for TD3+BC. `paper`
exists for SRPO alone, because its paper subtracts a baseline and its code does not.
IDQL's authors tried 16, 64 and 256 candidates, and QGPO's authors tried strengths of
guidance from 0 to 10; here QGPO has 1, which is exact. FQL's authors chose a weight for
each task and none for locomotion, which has AntMaze's weight. All weights start as
PyTorch's do, because most of the authors use PyTorch. `demo` is for a laptop: 20,000
updates a learner, actions scaled to [-1, 1], and diffusion models of a sixth of the
authors' size, or of Diffusion-QL's own size.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.base import Preset, TrainConfig
from jaxdiff.data.episodes import Dataset
from jaxdiff.data.spec import Spec

Presets = dict[tuple[str, str], Callable[[Dataset, Spec], Preset]]


class Numbers(NamedTuple):
    """What the authors chose for one task.

    Attributes:
      sparse: rewards are 1 at a goal and 0 elsewhere, as in D4RL's AntMaze.
      ranged: IQL and its relatives scale rewards by the range of returns, as in D4RL's
        locomotion tasks.
      srpo_temperature: temperature of SRPO, of rewards scaled by the range of returns,
        or, if they are sparse, of the direction of the gradient of Q alone.
      eta: weight of Q in Diffusion-QL.
      max_gradient: bound of the gradient of Diffusion-QL's policy, or None.
      backup_candidates: actions that Diffusion-QL draws in a next state; `demo` does
        not use it.
      learning_rate: step size of Diffusion-QL; `demo` does not use it.
      alpha: weight of the behaviour in FQL.
      smooth: BEAR's kernel is Gaussian.
    """

    sparse: bool = False
    ranged: bool = False
    srpo_temperature: float = 0.1
    eta: float = 1.0
    max_gradient: float | None = None
    backup_candidates: int = 1
    learning_rate: float = 3e-4
    alpha: float = 10.0
    smooth: bool = False


def offline_presets(numbers: Callable[[Dataset], Numbers]) -> Presets:
    """Return the presets of all algorithms of offline reinforcement learning.

    Args:
      numbers: `dataset -> Numbers` of its task.
    """

    def preset(algorithm: str, name: str, dataset: Dataset, spec: Spec) -> Preset:
        options, training = _OFFLINE[algorithm](_Case(name, numbers(dataset)))
        entry = ALGORITHMS.find(algorithm)
        fields = {field.name for field in dataclasses.fields(entry.config)}
        config = {key: value for key, value in options.items() if key in fields}
        acting = {key: value for key, value in options.items() if key not in fields}
        return Preset(entry.config(**config), entry.acting(**acting), training)

    keys = [(each, name) for each in _OFFLINE for name in ("demo", "released")]
    keys.append(("srpo", "paper"))
    return {key: functools.partial(preset, *key) for key in keys}


class _Case(NamedTuple):
    """A preset of a task.

    Attributes:
      name: demo, released or paper.
      numbers: those of the task.
    """

    name: str
    numbers: Numbers

    @property
    def demo(self) -> bool:
        return self.name == "demo"

    @property
    def data(self) -> dict[str, Any]:
        """Options of what all algorithms read of the data."""
        rewards = {"rewards": "minus-one" if self.numbers.sparse else "raw"}
        if self.demo:
            return rewards
        raw = {"normalizer": "none", "scale_actions": False, "drop_timeouts": True}
        return rewards | raw

    @property
    def centred(self) -> dict[str, Any]:
        """The same where sparse rewards become -2 and 2."""
        return self.data | {"rewards": "centred" if self.numbers.sparse else "raw"}

    @property
    def scaled(self) -> dict[str, Any]:
        """The same where rewards may be scaled by the range of returns."""
        return self.data | ({"rewards": "range"} if self.numbers.ranged else {})

    @property
    def of_iql(self) -> dict[str, Any]:
        """Options of IQL's critic, and of the data."""
        return self.scaled | {"expectile": 0.9 if self.numbers.sparse else 0.7}

    @property
    def small(self) -> dict[str, Any]:
        """Size of a diffusion model on a laptop, in place of 256 and three blocks."""
        return {"score_width": 128, "score_blocks": 2} if self.demo else {}

    def trained(self, num_steps: int = 1_000_000, batch_size: int = 256) -> TrainConfig:
        """Return the training of so many updates; on a laptop as long as all."""
        updates = 20_000 if self.demo else 1_000_000
        return TrainConfig(
            num_steps=updates if self.demo else num_steps,
            batch_size=256 if self.demo else batch_size,
            log_every=updates // 100,
            save_every=updates // 10,
        )


Made = tuple[dict[str, Any], dict[str, TrainConfig]]


def _iql(case: _Case) -> Made:
    temperature = 10.0 if case.numbers.sparse else 3.0
    options = case.of_iql | {"temperature": temperature, "policy_decay": 1.0}
    return options, {"critic": case.trained(), "policy": case.trained()}


def _srpo(case: _Case) -> Made:
    options = {
        **case.small,
        **case.of_iql,
        "policy_widths": (256,) * 4 if case.numbers.sparse else None,
        "temperature": case.numbers.srpo_temperature,
        "unit_gradient": case.numbers.sparse,
        "baseline": case.name != "released",
        "policy_decay": 1.0,
    }
    return options, {
        "critic": case.trained(1_500_000),
        "behaviour": case.trained(2_000_000, 2048),
        "policy": case.trained(),
    }


def _idql(case: _Case) -> Made:
    options = {
        **case.small,
        **case.of_iql,
        "candidates": 16 if case.demo else 64,
        "ema_decay": 0.995 if case.demo else 0.999,
        "score_rate_decay": 1.0,
    }
    training = case.trained(3_000_000, 512)
    return options, {"critic": training, "behaviour": training}


def _td3_bc(case: _Case) -> Made:
    # The normaliser of states is the paper's own, but not in AntMaze.
    own = {"normalizer": "gaussian", "spread_floor": 1e-3}
    if case.numbers.sparse:
        own = {"normalizer": "none"}
    return case.data | own, {"policy": case.trained()}


def _diffusion_ql(case: _Case) -> Made:
    options = {
        **case.centred,
        "widths": (256,) * 3,
        "eta": case.numbers.eta,
        "max_gradient": case.numbers.max_gradient,
        "candidates": 50,
    }
    if case.demo:
        options |= {**case.small, "score_blocks": 1, "candidates": 16}
    else:
        options |= {
            "backup_candidates": case.numbers.backup_candidates,
            "learning_rate": case.numbers.learning_rate,
        }
    updates = 1_000_000 if case.numbers.sparse else 2_000_000
    return options, {"policy": case.trained(updates)}


def _fql(case: _Case) -> Made:
    wide = {} if case.demo else {"widths": (512,) * 4}
    options = case.data | wide | {"alpha": case.numbers.alpha}
    return options, {"policy": case.trained(500_000)}


def _qgpo(case: _Case) -> Made:
    if case.demo:
        sizes = {"energy_width": 128, "support_actions": 8, "support_steps": 10}
    else:
        actions = 32 if case.numbers.sparse else 16
        sizes = {
            "widths": (256,) * 3,
            "energy_blocks": 3,
            "support_actions": actions,
        }
    return case.scaled | case.small | sizes, {
        "behaviour": case.trained(600_000, 4_096),
        "critic": case.trained(500_000),
        "energy": case.trained(1_000_000),
    }


def _cql(case: _Case) -> Made:
    own = {"warm_up": 2_000}
    if not case.demo:
        own = {"warm_up": 40_000, "widths": (256,) * 3}
    return case.centred | own, {"policy": case.trained()}


def _bcq(case: _Case) -> Made:
    own: dict[str, Any] = {"vae_widths": (256, 256), "candidates": 20}
    if not case.demo:
        own = {"widths": (400, 300), "learning_rate": 1e-3}
    training = case.trained(1_000_000, 100)
    return case.data | own, {"behaviour": training, "policy": training}


def _bear(case: _Case) -> Made:
    options = case.data | {"warm_up": 2_000 if case.demo else 20_000}
    if case.demo:
        options |= {"vae_widths": (256, 256)}
    if case.numbers.smooth:
        options |= {"kernel": "gaussian", "width": 20.0}
    return options, {"behaviour": case.trained(), "policy": case.trained()}


_OFFLINE: dict[str, Callable[[_Case], Made]] = {
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
