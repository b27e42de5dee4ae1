"""Time decisions of diffusion policies: how many a second, one observation at a time.

    python -m benchmarks.sampling_rate [--budget 2] [--cores 1]

A decision is one call of a compiled program: observations go in, an action comes back
to the host. A setting is an observation (the kitchen's two rows of 30 positions, or a
picture of the claw machine, 32 x 32 x 3, by the strided encoder) and the number T of
denoising steps. A method is a network and a way to sample: plain, Diffusion-X with 16
more steps, Diffusion-KDE of 50 actions. Metrics, at the networks' usual sizes:

- decisions_per_second: policies here encode the observation once a decision;
- encoding_every_step: decisions a second of the same policy if it encodes the
  observation again in every denoising step, for each of the denoised actions;
- gain: the ratio of the two.

All methods of a setting are compiled first and then timed by turns, in blocks, until
each has had its budget of seconds by the wall clock. Values are medians over blocks,
with bootstrap intervals; `gain` is of neighbouring blocks. `seconds` is compilation and
the first call. Run nothing else on the machine.
"""

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.command import command_of, run_command
from benchmarks.rows import RESULTS, measured, write_rows
from jaxdiff.algorithms.imitation.diffusion_bc import (
    DiffusionBCActing,
    DiffusionBCConfig,
    diffusion_head,
)
from jaxdiff.algorithms.imitation.policy import Head, Prepare, preparing
from jaxdiff.errors import UserError
from jaxdiff.networks import BasicMLP, ImageEncoder, Sieve, Transformer

BLOCK_SECONDS = 0.1

WAYS = {
    "plain": DiffusionBCActing(),
    "X": DiffusionBCActing(extra_steps=16),
    "KDE": DiffusionBCActing(candidates=50),
}


class Seen(NamedTuple):
    """What a policy sees, `[history, size]`, and how many numbers it answers."""

    history: int
    size: int
    action_dim: int
    image_shape: tuple[int, ...] | None = None


SEEN = {
    "kitchen": Seen(history=2, size=30, action_dim=9),
    "claw": Seen(history=1, size=3_072, action_dim=2, image_shape=(32, 32, 3)),
}
NETWORKS = {"MLP": BasicMLP, "Sieve": Sieve, "Transformer": Transformer}


@dataclasses.dataclass(frozen=True)
class Options:
    """Time decisions of diffusion policies."""

    seen: tuple[str, ...] = tuple(SEEN)
    """Observations: kitchen, claw."""
    networks: tuple[str, ...] = tuple(NETWORKS)
    """Networks: MLP, Sieve, Transformer."""
    ways: tuple[str, ...] = tuple(WAYS)
    """Ways to sample: plain, X, KDE."""
    diffusion_steps: tuple[int, ...] = (20, 50)
    """Number T of denoising steps."""
    budget: float = 2.0
    """Seconds for each method."""
    cores: int = 1
    """Processor cores to use."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Compile, time by turns and write the rows, setting by setting.

    Raises:
      UserError: a name that is not known, or a number below its least.
    """
    tables: dict[str, Any] = {"seen": SEEN, "networks": NETWORKS, "ways": WAYS}
    for option, known in tables.items():
        for name in getattr(options, option):
            if name not in known:
                raise UserError(
                    f"`{option}` has {name!r}; choose among {', '.join(known)}"
                )
    if options.cores < 1 or options.budget <= 0 or min(options.diffusion_steps) < 1:
        raise UserError("`cores`, `budget` and `diffusion_steps` must be above 0")
    if hasattr(os, "sched_setaffinity"):  # XLA's pool is as large as the affinity
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    print("load average:", *(f"{load:.2f}" for load in os.getloadavg()), flush=True)
    for seen in options.seen:
        for steps in options.diffusion_steps:
            rows = list(benchmark(seen, steps, options))
            command = command_of("sampling_rate", options)
            write_rows("sampling-rate", rows, command=command, directory=directory)
            for row in rows:
                print(
                    f"{row['setting']:16s} {row['method']:18s} {row['metric']:20s} "
                    f"{row['value']:9.2f} [{row['low']:.2f}, {row['high']:.2f}]",
                    flush=True,
                )


