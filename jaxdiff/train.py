"""Training: one loop for every learner, on one device or many.

A dispatch is one XLA program: `jax.pmap` over devices of a loop over updates. The data
lies on the devices and every update draws its own batch from it. Metrics are averaged
inside the program and fetched while the next one runs.

Example `i` of update `n` of learner `L` is drawn and noised with a key folded from
(seed, L, n, i), `i` counted over the whole batch. So one device and eight see the same
batch, and a resumed run sees the batches that an uninterrupted one would have seen.

One device and eight add up a batch in another order, so that gradients differ by their
rounding. Some parameters change nothing, such as the bias of a convolution before a
GroupNorm whose groups are single channels (`dim=8`), or the last bias of an energy that
a softmax compares. Their gradients are nothing but rounding. Adam makes whole steps of
it, so these parameters come out otherwise on another number of devices.
"""

import contextlib
import dataclasses
import math
import signal
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import checkpoint, run_folder
from jaxdiff.algorithms.base import (
    Algorithm,
    Learner,
    Metrics,
    TrainConfig,
    TrainState,
)
from jaxdiff.compilation import compiling
from jaxdiff.devices import Device, first_replica, replicate
from jaxdiff.errors import UserError
from jaxdiff.host_program import call
from jaxdiff.progress import note, progress

# Score of the states of all learners: a name and a value, the higher the better.
Evaluate = Callable[[Mapping[str, TrainState]], tuple[str, float]]


def train_learners(
    algorithm: Algorithm,
    data: Any,
    *,
    configs: Mapping[str, TrainConfig],
    seed: int = 0,
    devices: Sequence[Device] | None = None,
    held_out: Any = None,
    hyper: Mapping[str, Any] | None = None,
    run: Path | None = None,
    evaluate: Evaluate | None = None,
    donate: bool | None = None,
) -> dict[str, TrainState]:
    """Train the learners of an algorithm in order.

    Args:
      algorithm: what to train.
      data: what its learners' `prepare` takes, usually `Episodes`.
      configs: learner name -> `TrainConfig`.
      seed: of every random draw, together with learner, update and example.
      devices: devices to train on, by default one; the batch is split over them.
      held_out: data for the held-out loss, prepared and drawn from as `data` is. If it
        cannot be prepared, because it is too short for instance, a note says so.
      hyper: arrays that updates read, beside the number of updates, "num_steps".
      run: run folder for metrics and checkpoints. A metric is the mean over the batch
        and over the updates since the line before, or since a checkpoint or an
        evaluation. Training goes on from the newest whole checkpoint found there; a
        finished learner is not trained again.
      evaluate: called with the states of all learners, every `eval_every` updates of
        the last one, because acting may need them all; its highest value marks the
        best checkpoint.
      donate: whether a dispatch reuses the memory of its input: by default on
        accelerators only, because it was measured slower on CPU.

    Returns:
      Learner name -> `TrainState` with NumPy leaves.

    Raises:
      UserError: a batch that does not divide over the devices, a loss or parameters
        that are not finite, a run folder that cannot be written or read.
    """
    devices = list(devices) if devices is not None else jax.devices()[:1]
    states: dict[str, TrainState] = {}
    for name in algorithm.learners:
        _check(name, configs[name], devices)
    for name, learner in algorithm.learners.items():
        job = _job(
            name, learner, configs[name], seed, devices, states, donate, hyper, run
        )
        last = len(states) + 1 == len(algorithm.learners)
        states[name] = _fit_one(job, data, held_out, evaluate if last else None)
    return states


class Updates(NamedTuple):
    """The updates of one learner, to be timed and counted.

    Attributes:
      state: what they start from, NumPy leaves.
      advance: `count -> metrics`, makes `count` more updates in one dispatch, waits for
        them and returns the means of their metrics.
      once: `state -> (state, metrics)`, one update of the whole batch, to be traced.
    """

    state: TrainState
    advance: Callable[[int], dict[str, float]]
    once: Callable[[TrainState], tuple[TrainState, Metrics]]


