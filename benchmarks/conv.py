"""Time the temporal networks under several formulations of the convolution.

    python -m benchmarks.conv

A setting is `net;H;pass`. Methods: `jaxdiff` as shipped, `linen` the same network with
`flax.linen.Conv`, and two other formulations of ours, `barrier` (XLA's convolution of a
separately padded input) and `shifted` (a sum of k matrix products), against which
jaxdiff must stay within 1.3 times the best. On a CPU the process is pinned to one core
and the figures are milliseconds of processor time, which other load disturbs least;
elsewhere they are wall-clock. Compilation is never counted; `seconds` holds it.

    python -m benchmarks.conv --layers

prints microseconds of single layers instead, and writes no row: the formulations that
`jaxdiff.networks.temporal_conv` chooses from, and the gradient of group norm with Mish
as `jaxdiff.networks.norm_mish` computes it and by autodiff.
"""

import argparse
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

if hasattr(os, "sched_setaffinity"):  # before JAX sizes its thread pool
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from benchmarks.command import as_command
from benchmarks.rows import measured, write_rows
from jaxdiff.networks import TemporalUNet, TemporalValue
from jaxdiff.networks import temporal_conv as layers
from jaxdiff.networks.layers import mish
from jaxdiff.networks.norm_mish import norm_mish
from jaxdiff.networks.toom_cook import toom_cook_conv

LIMIT = 1.3
SHIPPED = layers.temporal_conv
SCAN_STEPS = 2
VMAPPED = 2
NETS = {  # name: dim_mults, batch, horizon, width of a trajectory step
    "maze-1-2-4": ((1, 2, 4), 32, 128, 6),
    "hopper-1-2-4-8": ((1, 2, 4, 8), 32, 32, 14),
}
PASSES = ("forward", "train-gradient", "value-gradient", "scan", "vmap-params")
Conv = Callable[..., jax.Array]


