"""Time training updates beside PyTorch, in one process, by turns.

    pip install -e ".[bench]"
    python -m benchmarks.updates [--devices 2] [--budget 60]

An update is noise, loss, gradient, Adam and the averaged copy. `jaxdiff` is the real
learner in the program that `jaxdiff train` runs, which also draws each batch from the
dataset; `torch` is the same network, loss and optimizer in eager PyTorch, on a batch
that lies ready. Both start from the same weights and must compute the same function.
Both have the same cores: each core has one virtual device of jaxdiff and one thread of
torch.

Blocks of updates alternate between the two until each has had its budget of seconds, by
the wall clock. The value is the median rate of n blocks, `times_torch` the median ratio
of neighbouring blocks; intervals are over blocks. `seconds` is the time of the first
update, compilation included.

Run nothing else on the machine. If another process uses one of the cores, torch's
threads spin while they wait for each other, and its rate falls many times over.
"""

import argparse
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
import torch

from benchmarks import pytorch
from benchmarks.command import as_command
from benchmarks.rows import RESULTS, measured, write_rows
from jaxdiff import train
from jaxdiff.algorithms.base import Learner, TrainConfig, TrainState
from jaxdiff.algorithms.planning.diffuser import (
    DiffuserActing,
    DiffuserConfig,
    diffuser,
    measure,
)
from jaxdiff.data.episodes import Episodes, starts_of
from jaxdiff.data.spec import Spec
from jaxdiff.devices import (
    Device,
    request_cpu_devices,
    select_devices,
)
from jaxdiff.diffusion import cosine_schedule
from jaxdiff.networks import TemporalUNet

# Makes so many updates, waits for them and returns the loss.
Advance = Callable[[int], float]

BATCH_SIZE = 32
BLOCK_SECONDS = 2.0
TOLERANCE = 1e-4


def jaxdiff_updates(
    learner: Learner, data: Any, *, batch_size: int, devices: list[Device]
) -> tuple[Advance, TrainState]:
    """Build the program of `train_learners`, and the state that it starts from."""
    config = TrainConfig(batch_size=batch_size)
    program = train.updates_of(
        learner, data, config=config, devices=devices, donate=False
    )
    return lambda count: program.advance(count)["loss"], program.state


def random_episodes(action_dim: int, observation_dim: int) -> Episodes:
    """Draw 20 episodes of 1000 steps from a normal distribution."""
    lengths = np.full(20, 1_000)
    rng, rows = np.random.default_rng(0), int(lengths.sum()) + len(lengths)
    return Episodes(
        observations=rng.normal(size=(rows, observation_dim)).astype(np.float32),
        actions=rng.normal(size=(rows, action_dim)).astype(np.float32),
        rewards=np.zeros(rows, np.float32),
        starts=starts_of(lengths),
        lengths=lengths,
        terminated=np.zeros(len(lengths), bool),
    )


def diffuser_methods(
    config: DiffuserConfig, dims: tuple[int, int], devices: list[Device]
) -> dict[str, Advance]:
    """Build Diffuser twice, for `dims` of actions and observations."""
    episodes, shape = random_episodes(*dims), (BATCH_SIZE, sum(dims), config.horizon)
    spec = Spec((dims[1],), action_dim=dims[0])
    statistics = measure(config, episodes, spec)
    built = diffuser(config, DiffuserActing(), statistics, spec)
    ours, state = jaxdiff_updates(
        built.learners["denoiser"], episodes, batch_size=BATCH_SIZE, devices=devices
    )
    size = {"dim": config.dim, "dim_mults": config.dim_mults}
    network = pytorch.TemporalUNet(sum(dims), **size)
    pytorch.copy_weights(state.params, network)
    x0 = 2.0 * torch.rand(shape) - 1.0
    apply = functools.partial(TemporalUNet(**size).apply, state.params)
    print(f"the networks agree to {check_same(apply, network, x0):.1e}", flush=True)

    tables = pytorch.level_tables(cosine_schedule(config.diffusion_steps))
    mask = pytorch.clamp_mask(*shape[1:], action_dim=dims[0], goal_dim=config.goal_dim)

    def loss() -> torch.Tensor:
        level = torch.randint(1, config.diffusion_steps + 1, (BATCH_SIZE,))
        noise = torch.randn(shape)
        return pytorch.denoising_loss(
            network, x0, level, noise, tables=tables, mask=mask
        )

    theirs, _ = pytorch.updates(
        network,
        loss,
        learning_rate=config.learning_rate,
        ema_decay=config.ema_decay,
    )
    return {"jaxdiff": ours, "torch": theirs}


@torch.no_grad()
def check_same(
    ours: Callable[..., Any], theirs: Callable[..., torch.Tensor], x: torch.Tensor
) -> float:
    """Return the largest difference of two denoisers' outputs, on x [B, D, H].

    Raises:
      SystemExit: they are not the same function.
    """
    time_ = torch.linspace(0.0, 50.0, len(x))
    expected = jax.jit(ours)(np.asarray(x.mT), np.asarray(time_))
    error = float(np.abs(expected - theirs(x, time_).mT.numpy()).max())
    if not error < TOLERANCE:
        raise SystemExit(f"the networks differ by {error:.1e}: nothing to compare")
    return error


