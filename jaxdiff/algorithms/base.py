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
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from jaxdiff.data.episodes import Dataset
from jaxdiff.data.spec import Spec
from jaxdiff.errors import UserError
from jaxdiff.options import Options, at_least
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
      opt_state: the optimizer's state.
    """

    step: jax.Array
    params: ArrayTree
    slow: ArrayTree
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
      decay: weight of the old average each time it moves.
      every: updates between two moves of the average.
      start: the average is a plain copy until this update.
      part: name of the parameters to average; None averages all of them.
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
    learning_rate_decay: float = 0.0,
) -> Learner:
    """Build the learner that descends a loss and averages its parameters.

    Args:
      prepare: as in a `Learner`.
      draw: as in a `Learner`.
      init_params: `(key, batch) -> params`.
      losses: functions `(params, keys, batch) -> (mean loss, metrics)`. Updates take
        turns among them.
      optimizer: moves the parameters.
      averaging: how `slow["ema"]` follows the parameters.
      accumulate: number of slices that a batch is split into, see `accumulated`.
      learning_rate_decay: as in `descent`.
    """
    gradients = [
        accumulated(jax.grad(loss, has_aux=True), accumulate) for loss in losses
    ]

    def gradient(state, keys, batch, frozen, hyper):
        del frozen, hyper
        # The switch stands around the gradients. Inside the loss it would keep what
        # the backward pass of every branch needs.
        turn = state.step % len(gradients)
        return jax.lax.switch(turn, gradients, state.params, keys, batch)

    return descent(
        prepare,
        draw,
        init_params,
        gradient,
        optimizer,
        averages={"ema": averaging},
        learning_rate_decay=learning_rate_decay,
    )


def descent(
    prepare: Callable[..., Any],
    draw: Callable[..., Any],
    init_params: Callable[..., ArrayTree],
    gradient: Callable[..., tuple[ArrayTree, Metrics]],
    optimizer: optax.GradientTransformation,
    *,
    averages: Mapping[str, Averaging] | None = None,
    learning_rate_decay: float = 0.0,
    undecayed: Sequence[str] = (),
) -> Learner:
    """Build the learner that follows a gradient, which need not be that of one loss.

    Args:
      prepare: as in a `Learner`.
      draw: as in a `Learner`.
      init_params: `(key, batch) -> params`.
      gradient: `(state, keys, batch, frozen, hyper) -> (gradient of params, metrics)`,
        a mean over the batch; devices are averaged here.
      optimizer: of the parameters.
      averages: name in `slow` -> how that copy of the parameters is averaged.
      learning_rate_decay: share of the updates over which the learning rate falls to 0
        along a cosine; 0 keeps it. Updates then read `hyper["num_steps"]`, the number
        of updates of the whole training, which `train_learners` passes.
      undecayed: entries of the parameters whose updates the decay leaves alone, such as
        running averages.
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
            opt_state=optimizer.init(params),
        )

    def update(state, keys, batch, frozen, hyper, axis_name=None):
        found = gradient(state, keys, batch, frozen, hyper)
        grads, metrics = pmean(found, axis_name)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        if learning_rate_decay:
            # Optimizers are linear in their rate, so their updates may be scaled.
            over = learning_rate_decay * hyper["num_steps"]
            factor = cosine_decay(state.step, over)
            slower: Any = jax.tree.map(lambda update: factor * update, updates)
            whole: Any = updates
            for name in undecayed:
                slower = {**slower, name: whole[name]}
            updates = slower
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
      act: `(states, carry, keys [B], observation [B, O], reset [B], goal=None,
        guidance=None) -> (ActOutput, carry)`, in environment units. `states` maps
        learner names to `TrainState`; `carry` is what acting remembers, such as a
        history or the plan being followed. Each environment has a key of its own, so
        that its noise does not depend on how many act side by side. `guidance` is a
        tree of arrays that takes the place of acting options; None for those options.
      init_carry: `(batch_size) -> carry`; by default acting remembers nothing.
      plan: for planners, `(states, keys [B], problem, *, horizon=None, candidates=None,
        return_path=False) -> Plans`, see `jaxdiff.algorithms.planning.planner`; None
        for policies.
      follow: `act` where nothing needs to be planned, a fast program of its own. It
        takes the same arguments and also returns `[]` bool: whether that was so. If
        not, its result is to be dropped and `act` called. None if `act` is fast.
    """

    learners: Mapping[str, Learner]
    act: Callable[..., tuple[ActOutput, Any]]
    init_carry: Callable[[int], Any] = lambda batch_size: ()
    plan: Callable[..., Any] | None = None
    follow: Callable[..., tuple[ActOutput, Any, jax.Array]] | None = None


@dataclasses.dataclass(frozen=True)
class TrainConfig(Options):
    """How one learner is trained.

    Attributes:
      num_steps: number of updates.
      batch_size: examples in an update, over all devices.
      log_every: updates between two lines of metrics.
      save_every: updates between two checkpoints.
      eval_every: updates between two evaluations; 0 for none.
      keep: newest checkpoints to keep, beside the best one.
    """

    num_steps: int = 100_000
    batch_size: int = 32
    log_every: int = 50
    save_every: int = 1_000
    eval_every: int = 0
    keep: int = 2

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        counts = ("num_steps", "batch_size", "log_every", "save_every", "keep")
        yield from at_least(self, 1, *counts)
        yield from at_least(self, 0, "eval_every")


class Preset(NamedTuple):
    """Options to start from.

    Attributes:
      config: options that training reads.
      acting: options that may change after training.
      training: name of a learner -> how it is trained. It may name learners that
        other options would add.
      name: what announcements call it.
    """

    config: Any
    acting: Any
    training: Mapping[str, TrainConfig]
    name: str = "of your own"


class Entry(NamedTuple):
    """An algorithm, as a run and the command line know it.

    Attributes:
      name: what commands call it, such as "diffusion-bc".
      summary: one line for the list of commands.
      config: class of the options that training reads, a frozen dataclass.
      acting: class of the options that may change after training.
      statistics: class of what it measures on a dataset, a `pytree_dataclass`.
      measure: `(config, episodes, spec) -> statistics`.
      build: `(config, acting, statistics, spec) -> Algorithm`; refuses options that do
        not fit each other or the data with a `UserError`.
      generic: `(dataset, spec) -> Preset` for data that no task has presets for.
    """

    name: str
    summary: str
    config: type
    acting: type
    statistics: type
    measure: Callable[..., Any]
    build: Callable[..., Algorithm]
    generic: Callable[[Dataset, Spec], Preset]


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
                f"{parts} slices; choose an `accumulate` that divides it"
            )
        split = jax.tree.map(
            lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), (keys, batch)
        )
        _, outputs = jax.lax.scan(
            lambda _, part: (None, grad_fn(params, *part)), None, split
        )
        return jax.tree.map(lambda x: x.mean(0), outputs)

    return sliced


def cosine_decay(step: Any, over: Any) -> jax.Array:
    """Return the factor of a learning rate that falls from 1 to 0 along a cosine.

    Args:
      step: updates made before this one.
      over: updates after which it is 0.
    """
    share = jnp.minimum(step / over, 1.0)
    return 0.5 * (1 + jnp.cos(jnp.pi * share))


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


def by_part(
    optimizers: Mapping[str, optax.GradientTransformation],
) -> optax.GradientTransformation:
    """Optimize each entry of the parameters by an optimizer of its own."""

    def init(params):
        return {name: each.init(params[name]) for name, each in optimizers.items()}

    def update(updates, state, params=None):
        pairs = {
            name: each.update(updates[name], state[name], params and params[name])
            for name, each in optimizers.items()
        }
        moves = {name: pair[0] for name, pair in pairs.items()}
        return moves, {name: pair[1] for name, pair in pairs.items()}

    return optax.GradientTransformation(init, update)
