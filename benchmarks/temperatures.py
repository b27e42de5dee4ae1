"""Train SRPO's policy for many temperatures and seeds at once.

    python -m benchmarks.temperatures RUN [--betas 0.01 0.1 1] [--seeds 4]

RUN is a trained run of SRPO. Its critic and its diffusion model, which are nearly all
of the training cost, stay fixed. The policies are so small that one program trains all
of them side by side, by `vmap` over beta and over seeds. Policies of one seed share
their batches.

Rows of benchmarks/results/temperatures.json, a setting a dataset: `q`, the value that
the critic gives a policy of each beta on the data's states, with an interval over
seeds; and `policy_updates_per_second`, summed over policies, of one policy alone and of
all at once.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.command import command_of, run_command
from benchmarks.rows import RESULTS, measured, write_rows
from jaxdiff.algorithms.base import Learner, Metrics, TrainState
from jaxdiff.data.episodes import split_episodes
from jaxdiff.errors import UserError
from jaxdiff.run import load_run
from jaxdiff.tasks.lookup import load_dataset

EXPERIMENT = "temperatures"
BLOCK = 500  # updates of a dispatch


@dataclasses.dataclass(frozen=True)
class Options:
    """Sweep the temperature of a trained run of SRPO."""

    run: tyro.conf.Positional[Path]
    """A run of SRPO."""
    betas: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
    """Temperatures."""
    seeds: int = 4
    """Seeds of each temperature."""
    updates: int = 5_000
    """Updates of every policy."""
    batch_size: int = 256
    """States in an update."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Train, time and write the rows.

    Raises:
      UserError: the run is of another algorithm.
    """
    run = load_run(options.run)
    if run.name != "srpo":
        raise UserError(
            f"{options.run} is a run of {run.name}; give a run of `jaxdiff train srpo`"
        )
    name = run.dataset["name"]
    train, _ = split_episodes(load_dataset(name).trained_on())
    learner = run.algorithm.learners["policy"]
    data = learner.prepare(train, run.states, jax.random.key(0))

    def timed(betas: Sequence[float], seeds: int) -> tuple[Metrics, float]:
        advance, states = side_by_side(
            learner,
            data,
            run.states,
            betas=betas,
            seeds=seeds,
            batch_size=options.batch_size,
            updates=options.updates,
        )
        blocks = max(2, options.updates // BLOCK)
        states, metrics = advance(states, 0, BLOCK)  # which compiles
        jax.block_until_ready(states)
        started = time.perf_counter()
        for block in range(1, blocks):
            states, metrics = advance(states, block * BLOCK, BLOCK)
        jax.block_until_ready(states)
        seconds = time.perf_counter() - started
        return metrics, len(betas) * seeds * (blocks - 1) * BLOCK / seconds

    _, alone = timed(options.betas[:1], 1)
    metrics, together = timed(options.betas, options.seeds)
    rows = make_rows(name, options.betas, metrics, alone=alone, together=together)
    command = command_of("temperatures", options)
    write_rows(EXPERIMENT, rows, command=command, directory=directory)
    for row in rows:
        print(f"{row['method']}: {row['metric']} {row['value']:.4g}")


def side_by_side(
    learner: Learner,
    data: Any,
    frozen: Mapping[str, TrainState],
    *,
    betas: Sequence[float],
    seeds: int,
    batch_size: int,
    updates: int,
) -> tuple[Callable[..., tuple[TrainState, Metrics]], TrainState]:
    """Build the program that trains a policy for every temperature and seed.

    Args:
      learner: reads "temperature" of `hyper`, as that of SRPO's policy does.
      data: prepared.
      frozen: states of the learners that have finished.
      betas: K temperatures.
      seeds: S.
      batch_size: of an update.
      updates: of the whole training, over which a learning rate may decay.

    Returns:
      `(states, first update, updates) -> (states, metrics of the last of them)`, and
      the states to begin with; all leaves `[K, S, ...]`.
    """
    roots = jax.vmap(jax.random.key)(jnp.arange(seeds))
    temperatures = jnp.asarray(betas, jnp.float32)

    def batch_of(data: Any, key: jax.Array) -> Any:
        keys = jax.random.split(key, batch_size)
        return jax.vmap(learner.draw, (None, 0))(data, keys)

    def begin(beta: jax.Array, root: jax.Array, data: Any) -> TrainState:
        del beta
        return learner.init(root, batch_of(data, root), frozen)

    def train(
        state: TrainState, beta: jax.Array, root: jax.Array, numbers: jax.Array,
        data: Any, frozen: Any,
    ) -> tuple[TrainState, Metrics]:  # fmt: skip
        def update(state: TrainState, number: jax.Array) -> Any:
            draw_key, key = jax.random.split(jax.random.fold_in(root, number))
            keys = jax.random.split(key, batch_size)
            hyper = {"temperature": beta, "num_steps": updates}
            batch = batch_of(data, draw_key)
            return learner.update(state, keys, batch, frozen, hyper)

        state, metrics = jax.lax.scan(update, state, numbers)
        return state, jax.tree.map(lambda values: values[-1], metrics)

    def grid(function: Callable[..., Any], first: tuple, rest: tuple) -> Any:
        # Draws depend on the seed alone, so over temperatures they are made once.
        inner = jax.vmap(function, (*first, None, 0, *rest))
        return jax.vmap(inner, (*first, 0, None, *rest))

    all_trained = jax.jit(grid(train, (0,), (None, None, None)))

    def advance(states: TrainState, first: int, count: int) -> Any:
        numbers = first + jnp.arange(count)
        return all_trained(states, temperatures, roots, numbers, data, dict(frozen))

    return advance, jax.jit(grid(begin, (), (None,)))(temperatures, roots, data)


def make_rows(
    setting: str,
    betas: Sequence[float],
    metrics: Metrics,
    *,
    alone: float,
    together: float,
) -> list[dict[str, Any]]:
    """Make the rows of a sweep.

    Args:
      setting: name of the dataset.
      betas: K temperatures.
      metrics: of the last update, "q" `[K, S]` among them.
      alone: updates a second of one policy.
      together: those of all policies, summed.
    """
    expected = np.asarray(metrics["q"])
    rows = []
    for beta, values in zip(betas, expected, strict=True):
        named = {"setting": setting, "method": f"beta {beta:g}", "metric": "q"}
        rows.append({**named, **measured(values), "seeds": len(values)})
    for count, rate in ((1, alone), (expected.size, together)):
        rows.append(
            {
                "setting": setting,
                "method": "one policy" if count == 1 else f"{count} at once",
                "metric": "policy_updates_per_second",
                "value": rate,
                "n": 1,
            }
        )
    return rows


if __name__ == "__main__":
    run_command(main, Options)