def _diffuser(
    dims: tuple[int, int], horizon: int, dim_mults: tuple[int, ...], **options: Any
) -> Callable[..., dict[str, Advance]]:
    config = DiffuserConfig(
        horizon=horizon,
        dim_mults=dim_mults,
        prediction="x0",
        action_weight=1.0,
        **options,
    )
    return functools.partial(diffuser_methods, config, dims)


# Setting: devices -> the updates of each method, from the same weights.
Settings: TypeAlias = Mapping[str, Callable[[list[Device]], dict[str, Advance]]]
SETTINGS: dict[str, Callable[[list[Device]], dict[str, Advance]]] = {
    "diffuser-maze-1-4-8-H128": _diffuser((2, 4), 128, (1, 4, 8), goal_dim=4),
    "diffuser-hopper-1-2-4-8-H32": _diffuser(
        (3, 11), 32, (1, 2, 4, 8), diffusion_steps=20
    ),
    "diffuser-maze-1-2-4-H128": _diffuser((2, 4), 128, (1, 2, 4), goal_dim=2),
}


def benchmark(
    setting: str, methods: Mapping[str, Advance], budget: float
) -> Iterator[dict[str, Any]]:
    """Alternate the methods of a setting; yield their rows."""
    first = {name: _seconds(advance, 1) for name, advance in methods.items()}
    counts = {
        name: max(1, round(min(BLOCK_SECONDS, budget) * 2 / _seconds(advance, 2)))
        for name, advance in methods.items()
    }
    rates: dict[str, list[float]] = {name: [] for name in methods}
    spent = dict.fromkeys(methods, 0.0)
    while min(spent.values()) < budget:
        for name, advance in methods.items():
            seconds = _seconds(advance, counts[name])
            rates[name].append(counts[name] / seconds)
            spent[name] += seconds
    found: list[Any] = [(name, "updates_per_second", rates[name]) for name in rates]
    ratios = np.divide(rates["jaxdiff"], rates["torch"])
    for method, metric, values in (*found, ("jaxdiff", "times_torch", ratios)):
        yield {
            "setting": setting,
            "method": method,
            "metric": metric,
            **measured(values, statistic=np.median),
            "seeds": 1,
            "seconds": first[method],
        }


def _seconds(advance: Advance, count: int) -> float:
    start = time.perf_counter()
    loss = advance(count)
    seconds = time.perf_counter() - start
    if not np.isfinite(loss):
        raise SystemExit(f"the loss became {loss}: not worth timing")
    return seconds


def main(
    arguments: Sequence[str] | None = None,
    *,
    directory: Path = RESULTS,
    experiment: str = "updates",
    settings: Settings | None = None,
) -> None:
    settings = SETTINGS if settings is None else settings
    parser = argparse.ArgumentParser(description=f"Write rows of {experiment}.")
    parser.add_argument(
        "--settings", nargs="+", default=list(settings), choices=settings
    )
    parser.add_argument(
        "--devices", type=int, default=2, help="virtual devices, threads and cores"
    )
    parser.add_argument(
        "--budget", type=float, default=60.0, help="seconds a setting and method"
    )
    options = parser.parse_args(arguments)
    _use_cores(options.devices)
    devices = select_devices(options.devices, platform="cpu")
    command = (
        f"python -m benchmarks.{experiment} --devices {options.devices} "
        f"--budget {options.budget:g}"
    )
    _print_load()
    for setting in options.settings:
        start, others = time.perf_counter(), _others_seconds()
        methods = settings[setting](devices)
        rows = list(benchmark(setting, methods, options.budget))
        others = (_others_seconds() - others) / (time.perf_counter() - start)
        # Setting by setting, so that an interrupted run keeps what it measured.
        write_rows(experiment, rows, command=command, directory=directory)
        for row in rows:
            print(
                f"{setting:27s} {row['method']:8s} {row['metric']:18s} "
                f"{row['value']:8.2f} [{row['low']:.2f}, {row['high']:.2f}], "
                f"{row['n']} blocks, first update {row['seconds']:.1f} s",
                flush=True,
            )
        print(f"meanwhile other processes used {others:.2f} cores", flush=True)
    _print_load()


def _others_seconds() -> float:
    """Return the processor seconds of all other processes; nan but on Linux."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return float("nan")
    fields = stat.read_text().split(maxsplit=9)[1:9]
    user, nice, system, _idle, _waiting, *interrupts = map(int, fields)
    ticks = user + nice + system + sum(interrupts)
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()


def _print_load() -> None:
    """Say how much has been running, for only a quiet machine gives a fair ratio."""
    shown = " ".join(f"{load:.2f}" for load in os.getloadavg())
    print(f"load average of 1, 5 and 15 minutes: {shown}", flush=True)


def _use_cores(count: int) -> None:
    """Hold both libraries to as many cores; in vain once JAX has started."""
    if hasattr(os, "sched_setaffinity"):  # XLA's pool is as large as the affinity
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    jax.config.update("jax_platforms", "cpu")
    request_cpu_devices(count)
    torch.set_num_threads(count)
    torch.set_num_interop_threads(1)


if __name__ == "__main__":
    with as_command():
        main()