def updates_of(
    learner: Learner,
    data: Any,
    *,
    config: TrainConfig,
    name: str = "learner",
    finished: Mapping[str, TrainState] | None = None,
    state: TrainState | None = None,
    seed: int = 0,
    devices: Sequence[Device] | None = None,
    donate: bool | None = None,
) -> Updates:
    """Build the program that `train_learners` runs for one learner.

    Args:
      learner: what to update.
      data: what its `prepare` takes.
      config: how it is trained.
      name: of the learner; its draws depend on it.
      finished: states of the learners that train before it.
      state: to start from; by default drawn as training does.
      seed: as in `train_learners`.
      devices: as in `train_learners`.
      donate: as in `train_learners`.

    Raises:
      UserError: a batch that does not divide over the devices.
    """
    devices = list(devices) if devices is not None else jax.devices()[:1]
    _check(name, config, devices)
    job = _job(name, learner, config, seed, devices, finished or {}, donate)
    prepared = _prepare(job, data)
    first = state or call(_init(job), prepared)
    dispatch = _dispatch(job)
    arguments = prepared, job.finished, job.hyper
    placed_arguments = replicate(arguments, devices)
    placed, done = replicate(first, devices), 0

    def advance(count: int) -> dict[str, float]:
        nonlocal placed, done
        bounds = replicate((np.int32(done), np.int32(done + count)), devices)
        placed, metrics = dispatch(placed, placed_arguments, bounds)
        done += count
        jax.block_until_ready(placed)
        return {name: float(value) for name, value in first_replica(metrics).items()}

    def once(state: TrainState) -> tuple[TrainState, Metrics]:
        examples = jnp.arange(config.batch_size)
        return _update(job, arguments, examples, np.int32(0), state, axis_name=None)

    return Updates(first, advance, once)


@dataclasses.dataclass(frozen=True)
class _Job:
    """What stays the same while one learner trains."""

    name: str
    learner: Learner
    config: TrainConfig
    key: jax.Array
    devices: list[Device]
    finished: dict[str, TrainState]
    hyper: dict[str, Any]
    donate: bool
    run: Path | None


def _job(
    name: str,
    learner: Learner,
    config: TrainConfig,
    seed: int,
    devices: list[Device],
    finished: Mapping[str, TrainState],
    donate: bool | None,
    hyper: Mapping[str, Any] | None = None,
    run: Path | None = None,
) -> _Job:
    return _Job(
        name=name,
        learner=learner,
        config=config,
        key=jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode())),
        devices=devices,
        finished=dict(finished),
        hyper={"num_steps": np.int32(config.num_steps), **(hyper or {})},
        donate=devices[0].platform != "cpu" if donate is None else donate,
        run=run,
    )


def _fit_one(
    job: _Job, data: Any, held_out: Any, evaluate: Evaluate | None
) -> TrainState:
    config = job.config
    prepared = _prepare(job, data)
    init = _init(job)
    like = jax.eval_shape(init, prepared)
    found = checkpoint.restore_state(job.run, job.name, like) if job.run else None
    step, state = found or (0, call(init, prepared))
    if job.run is not None:
        run_folder.trim_metrics(job.run, job.name, step=step)
    if step >= config.num_steps:
        return state

    held_out_loss = _held_out_loss(job, held_out)
    dispatch = _dispatch(job)
    placed = replicate(state, job.devices)
    arguments = replicate((prepared, job.finished, job.hyper), job.devices)
    pending: tuple[int, Metrics] | None = None
    with (
        progress(config.num_steps, job.name, unit="update", initial=step) as bar,
        _stop_requested() as signals,
    ):
        # A dispatch of no updates compiles what all others run.
        with compiling(f"the updates of {job.name}"):
            none = replicate((np.int32(step), np.int32(step)), job.devices)
            placed, _ = jax.block_until_ready(dispatch(placed, arguments, none))
        for start, stop in _dispatches(step, config):
            bounds = replicate((np.int32(start), np.int32(stop)), job.devices)
            placed, metrics = dispatch(placed, arguments, bounds)
            if pending is not None:
                bar(0, **_report(job, *pending))
            bar(stop - start)
            pending = (stop, metrics)
            evaluating = _due(stop, config.eval_every, config)
            saving = _due(stop, config.save_every, config) or bool(signals)
            if not (evaluating or saving):
                continue
            # Nothing is saved or evaluated before it was seen to be finite.
            bar(0, **_report(job, *pending))
            pending = None
            state = first_replica(placed)
            _check_finite(job, stop, state)
            if evaluating:
                _evaluate(job, stop, state, held_out_loss, evaluate)
            if job.run is not None:
                checkpoint.save_state(
                    job.run, job.name, state, step=stop, keep=config.keep
                )
            if signals:
                saved = f" and saved in {job.run}" if job.run else ""
                note(f"stopped after update {stop} of {job.name}{saved}, as asked")
                raise SystemExit(128 + signals[0])
    return state  # of the last update, at which saving is always due


