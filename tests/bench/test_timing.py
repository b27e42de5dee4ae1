import jax
import numpy as np
import pytest

from jaxdiff.bench import timing


@pytest.mark.parametrize(
    ("calls", "known"), [(1, {50}), (19, {50}), (20, {50, 95}), (100, {50, 95, 99})]
)
def test_percentiles_are_told_only_of_enough_calls(calls, known):
    seconds = np.linspace(0.001, 0.1, calls)
    found = timing.summary(seconds)
    assert found["calls"] == calls
    for p in (50, 95, 99):
        expected = 1e3 * np.percentile(seconds, p) if p in known else None
        assert found[f"p{p}_ms"] == expected


def test_of_no_calls_nothing_is_told():
    assert timing.summary([]) == {
        "calls": 0, "p50_ms": None, "p95_ms": None, "p99_ms": None
    }  # fmt: skip


def test_calls_are_made_until_there_are_enough(monkeypatch):
    now = 0.0
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    taken = iter([None, 1.0, 2.0, None, 3.0, 4.0, 5.0])

    def step():
        nonlocal now
        now += 1.0
        return next(taken)

    assert timing.repeat(step, seconds=2.5, least=3, most=9) == [1.0, 2.0, 3.0]
    # As many tries as are allowed, though fewer calls count.
    assert timing.repeat(step, seconds=99.0, least=3, most=2) == [4.0, 5.0]


def test_programs_are_read_again_from_an_empty_folder():
    before = jax.config.jax_compilation_cache_dir

    def program():
        return jax.jit(lambda x: jax.numpy.sin(x) @ x)(np.ones((2, 2)))

    with timing.empty_cache() as cache:
        assert jax.config.jax_compilation_cache_dir != before
        cache.forget()
        program()
        assert cache.counts["misses"]
        assert not cache.counts["hits"]
        cache.forget()
        program()
        assert cache.counts["hits"]
        assert not cache.counts["misses"]
    assert jax.config.jax_compilation_cache_dir == before


def test_the_peak_is_above_what_a_small_product_reaches():
    assert timing.matmul_peak(256) > timing.matmul_peak(8) > 0
