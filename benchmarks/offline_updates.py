"""Time updates of IQL and TD3+BC beside PyTorch.

    pip install -e ".[bench]"
    python -m benchmarks.offline_updates [--devices 2] [--budget 60]

Blocks, rows and cautions are those of `benchmarks.turns`; the rows go to
benchmarks/results/offline_updates.json. On both sides an update draws 256 transitions
of HalfCheetah's sizes, 17 observed numbers and 6 actions, for networks with two layers
of 256. `jaxdiff` is the program that `jaxdiff train` runs; `torch` is eager PyTorch
with fused Adam, from the same weights. IQL's critic and policy, which jaxdiff trains
one after the other, here take turns in each update, as torch's do.

Before anything is timed, both sides update from the same weights and batch, and must
find the same loss.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import pytorch, pytorch_offline, turns, updates
from benchmarks.command import as_command
from benchmarks.turns import Advance, Setting
from jaxdiff.algorithms.base import Learner
from jaxdiff.algorithms.offline.common import measure
from jaxdiff.algorithms.offline.iql import IQLConfig, iql
from jaxdiff.algorithms.offline.td3_bc import TD3BCConfig, td3_bc
from jaxdiff.data.spec import Spec
from jaxdiff.devices import Device
from jaxdiff.options import NoOptions

SIZES = (6, 17)  # of actions and observations, HalfCheetah's
BATCH_SIZE = 256
TOLERANCE = 1e-3


def taking_turns(critic: Learner, policy: Learner) -> Learner:
    """Build the learner that updates a critic, then the policy that reads it."""

    def init(key, batch, frozen):
        first = critic.init(key, batch, frozen)
        return {"critic": first, "policy": policy.init(key, batch, {"critic": first})}

    def update(state, keys, batch, frozen, hyper, axis_name=None):
        new, metrics = critic.update(
            state["critic"], keys, batch, frozen, hyper, axis_name
        )
        done, _ = policy.update(
            state["policy"], keys, batch, {"critic": new}, hyper, axis_name
        )
        return {"critic": new, "policy": done}, metrics

    return Learner(critic.prepare, critic.draw, init, update)


def iql_pair(config: IQLConfig, data: Any, dims: tuple[int, int]) -> tuple[Any, ...]:
    """Build IQL twice: our learner, and `state -> torch's` with the same weights."""
    spec = Spec((dims[1],), action_dim=dims[0])
    statistics = measure(config, data, spec)
    learners = iql(config, NoOptions(), statistics, spec).learners

    def theirs(state: Any) -> pytorch_offline.IQL:
        made = pytorch_offline.IQL(config, dims[1], dims[0])
        critic = state["critic"].params
        pytorch.copy_weights(critic["q"], made.q)
        pytorch.copy_weights(critic["v"], made.v)
        pytorch.copy_weights(state["policy"].params, made.actor)
        made.sync()
        return made

    return taking_turns(learners["critic"], learners["policy"]), theirs


def td3_bc_pair(
    config: TD3BCConfig, data: Any, dims: tuple[int, int]
) -> tuple[Any, ...]:
    """Build TD3+BC twice, as `iql_pair` builds IQL."""
    spec = Spec((dims[1],), action_dim=dims[0])
    statistics = measure(config, data, spec)
    learner = td3_bc(config, NoOptions(), statistics, spec).learners["policy"]

    def theirs(state: Any) -> pytorch_offline.TD3BC:
        made = pytorch_offline.TD3BC(config, dims[1], dims[0])
        pytorch.copy_weights(state.params["q"], made.q)
        pytorch.copy_weights(state.params["actor"], made.actor)
        made.sync()
        return made

    return learner, theirs


def methods(
    pair: Callable[..., tuple[Any, ...]], config: Any, devices: list[Device]
) -> dict[str, Advance]:
    """Build an algorithm twice, for random data.

    Raises:
      SystemExit: the two do not find the same loss.
    """
    data = updates.random_episodes(*SIZES)
    learner, make = pair(config, data, SIZES)
    prepared = learner.prepare(data, {}, jax.random.key(0))
    ours, state = updates.jaxdiff_updates(
        learner, data, batch_size=BATCH_SIZE, devices=devices
    )
    table = pytorch_offline.table(prepared)
    difference = check_same(learner, state, make(state), prepared, table)
    print(f"the first losses agree to {difference:.1e}", flush=True)
    theirs = make(state)

    def advance(count: int) -> float:
        loss = float("nan")
        for _ in range(count):
            loss = theirs.update(pytorch_offline.draw(table, BATCH_SIZE))
        return loss

    return {"jaxdiff": ours, "torch": advance}


def check_same(
    learner: Learner, state: Any, theirs: Any, prepared: Any, table: Any
) -> float:
    """Update both from the first rows; give the relative difference of the losses.

    Raises:
      SystemExit: they are not the same function.
    """
    rows = np.arange(BATCH_SIZE)
    batch = jax.tree.map(lambda leaf: leaf[rows], prepared)
    keys = jax.random.split(jax.random.key(0), BATCH_SIZE)
    _, metrics = jax.jit(learner.update)(state, keys, batch, {}, {})
    expected = float(metrics["loss"])
    found = theirs.update({name: leaf[rows] for name, leaf in table.items()})
    error = abs(found - expected) / abs(expected)
    # Smoothing draws noise of its own on either side.
    if not error < (TOLERANCE if isinstance(theirs, pytorch_offline.IQL) else 0.2):
        raise SystemExit(f"the losses differ by {error:.1e}: nothing to compare")
    return error


SETTINGS = {
    "iql": Setting(functools.partial(methods, iql_pair, IQLConfig(actor="dirac"))),
    "td3-bc": Setting(functools.partial(methods, td3_bc_pair, TD3BCConfig())),
}


if __name__ == "__main__":
    with as_command():
        turns.main(sys.argv[1:], experiment="offline_updates", settings=SETTINGS)
