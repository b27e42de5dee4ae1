"""Seconds of calls: how they are taken, and what is said of them."""

import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

# Makes one call and returns its seconds, or None for a call that does not count.
Step = Callable[[], float | None]

_CACHE = {
    "jax_compilation_cache_dir": None,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
_HITS, _MISSES = (f"/jax/compilation_cache/cache_{name}" for name in ("hits", "misses"))


def seconds_of(call: Callable[[], Any]) -> float:
    """Return the seconds of a call that waits for its result, by the wall clock."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def repeat(step: Step, *, seconds: float, least: int, most: int) -> list[float]:
    """Make calls until they have taken long enough, or there are enough of them.

    Args:
      step: a call.
      seconds: to spend.
      least: calls to make however long they take.
      most: calls after which to stop.

    Returns:
      Seconds of the calls that count. They may be fewer than `least`, if of `most`
      calls few count.
    """
    found: list[float] = []
    until = time.perf_counter() + seconds
    for _ in range(most):
        if len(found) >= least and time.perf_counter() >= until:
            break
        taken = step()
        if taken is not None:
            found.append(taken)
    return found


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    """Return the number of calls and percentiles of their milliseconds.

    A percentile p is None for fewer than 100 / (100 - p) calls, of which none is rarer.
    """
    found: dict[str, Any] = {"calls": len(seconds)}
    for p in (50, 95, 99):
        known = len(seconds) * (100 - p) >= 100 or (p == 50 and len(seconds))
        value = 1e3 * float(np.percentile(seconds, p)) if known else None
        found[f"p{p}_ms"] = value
    return found


class CompilationCache:
    """An empty compilation cache on disk, and how often it was read.

    Attributes:
      counts: "hits" and "misses" since `forget` was last called.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def forget(self) -> None:
        """Forget all programs in memory; those on disk stay."""
        jax.clear_caches()
        self.counts.clear()

    def listen(self, event: str, **_: Any) -> None:
        """Count an event of JAX."""
        if event == _HITS:
            self.counts["hits"] += 1
        elif event == _MISSES:
            self.counts["misses"] += 1


@contextlib.contextmanager
def empty_cache() -> Iterator[CompilationCache]:
    """Let JAX keep compiled programs in an empty folder, which is removed at the end.

    A cache of the user's own is put back then.
    """
    before = {name: getattr(jax.config, name) for name in _CACHE}
    cache = CompilationCache()
    with tempfile.TemporaryDirectory(prefix="jaxdiff-cache-") as folder:
        for name, value in {**_CACHE, "jax_compilation_cache_dir": folder}.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        jax.monitoring.register_event_listener(cache.listen)
        try:
            yield cache
        finally:
            jax.monitoring.unregister_event_listener(cache.listen)
            for name, value in before.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()


def matmul_peak(size: int) -> float:
    """Measure the most FLOP/s of a product of float32 matrices, best of nine calls."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(a))
    best = min(seconds_of(lambda: jax.block_until_ready(product(a))) for _ in range(9))
    return 2 * size**3 / best