def linen_conv(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, **_: Any
) -> jax.Array:
    size, _, features = kernel.shape
    conv = nn.Conv(features, (size,), stride, size // 2, use_bias=False)
    return conv.bind({"params": {"kernel": kernel}})(x)


def barrier_conv(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, **_: Any
) -> jax.Array:
    if stride > 1:
        return SHIPPED(x, kernel, stride=stride)
    return _barrier(x, kernel)


@jax.custom_vjp
def _barrier(x: jax.Array, kernel: jax.Array) -> jax.Array:
    padded = jax.lax.optimization_barrier(_padded(x, len(kernel)))
    return _valid(padded, kernel)


def _barrier_backward(residuals, g):
    x, kernel = residuals
    dx = _barrier(g, jnp.swapaxes(kernel[::-1], 1, 2))
    padded = jnp.transpose(_padded(x, len(kernel)), (2, 1, 0))
    operands = jax.lax.optimization_barrier((padded, jnp.swapaxes(g, 0, 1)))
    return dx, jnp.swapaxes(_valid(*operands), 0, 1)


_barrier.defvjp(lambda x, w: (_barrier(x, w), (x, w)), _barrier_backward)


def shifted_conv(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, **_: Any
) -> jax.Array:
    padded = _padded(x, len(kernel))
    last = x.shape[1]
    taps = [padded[:, i : i + last : stride] @ w for i, w in enumerate(kernel)]
    return functools.reduce(jnp.add, taps)


def _padded(x: jax.Array, size: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (size // 2, size // 2), (0, 0)))


def _valid(x: jax.Array, kernel: jax.Array) -> jax.Array:
    numbers = ("NWC", "WIO", "NWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1,), "VALID", dimension_numbers=numbers
    )


METHODS: dict[str, Conv] = {
    "jaxdiff": SHIPPED,
    "barrier": barrier_conv,
    "shifted": shifted_conv,
    "linen": linen_conv,
}


@functools.cache
def initial(net: str, which: str) -> tuple[nn.Module, Any, jax.Array, jax.Array]:
    """Return a network, its parameters, trajectories and times."""
    dim_mults, batch, horizon, width = NETS[net]
    key = jax.random.key(0)
    x = jax.random.normal(key, (batch, horizon, width))
    time_ = jnp.zeros((batch,))
    module = TemporalValue if which == "value-gradient" else TemporalUNet
    network = module(dim_mults=dim_mults)
    params = jax.jit(network.init)(key, x[:1], time_[:1])
    if which == "vmap-params":
        params = jax.tree.map(lambda p: jnp.stack([p] * VMAPPED), params)
    return network, params, x, time_


def program(net: str, which: str) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return a function and its arguments: one pass of one network."""
    network, params, x, time_ = initial(net, which)

    def loss(params, x):
        return jnp.mean(jnp.square(network.apply(params, x, time_) - x))

    def descend(params, x):
        def step(params, _):
            slope = jax.grad(loss)(params, x)
            return jax.tree.map(lambda p, g: p - 1e-3 * g, params, slope), None

        return jax.lax.scan(step, params, None, length=SCAN_STEPS)[0]

    programs = {
        "forward": lambda params, x: network.apply(params, x, time_),
        "train-gradient": jax.grad(loss),
        "value-gradient": lambda params, x: jax.grad(
            lambda x: jnp.sum(network.apply(params, x, time_))
        )(x),
        "scan": descend,
        "vmap-params": jax.vmap(jax.grad(loss), in_axes=(0, None)),
    }
    return programs[which], (params, x)


def measure(
    function: Callable[..., Any], arguments: tuple[Any, ...], budget: float
) -> tuple[np.ndarray, float]:
    """Return milliseconds of each call and the seconds of compilation."""
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    compilation = time.perf_counter() - start
    jax.block_until_ready(compiled(*arguments))
    calls: list[float] = []
    while sum(calls) < budget:
        start = clock()
        jax.block_until_ready(compiled(*arguments))
        calls.append(clock() - start)
    return 1e3 * np.asarray(calls), compilation


def benchmark(
    nets: Sequence[str], passes: Sequence[str], methods: Sequence[str], budget: float
) -> Iterator[dict[str, Any]]:
    for net in nets:
        for which in passes:
            for method in methods:
                with mock.patch.object(layers, "temporal_conv", METHODS[method]):
                    calls, compilation = measure(*program(net, which), budget)
                yield {
                    "setting": f"{net};{NETS[net][2]};{which}",
                    "method": method,
                    "metric": "milliseconds",
                    **measured(calls, statistic=np.median),
                    "seeds": 1,
                    "seconds": compilation,
                }


def composed_norm_mish(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    grouped = x.reshape(*x.shape[:2], 8, -1)
    centred = grouped - grouped.mean((1, 3), keepdims=True)
    variance = jnp.square(centred).mean((1, 3), keepdims=True)
    normalized = centred * jax.lax.rsqrt(variance + 1e-5)
    return mish(normalized.reshape(x.shape) * scale + bias)


CONVOLUTIONS: dict[str, Conv] = {
    "fewer products": toom_cook_conv,
    "gathered": layers._gather,
    "all taps": lambda x, w: layers._all_taps(x, w, "float32"),
    "k products": shifted_conv,
    "barrier": barrier_conv,
}
NORMS = {"own gradient": norm_mish, "autodiff": composed_norm_mish}
SHAPES = (  # [B, H, C]
    *((64, 32, 32), (64, 8, 128), (64, 4, 256), (8, 128, 32)),
    *((1, 128, 32), (8, 4, 256), (1, 8, 128), (1, 4, 256)),
)


def time_layers(budget: float) -> None:
    """Print the microseconds of single layers."""

    def show(shape: tuple[int, ...], times: dict[str, float]) -> None:
        shown = "  ".join(f"{name} {us:7.0f}" for name, us in times.items())
        print(f"{shape!s:14s} {shown}", flush=True)

    for shape in SHAPES:
        channels = shape[-1]
        x = jax.random.normal(jax.random.key(0), shape)
        kernel = jax.random.normal(jax.random.key(1), (5, channels, channels))
        times = {}
        for name, convolve in CONVOLUTIONS.items():
            calls, _ = measure(convolve, (x, kernel), budget)
            times[name] = 1e3 * float(np.median(calls))
        for name, norm in NORMS.items():

            def slopes(*given: jax.Array, norm: Callable[..., Any] = norm) -> Any:
                return jax.vjp(norm, *given)[1](given[0])

            ones = jnp.ones(channels)
            calls, _ = measure(slopes, (x, ones, 0 * ones), budget)
            times[name] = 1e3 * float(np.median(calls))
        show(shape, times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=NETS)
    parser.add_argument("--passes", nargs="+", default=list(PASSES), choices=PASSES)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--budget", type=float, default=0.7, help="seconds a row")
    parser.add_argument("--layers", action="store_true", help="time single layers")
    options = vars(parser.parse_args())
    if options.pop("layers"):
        time_layers(options["budget"])
        return
    best: dict[str, float] = {}
    ours: dict[str, float] = {}
    for row in benchmark(**options):
        # Row by row, so that an interrupted run keeps what it measured.
        write_rows("conv", [row], command="python -m benchmarks.conv")
        setting, value = row["setting"], row["value"]
        print(f"{setting:36s} {row['method']:8s} {value:9.1f} ms", flush=True)
        best[setting] = min(value, best.get(setting, value))
        if row["method"] == "jaxdiff":
            ours[setting] = value
    slow = {name: ours[name] / best[name] for name in ours}
    worst = max(slow, key=lambda name: slow[name], default=None)
    if worst:
        print(f"slowest against the best: {worst}, {slow[worst]:.2f} times")
    if any(ratio > LIMIT for ratio in slow.values()):
        raise SystemExit(f"jaxdiff is over {LIMIT} times the best formulation")


if __name__ == "__main__":
    with as_command():
        main()
