"""How fast the library is: latency, throughput, updates a second, time to compile.

    document = jaxdiff.bench.bench(quick=True)

Every registered algorithm is measured with its generic preset on made-up data of 17
observed numbers and 6 actions, or one run with its own options. Calls are those that
users make: `run.policy`, `jaxdiff.plan`, the updates of training, `evaluate`.

A row of the result is one kind of call at one size:

- `p50_ms`, `p95_ms`, `p99_ms`: percentiles over `calls` calls after the first, each
  from its arguments on the host to its result there. `per_second` is what a call of
  median length gives, in units of `unit`;
- `cold_seconds`: from options and data to the first answer, with an empty compilation
  cache; `warm_seconds`: the same again with the programs on disk;
- `flops` and `network_calls` of a call, counted in the traced program, see
  `jaxdiff.bench.costs`; `peak_fraction` is the rate of these FLOPs over that of a large
  product of matrices, measured beside them;
- `score`: of the run in its environment, if its own options act so (`own_way`).
  Untrained networks have none;
- `note`: why numbers are missing.
"""

import dataclasses
import datetime
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.base import Entry
from jaxdiff.algorithms.planning.options import PlannerActing
from jaxdiff.bench.document import FORMAT, key_of, read_document, write_document
from jaxdiff.bench.machine import commit, load, machine, versions
from jaxdiff.bench.subjects import SMALL, Subject, subject_of, untrained
from jaxdiff.bench.timing import (
    CompilationCache,
    Step,
    empty_cache,
    matmul_peak,
    repeat,
    summary,
)
from jaxdiff.bench.work import Started, Work, works_of
from jaxdiff.devices import Device
from jaxdiff.errors import UserError, reason, require_at_least
from jaxdiff.evaluation import evaluate
from jaxdiff.options import to_plain
from jaxdiff.progress import note, progress, waiting
from jaxdiff.run import Run

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
      batches: sizes beside 1, in increasing order.
      seconds: of the calls of a row, at least three of which are made.
      latency_seconds: the same, of rows with one problem.
      calls: of a row at most.
      slow: seconds of a call above which a row is left out.
      minutes: after which no further row is begun.
      small: make networks of trajectories smaller.
      every_learner: measure updates of every learner, and not of the last one alone.
      first_update: measure the seconds to a first update, for which parameters are
        drawn as in training; otherwise they are made up.
      matrix: rows of the matrix whose square is the peak.
    """

    batches: tuple[int, ...] = (64, 1_024, 4_096)
    seconds: float = 5.0
    latency_seconds: float = 15.0
    calls: int = 2_000
    slow: float = 20.0
    minutes: float = 58.0
    small: bool = False
    every_learner: bool = True
    first_update: bool = True
    matrix: int = 2_048


FULL = Effort()
QUICK = Effort(
    batches=(64,),
    seconds=0.3,
    latency_seconds=0.5,
    calls=200,
    slow=2.0,
    minutes=4.5,
    small=True,
    every_learner=False,
    first_update=False,
    matrix=1_024,
)
LEAST_CALLS = 3
MANY = 64  # candidates of a plan whose latency is measured at most


def bench(
    run: Run | None = None,
    *,
    only: Sequence[str] = (),
    effort: Effort = FULL,
    out: Path | None = None,
    resume: bool = False,
    episodes: int = 10,
    devices: Sequence[Device] | None = None,
    environment: str | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Measure, row by row.

    Args:
      run: a trained run; None measures untrained networks of registered algorithms.
      only: names of algorithms, by default all; not with a run.
      effort: `FULL`, `QUICK` or another one.
      out: written after every row, as JSON.
      resume: keep the rows of `out` and measure what is missing.
      episodes: played for the score of a run.
      devices: for updates and acting, by default one.
      environment: to score a run in, see `evaluate`.
      trust: as in `evaluate`.

    Returns:
      What `out` holds: machine, versions, load, effort and rows.

    Raises:
      UserError: an unknown algorithm, or `out` cannot be written or resumed.
    """
    require_at_least(1, episodes=episodes)
    devices = list(devices) if devices is not None else jax.devices()[:1]
    if run is not None and only:
        raise UserError(
            f"`only` chooses among algorithms, and {run.path} is of {run.name}; leave "
            "one of them out"
        )
    # Planners come last, because they take longest.
    every = sorted(ALGORITHMS, key=lambda name: _plans(ALGORITHMS[name]))
    names = [run.name] if run is not None else list(only or every)
    for name in names:
        ALGORITHMS.find(name)
    document = {
        "format": FORMAT,
        "measured": "untrained networks" if run is None else _identity(run),
        "effort": to_plain(effort),
        "smaller": SMALL if effort.small and run is None else {},
        "machine": machine(len(devices)),
        "versions": versions(),
        "commit": commit(),
        "began": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load": load(),
        "flops": "of matrix products and convolutions, counted in the traced program",
        "scores": "untrained networks have none" if run is None else "by `evaluate`",
        "rows": [],
    }
    if resume:
        document["rows"] = _kept(out, document)
    if out is not None:
        write_document(out, document)  # before anything is measured
    until = time.monotonic() + 60 * effort.minutes
    found = {key_of(row): row for row in document["rows"]}
    with progress(len(names), "bench", unit="algorithm") as bar:
        for name in names:
            rows = _rows_of(
                name, run, effort, devices, document["rows"], until,
                functools.partial(
                    _score, episodes=episodes, num_envs=episodes, devices=devices,
                    environment=environment, trust=trust,
                ),
            )  # fmt: skip
            for row in rows:
                found[key_of(row)] = row
                document["rows"] = list(found.values())
                if out is not None:
                    write_document(out, document)
            bar()
    return document


