"""The contract that every algorithm keeps: learners that train, and a way to act.

A learner is four pure functions, as an optax transformation is two. They close over
networks, optimizers and hyperparameters; the state they pass on holds arrays only, so
that it can be placed, replicated, saved and compared leaf by leaf.

    prepare(data, frozen, key) -> data           once, before the first update
    draw(data, key) -> example                   one training example; vmapped over keys
    init(key, batch, frozen) -> TrainState
    update(state, keys, batch, frozen, hyper, axis_name=None) -> (TrainState, metrics)

`frozen` maps the names of learners that have finished to their whole `TrainState`.
`keys` has one key per example of the batch, so that a batch split over devices is the
same batch. Every statistic over a batch goes through `pmean` when `axis_name` is given.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from jaxdiff.errors import UserError
from jaxdiff.pytree import pytree_dataclass

# A nest of arrays; the recursive type of chex refuses the one of optax.
ArrayTree: TypeAlias = Any
Metrics: TypeAlias = dict[str, jax.Array]


@pytree_dataclass
class TrainState:
    """What training changes.

    Attributes:
      step: updates made so far, `[]` int32.
      params: parameters that the optimizer moves.
      slow: averaged copies of parameters by name ("ema", "target").
      model_state: what networks keep beside parameters, such as batch statistics.
      opt_state: the optimizer's state.
    """

    step: jax.Array
    params: ArrayTree
    slow: ArrayTree
    model_state: ArrayTree
    opt_state: optax.OptState


class Learner(NamedTuple):
    """Four pure functions; see the head of this module for their signatures."""

    prepare: Callable[..., Any]
    draw: Callable[..., Any]
    init: Callable[..., TrainState]
    update: Callable[..., tuple[TrainState, Metrics]]


class Averaging(NamedTuple):
    """How parameters are averaged; see `ema`.

    Attributes:
      decay: as in `ema`.
      every: likewise.
      start: likewise.
      part: the entry of the parameters that is averaged; None for all of them.
    """

    decay: float
    every: int = 1
    start: int = 0
    part: str | None = None


def supervised(
    prepare: Callable[..., Any],
    draw: Callable[..., Any],
    init_params: Callable[..., ArrayTree],
    losses: Sequence[Callable[..., tuple[jax.Array, Metrics]]],
    optimizer: optax.GradientTransformation,
    *,
    averaging: Averaging,
    accumulate: int = 1,
) -> Learner:
    """Build the learner that descends a loss and averages its parameters.

    Args:
      prepare: as in a `Learner`.
      draw: as in a `Learner`.
      init_params: `(key, batch) -> params`.
      losses: `(params, keys, batch) -> (mean loss, metrics)`; of several, each update
        descends the next.
      optimizer: of the parameters.
      averaging: of the averaged parameters, which are `slow["ema"]`.
      accumulate: slices in which a batch is worked through, see `accumulated`.
    """
    gradients = [
        accumulated(jax.grad(loss, has_aux=True), accumulate) for loss in losses
    ]

    def gradient(state, keys, batch, frozen, hyper):
        del frozen, hyper
        # The switch stands around the gradients: one inside the loss would keep what
        # each of its branches needs for the way back.
        turn = state.step % len(gradients)
        return jax.lax.switch(turn, gradients, state.params, keys, batch)

    return descent(
        prepare, draw, init_params, gradient, optimizer, averages={"ema": averaging}
    )


def descent(
    prepare: Callable[..., Any],
    draw: Callable[..., Any],
    init_params: Callable[..., ArrayTree],
    gradient: Callable[..., tuple[ArrayTree, Metrics]],
    optimizer: optax.GradientTransformation,
    *,
    averages: Mapping[str, Averaging] | None = None,
) -> Learner:
    """Build the learner that follows a gradient, of a loss or of no one loss.

    Args:
      prepare: as in a `Learner`.
      draw: as in a `Learner`.
      init_params: `(key, batch) -> params`.
      gradient: `(state, keys, batch, frozen, hyper) -> (gradient of params, metrics)`,
        a mean over the batch; devices are averaged here.
      optimizer: of the parameters.
      averages: name in `slow` -> how that copy of the parameters is averaged.
    """
    averages = dict(averages or {})

    def part(params, averaging):
        return params if averaging.part is None else params[averaging.part]

    def init(key, batch, frozen):
        del frozen
        params = init_params(key, batch)
        return TrainState(
            step=jnp.int32(0),
            params=params,
            slow={name: part(params, each) for name, each in averages.items()},
            model_state={},
            opt_state=optimizer.init(params),
        )

    def update(state, keys, batch, frozen, hyper, axis_name=None):
        found = gradient(state, keys, batch, frozen, hyper)
        grads, metrics = pmean(found, axis_name)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        step = state.step + 1
        slow = {
            name: ema(
                state.slow[name],
                part(params, each),
                step,
                decay=each.decay,
                every=each.every,
                start=each.start,
            )
            for name, each in averages.items()
        }
        state = dataclasses.replace(
            state, step=step, params=params, slow=slow, opt_state=opt_state
        )
        return state, metrics

    return Learner(prepare, draw, init, update)


def over_devices(build: Callable[[str | None], Learner]) -> Learner:
    """Build a learner whose updates compute with the axis that a batch is split over.

    Args:
      build: `axis_name -> Learner`; None is a batch that is not split.
    """

    def update(state, keys, batch, frozen, hyper, axis_name=None):
        learner = build(axis_name)
        return learner.update(state, keys, batch, frozen, hyper, axis_name)

    return build(None)._replace(update=update)


@pytree_dataclass
class ActOutput:
    """What an agent does now.

    Attributes:
      action: `[B, A]`, environment units.
      plan: the plan being followed, `[B, H, A + O]` in environment units, or None for
        an algorithm that does not plan.
      planned: `[B]` bool, True where the plan was made by this call.
    """

    action: jax.Array
    plan: jax.Array | None = None
    planned: jax.Array | None = None


class Algorithm(NamedTuple):
    """Learners by name, in the order in which they train, and the acting pair.

    Attributes:
      learners: name -> `Learner`.
      act: `(states, carry, key, observation [B, O], reset [B], goal=None) ->
        (ActOutput, carry)`, in environment units; `states` maps learner names to
        `TrainState`, `carry` is what acting remembers (history, the last plan).
      init_carry: `(batch_size) -> carry`.
      plan: for planners, `(states, key, observation [B, O], goal=None, *, horizon=None,
        candidates=None, return_path=False)` -> candidate plans in environment units;
        None for policies.
    """

    learners: Mapping[str, Learner]
    act: Callable[..., tuple[ActOutput, Any]]
    init_carry: Callable[[int], Any]
    plan: Callable[..., Any] | None = None


def pmean(tree: Any, axis_name: str | None) -> Any:
    """Average over devices, or return `tree` where there is only one program."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def accumulated(grad_fn: Callable[..., Any], parts: int) -> Callable[..., Any]:
    """Average `grad_fn(params, keys, batch)` over `parts` slices of the batch.

    The result is the gradient of the whole batch; only memory differs.
    """
    if parts == 1:
        return grad_fn

    def sliced(params, keys, batch):
        if len(keys) % parts:
            raise UserError(
                f"a batch of {len(keys)} examples on a device does not divide into "
                f"{parts} slices; choose an --accumulate that divides it"
            )
        split = jax.tree.map(
            lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), (keys, batch)
        )
        _, outputs = jax.lax.scan(
            lambda _, part: (None, grad_fn(params, *part)), None, split
        )
        return jax.tree.map(lambda x: x.mean(0), outputs)

    return sliced


def decaying(learning_rate: float, updates: int) -> optax.ScalarOrSchedule:
    """Let a learning rate fall to 0 along a cosine in so many updates; 0: never."""
    if not updates:
        return learning_rate
    return optax.cosine_decay_schedule(learning_rate, updates)


def ema(
    slow: ArrayTree,
    params: ArrayTree,
    step: jax.Array,
    *,
    decay: float,
    every: int = 1,
    start: int = 0,
) -> ArrayTree:
    """Move averaged parameters: a copy before `start`, then an average.

    Args:
      slow: the averaged parameters.
      params: the parameters after update number `step`.
      step: updates made, this one included, `[]`.
      decay: weight of the old average each time it moves.
      every: updates between two moves of the average (Diffuser: 10).
      start: until this update the average is a plain copy (Diffuser: 2000).
    """
    rate = jnp.where(step % every == 0, 1.0 - decay, 0.0)
    rate = jnp.where(step <= start, 1.0, rate)
    return optax.incremental_update(params, slow, rate)