def _dispatch(job: _Job) -> Callable[..., tuple[TrainState, Metrics]]:
    """Build the one program that training runs: updates `start` to `stop`.

    The bounds are arguments, so that a last, shorter stretch needs no second program.
    """
    local = job.config.batch_size // len(job.devices)

    def updates(state, arguments, bounds):
        start, stop = bounds
        examples = jax.lax.axis_index("data") * local + jnp.arange(local)

        def update(n, state):
            return _update(job, arguments, examples, n, state, axis_name="data")

        def body(n, carry):
            state, total = carry
            state, metrics = update(n, state)
            return state, jax.tree.map(jnp.add, total, metrics)

        shapes = jax.eval_shape(update, start, state)[1]
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        state, total = jax.lax.fori_loop(start, stop, body, (state, zeros))
        return state, jax.tree.map(lambda x: x / (stop - start), total)

    return jax.pmap(
        updates,
        axis_name="data",
        devices=job.devices,
        donate_argnums=(0,) if job.donate else (),
    )


def _update(
    job: _Job,
    arguments: tuple[Any, Any, Any],
    examples: jax.Array,
    n: Any,
    state: TrainState,
    *,
    axis_name: str | None,
) -> tuple[TrainState, Metrics]:
    """Make update `n` from examples `[B]` of its batch, given by their number."""
    data, frozen, hyper = arguments
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
        jax.random.fold_in(job.key, n), examples
    )
    draw_keys, update_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    batch = jax.vmap(job.learner.draw, (None, 0))(data, draw_keys)
    return job.learner.update(
        state, update_keys, batch, frozen, hyper, axis_name=axis_name
    )


def _prepare(job: _Job, data: Any) -> Any:
    # Update keys are folded from numbers counted upwards from 0; this one from the top.
    key = jax.random.fold_in(job.key, np.uint32(2**32 - 1))
    return job.learner.prepare(data, job.finished, key)


def _init(job: _Job) -> Callable[[Any], TrainState]:
    key = jax.random.fold_in(job.key, np.uint32(2**32 - 2))

    def init(prepared):
        keys = jax.random.split(key, job.config.batch_size)
        batch = jax.vmap(job.learner.draw, (None, 0))(prepared, keys)
        return job.learner.init(key, batch, job.finished)

    return init


