"""Time jaxdiff beside PyTorch, in one process, by turns.

A setting has two methods, `jaxdiff` and `torch`, that compute the same. Blocks of calls
alternate between the two until each has had its budget of seconds, by the wall clock.
A value is the median rate of n blocks, `times_torch` the median ratio of neighbouring
blocks; intervals are over blocks. `seconds` is the time of the first call, compilation
included, and `load` the cores that other processes used meanwhile. A method whose call
takes more than 20 seconds is left out.

Both have the same cores: each core has one virtual device of jaxdiff and one thread of
torch. Run nothing else on the machine. If another process uses one of the cores,
torch's threads spin while they wait for each other, and its rate falls many times over.

Rows are written setting by setting. An interrupted measurement goes on by `--resume`,
which leaves out the settings that were measured at the same commit.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
import torch

from benchmarks.rows import RESULTS, commit, measured, read_rows, write_rows
from jaxdiff.devices import Device, request_cpu_devices, select_devices
from jaxdiff.progress import waiting

# Makes so many calls, waits for them and returns a number that must be finite.
Advance: TypeAlias = Callable[[int], float]

BLOCK_SECONDS = 2.0
SLOW = 20.0


class Setting(NamedTuple):
    """What both methods do.

    Attributes:
      build: devices -> the calls of each method; refuses to build two methods that do
        not compute the same.
      metric: what is counted a second.
      units: how many of these a call gives.
    """

    build: Callable[[list[Device]], dict[str, Advance]]
    metric: str = "updates_per_second"
    units: int = 1


def timed(
    name: str, setting: Setting, methods: Mapping[str, Advance], budget: float
) -> Iterator[dict[str, Any]]:
    """Alternate the methods of a setting; yield their rows.

    Args:
      name: of the setting.
      setting: says what is counted.
      methods: calls by name.
      budget: seconds for each method.
    """
    first, counts = {}, {}
    for method, advance in methods.items():
        with waiting(f"{name}: first call of {method}"):
            first[method] = _seconds(advance, 1)
        with waiting(f"{name}: a call of {method}"):
            seconds = _seconds(advance, 1)
        if seconds > SLOW:
            print(f"left out: {name}, {method}: a call takes {seconds:.0f} s")
        else:
            counts[method] = max(1, round(min(BLOCK_SECONDS, budget) / seconds))
    rates: dict[str, list[float]] = {method: [] for method in counts}
    spent = dict.fromkeys(counts, 0.0)
    start, others = time.perf_counter(), _others_seconds()
    with waiting(f"{name}: timing for {len(counts)} x {budget:g} s"):
        while spent and min(spent.values()) < budget:
            for method, count in counts.items():
                seconds = _seconds(methods[method], count)
                rates[method].append(setting.units * count / seconds)
                spent[method] += seconds
    others = (_others_seconds() - others) / (time.perf_counter() - start)
    found: list[Any] = [(method, setting.metric, rates[method]) for method in rates]
    if {"jaxdiff", "torch"} <= rates.keys():
        ratios = np.divide(rates["jaxdiff"], rates["torch"])
        found.append(("jaxdiff", "times_torch", ratios))
    for method, metric, values in found:
        yield {
            "setting": name,
            "method": method,
            "metric": metric,
            **measured(values, statistic=np.median),
            "seeds": 1,
            "seconds": first[method],
            "load": round(others, 2) if np.isfinite(others) else None,
        }


def _seconds(advance: Advance, count: int) -> float:
    start = time.perf_counter()
    value = advance(count)
    seconds = time.perf_counter() - start
    if not np.isfinite(value):
        raise SystemExit(f"a result became {value}: not worth timing")
    return seconds


def main(
    arguments: Sequence[str] | None,
    *,
    experiment: str,
    settings: Mapping[str, Setting],
    words: str | None = None,
    directory: Path = RESULTS,
) -> None:
    """Measure settings and write their rows.

    Args:
      arguments: of the command line.
      experiment: name of the results.
      settings: by name.
      words: of the command after `python -m benchmarks.`, by default the experiment.
      directory: of the results.
    """
    words = words or experiment
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
    parser.add_argument(
        "--resume", action="store_true", help="leave out what this commit measured"
    )
    options = parser.parse_args(arguments)
    use_cores(options.devices)
    devices = select_devices(options.devices, platform="cpu")
    command = (
        f"python -m benchmarks.{words} --devices {options.devices} "
        f"--budget {options.budget:g}"
    )
    done = set()
    if options.resume:
        done = {
            row["setting"]
            for row in read_rows(experiment, directory)
            if (row["commit"], row["command"]) == (commit(), command)
        }
    _print_load()
    for name in options.settings:
        if name in done:
            print(f"{name} was measured before", flush=True)
            continue
        with waiting(f"{name}: building"):
            methods = settings[name].build(devices)
        rows = list(timed(name, settings[name], methods, options.budget))
        # Setting by setting, so that an interrupted run keeps what it measured.
        write_rows(experiment, rows, command=command, directory=directory)
        for row in rows:
            print(
                f"{name:27s} {row['method']:8s} {row['metric']:20s} "
                f"{row['value']:10.4g} [{row['low']:.4g}, {row['high']:.4g}], "
                f"{row['n']} blocks, first call {row['seconds']:.1f} s, other "
                f"processes {row['load']} cores",
                flush=True,
            )
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


def use_cores(count: int) -> None:
    """Hold both libraries to as many cores; in vain once JAX has started."""
    if hasattr(os, "sched_setaffinity"):  # XLA's pool is as large as the affinity
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    jax.config.update("jax_platforms", "cpu")
    request_cpu_devices(count)
    torch.set_num_threads(count)
    torch.set_num_interop_threads(1)