def benchmark(seen: str, steps: int, options: Options) -> Iterator[dict[str, Any]]:
    """Time all methods of a setting by turns; yield their rows."""
    decisions, first, counts = {}, {}, {}
    for network in options.networks:
        for way in options.ways:
            for every_step in (False, True):
                if every_step and network == "MLP" and not SEEN[seen].image_shape:
                    continue  # which encodes nothing
                name = f"{network}, {way}", every_step
                config = DiffusionBCConfig(diffusion_steps=steps)
                decide = decider(
                    SEEN[seen], network, config, WAYS[way], every_step=every_step
                )
                first[name] = _seconds(decide, 1)
                # Not all of this is one call: it is measured anew, without compiling.
                counts[name] = max(1, round(BLOCK_SECONDS / _seconds(decide, 1)))
                decisions[name] = decide
    rates: dict[Any, list[float]] = {name: [] for name in decisions}
    spent = dict.fromkeys(decisions, 0.0)
    while min(spent.values()) < options.budget:
        for name, decide in decisions.items():
            seconds = _seconds(decide, counts[name])
            rates[name].append(counts[name] / seconds)
            spent[name] += seconds
    for (method, every_step), values in rates.items():
        timed: dict[str, Any] = {"decisions_per_second": values}
        if every_step:
            timed = {
                "encoding_every_step": values,
                "gain": np.divide(rates[method, False], values),
            }
        for metric, numbers in timed.items():
            yield {
                "setting": f"{seen}, T = {steps}",
                "method": method,
                "metric": metric,
                **measured(numbers, statistic=np.median),
                "seeds": 1,
                "seconds": round(first[method, every_step], 2),
            }


def decider(
    seen: Seen,
    network: str,
    config: DiffusionBCConfig,
    acting: DiffusionBCActing,
    *,
    every_step: bool,
) -> Callable[[int], np.ndarray]:
    """Build a policy of random parameters: `call number -> action [1, A]`."""
    images = (
        ImageEncoder(seen.image_shape, kind="strided") if seen.image_shape else None
    )
    module = NETWORKS[network](seen.action_dim, images=images)
    head = diffusion_head(config, acting, seen.action_dim)
    shown = np.random.default_rng(0).random((1, seen.history, seen.size), np.float32)
    action = jnp.zeros((1, seen.action_dim))
    params = jax.jit(module.init)(jax.random.key(0), shown, action, jnp.zeros(1))

    @jax.jit
    def program(params, call, shown):
        encode = functools.partial(module.apply, params, method="encode")
        halves = (
            functools.partial(module.apply, params, method=name)
            for name in ("prepare", "denoise")
        )
        act = acting_of(head, encode, preparing(*halves), every_step=every_step)
        return act(jax.random.key(call)[None], shown)

    return lambda call: np.asarray(program(params, call, shown))


def acting_of(
    head: Head, encode: Callable, prepare: Prepare, *, every_step: bool
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Act as the head does, encoding once or in every denoising step.

    Args:
      head: of a policy.
      encode: `[B, k, O] -> [B, k, E]`.
      prepare: the rest of the network, see `Prepare`.
      every_step: encode in every step.

    Returns:
      `(keys [B], what is seen [B, k, O]) -> action [B, A]`, the same function either
      way.
    """
    if not every_step:
        return lambda keys, shown: head.act(keys, prepare, encode(shown))

    def both(shown, times):
        _, told = prepare(encode(shown), times)

        def network(action, told):
            # Tied to the action. Otherwise XLA would take the encoding out of its loop.
            again, action = jax.lax.optimization_barrier((shown, action))
            return prepare(encode(again), times)[0](action, told)

        return network, told

    return lambda keys, shown: head.act(keys, both, shown)


def _seconds(decide: Callable[[int], np.ndarray], count: int) -> float:
    start = time.perf_counter()
    for call in range(count):
        decide(call)
    return time.perf_counter() - start


if __name__ == "__main__":
    run_command(main, Options)