def _held_out_loss(job: _Job, held_out: Any) -> Callable[[TrainState], float] | None:
    """Build the loss of the averaged parameters on examples never trained on."""
    if held_out is None or not job.config.eval_every:
        return None
    try:
        prepared = _prepare(job, held_out)
    except UserError as error:
        note(f"{job.name} has no held-out loss ({error})")
        return None
    key = jax.random.fold_in(job.key, np.uint32(2**32 - 3))
    keys = jax.random.split(key, (2, 8 * job.config.batch_size))

    @jax.jit
    def loss(state, prepared):
        batch = jax.vmap(job.learner.draw, (None, 0))(prepared, keys[0])
        slow = state.slow.get("ema", state.params)
        # Only the loss is returned, so the update itself is never computed.
        _, metrics = job.learner.update(
            # Of losses that take turns always the same one, or two evaluations could
            # not be compared.
            dataclasses.replace(state, params=slow, step=jnp.zeros_like(state.step)),
            keys[1],
            batch,
            job.finished,
            job.hyper,
        )
        return metrics["loss"]

    return lambda state: float(loss(state, prepared))


def _evaluate(
    job: _Job,
    step: int,
    state: TrainState,
    held_out_loss: Callable[[TrainState], float] | None,
    evaluate: Evaluate | None,
) -> None:
    record: dict[str, float] = {}
    if held_out_loss is not None:
        record["held_out_loss"] = held_out_loss(state)
    played = None
    if evaluate is not None:
        try:
            played = evaluate({**job.finished, job.name: state})
        except UserError as error:  # training is worth more than a score
            note(f"{job.name}, update {step}, is not evaluated: {error}")
    if played is not None:
        metric, value = played
        record[metric] = value
        if job.run is not None:
            checkpoint.mark_best(
                job.run, job.name, step=step, metric=metric, value=value
            )
    if not record:
        return
    _write(job, step, record)
    shown = ", ".join(f"{name} {value:.4g}" for name, value in record.items())
    note(f"{job.name}, update {step}: {shown}")


def _report(job: _Job, step: int, metrics: Metrics) -> dict[str, float]:
    """Fetch the metrics of one dispatch, look at them and write them down."""
    values = {name: float(value) for name, value in first_replica(metrics).items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise _not_finite(job, step, f"{name} became {value}")
    _write(job, step, values)
    return values


def _check_finite(job: _Job, step: int, state: TrainState) -> None:
    """Check every number of a state: a finite loss may still have a NaN gradient."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(leaf).all():
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise _not_finite(job, step, f"{name} is no longer finite")


def _not_finite(job: _Job, step: int, what: str) -> UserError:
    kept = f" (what was saved before is kept in {job.run})" if job.run else ""
    return UserError(
        f"training of {job.name} stopped by update {step} because {what}{kept}; lower "
        "`learning_rate` or look for extreme values in the dataset"
    )


def _write(job: _Job, step: int, values: Mapping[str, float]) -> None:
    if job.run is not None:
        record = {"learner": job.name, "step": step, **values}
        run_folder.append_metrics(job.run, record)


def _dispatches(step: int, config: TrainConfig) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) such that whatever is due falls on a stop."""
    every = [config.log_every, config.save_every, config.eval_every]
    while step < config.num_steps:
        stop = min(step - step % n + n for n in every if n)
        stop = min(stop, config.num_steps)
        yield step, stop
        step = stop


def _due(step: int, every: int, config: TrainConfig) -> bool:
    return bool(every) and (step % every == 0 or step == config.num_steps)


def _check(name: str, config: TrainConfig, devices: Sequence[Device]) -> None:
    if config.batch_size % len(devices):
        raise UserError(
            f"the batch of {config.batch_size} examples of {name} does not divide over "
            f"{len(devices)} devices; choose a `batch_size` divisible by it"
        )


@contextlib.contextmanager
def _stop_requested() -> Iterator[list[int]]:
    """Turn SIGTERM, SIGHUP and Ctrl-C into a request to save after this dispatch.

    A second signal of a kind is met as it was before, so that Ctrl-C twice aborts. A
    signal that was ignored, such as SIGHUP under nohup, still is.

    Yields:
      the numbers of the signals that came, a list that grows.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came  # Python delivers signals to the main thread alone
        return

    def stop(number: int, _: Any) -> None:
        came.append(number)
        signal.signal(number, previous[number])

    previous: dict[int, Any] = {
        number: signal.signal(number, stop)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield came
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