def _identity(run: Run) -> dict[str, Any]:
    """Say which run it is, and how it acts."""
    return {
        "run": run.document.get("id"),
        "dataset": run.dataset["name"],
        "acting": to_plain(run.acting),
        "checkpoint": "best" if run.best else "newest",
    }


def _plans(entry: Entry) -> bool:
    return issubclass(entry.acting, PlannerActing)


def _rows_of(name: str, run: Run | None, effort: Effort, *rest: Any) -> Iterator[Row]:
    """Build what is measured and measure it; say what stopped it."""
    try:
        with waiting(f"{name}: building"):
            if run is None:
                subject = untrained(name, small=effort.small)
            else:
                subject = subject_of(run)
        yield from _rows(subject, effort, *rest)
    except Exception as error:
        # An algorithm of the user's own may raise anything; the others are measured.
        yield _row(name, "build", unit="") | _failed(name, error)


def _failed(label: str, error: Exception) -> Row:
    note(f"{label} failed: {reason(error)}")
    return {"note": f"failed: {reason(error)}", "again": True}


_SAME = ("format", "measured", "effort", "smaller", "machine", "versions", "commit")


def _kept(out: Path | None, document: Mapping[str, Any]) -> list[Row]:
    """Return the rows of an earlier measurement of the same, those that failed not."""
    if out is None or not out.is_file():
        return []
    before, now = read_document(out), json.loads(json.dumps(document))
    other = [name for name in _SAME if before.get(name) != now[name]]
    if other:
        raise UserError(
            f"{out} was measured with another {' and another '.join(other)}; leave out "
            "`resume`, or name another file with `out`"
        )
    return [row for row in before["rows"] if not row.get("again")]


def _score(run: Run, *, episodes: int, **options: Any) -> Row:
    """Play episodes with a run."""
    try:
        record, _ = evaluate(run, episodes=episodes, **options)
    except UserError as error:
        return {"note": f"not scored: {error}"}
    name = "score" if "score" in record else "mean_return"
    return {
        "score": record[name],
        "score_is": name,
        "calls": episodes,
        "per_second": episodes / record["seconds"],
    }


def _rows(
    subject: Subject,
    effort: Effort,
    devices: Sequence[Device],
    known: Sequence[Row],
    until: float,
    score: Callable[[Run], Row],
) -> Iterator[Row]:
    """Measure what is not known yet of one algorithm; yield its rows."""
    name = subject.run.name
    done = {key_of(row): row for row in known if row["algorithm"] == name}
    peak = matmul_peak(effort.matrix)
    smaller: dict[str, Row] = {}
    works = works_of(
        subject, effort.batches, devices, every_learner=effort.every_learner,
        drawn=effort.first_update,
    )  # fmt: skip
    for work in works:
        row = _row(name, *work.key, unit=work.unit) | {"own_way": work.scored}
        if key_of(row) not in done:
            left_out = _too_late(until) or _too_slow(
                work, smaller.get(work.name), effort
            )
            found = (
                {work.name: left_out}
                if left_out
                else _measured(name, work, effort, peak)
            )
            for kind, values in found.items():
                new = {**row, "work": kind, **values}
                done[key_of(new)] = new
                yield new
        smaller[work.name] = done[key_of(row)]
    if subject.trained:
        # Last, because an environment may take as long as it likes.
        row = _row(name, "evaluate", unit="episodes")
        if key_of(row) not in done:
            with waiting(f"{name}: playing episodes"):
                row |= _too_late(until) or score(subject.run)
            yield row
            for each in done.values():
                if each["own_way"]:
                    yield {**each, "score": row.get("score")}


def _row(
    algorithm: str,
    work: str,
    batch: int | None = None,
    candidates: int | None = None,
    *,
    unit: str,
) -> Row:
    return {
        "algorithm": algorithm, "work": work, "batch": batch, "candidates": candidates,
        "unit": unit, "own_way": False, "score": None, "load": load(),
    }  # fmt: skip


def _too_late(until: float) -> Row | None:
    if time.monotonic() < until:
        return None
    return {"note": "left out: the time was up; `resume` goes on", "again": True}


def _too_slow(work: Work, smaller: Row | None, effort: Effort) -> Row | None:
    """Say if a call would take too long, judged by the same work at a smaller size."""
    if smaller is None:
        return None
    if smaller.get("p50_ms") is None:  # what stopped it stops this one
        return {name: smaller[name] for name in ("note", "again") if name in smaller}
    before = smaller["candidates"] or smaller["batch"]
    seconds = smaller["p50_ms"] / 1e3 * work.units / before
    # One problem says little of many.
    if before == 1 or seconds <= effort.slow:
        return None
    return {"note": f"left out: a call would take about {seconds:.0f} s"}


def _measured(name: str, work: Work, effort: Effort, peak: float) -> dict[str, Row]:
    """Compile and time one program; give what was found by the kind of its calls."""
    size = f"batch {work.batch}"
    if work.candidates is not None:
        size = f"{work.candidates} candidates"
    label = f"{name}, {work.name}, {size}"
    try:
        return _timed(label, work, effort, peak)
    except Exception as error:
        return {work.name: _failed(label, error)}


def _timed(label: str, work: Work, effort: Effort, peak: float) -> dict[str, Row]:
    first = effort.first_update or work.unit != "updates"
    with empty_cache() as cache:
        with waiting(f"{label}: compiling"):
            cold, started = _first_answer(cache, work)
        with waiting(f"{label}: timing"):
            kinds = {work.name: started, **started.others}
            found = {
                kind: _calls(each, work, effort, peak) for kind, each in kinds.items()
            }
        warm = None
        if first and work.units == 1:
            del started, kinds
            with waiting(f"{label}: compiling again"):
                warm, _ = _first_answer(cache, work)
            if cache.counts["misses"] or not cache.counts["hits"]:
                warm = None  # such as a program that calls the host
    if first:
        found[work.name] |= {"cold_seconds": cold, "warm_seconds": warm}
    return found


def _calls(started: Started, work: Work, effort: Effort, peak: float) -> Row:
    """Time one kind of calls and count what they cost."""
    times = _seconds(started.step, work, effort)
    cost = started.cost()
    row: Row = {"flops": cost.flops, "network_calls": dict(cost.network_calls)}
    if not times:
        return {**row, "note": "left out: every call made a plan"}
    if times[0] > effort.slow:
        return {**row, "note": f"left out: a call takes {times[0]:.0f} s"}
    found = summary(times)
    median = found["p50_ms"] / 1e3
    return {
        **row,
        **found,
        "per_second": work.units / median,
        "peak_gflops": peak / 1e9,
        "peak_fraction": cost.flops / median / peak,
    }


def _first_answer(cache: CompilationCache, work: Work) -> tuple[float, Started]:
    """Return the seconds from nothing to a first answer, and what gives more."""
    cache.forget()
    began = time.perf_counter()
    started = work.start()
    started.step()
    return time.perf_counter() - began, started


def _seconds(step: Step, work: Work, effort: Effort) -> list[float]:
    """Time calls; of one that takes too long only that."""
    times = repeat(step, seconds=0.0, least=1, most=LEAST_CALLS)
    if times and times[0] > effort.slow:
        return times
    alone = work.batch == 1 and work.units <= MANY
    seconds = effort.latency_seconds if alone else effort.seconds
    return repeat(step, seconds=seconds, least=LEAST_CALLS, most=effort.calls)


__all__ = ["FULL", "QUICK", "Effort", "bench"]
