"""Several parts that train side by side, each descending a loss of its own.

An actor and its critics are parameters `{"actor": ..., "q": ...}` of one learner. In an
update every part goes down the gradient of its own loss in its own parameters, all at
once: each sees the others as they were before. Averaged copies, such as target critics,
follow after that.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import (
    ArrayTree,
    Averaging,
    Learner,
    Metrics,
    descent,
    over_devices,
    pmean,
)
from jaxdiff.data.transitions import Transitions, draw_transition


class Seen(NamedTuple):
    """What a loss may look at, beside the parameters that are its own.

    Attributes:
      step: updates made so far, `[]`.
      params: all parameters by part, as they were before the update.
      slow: averaged copies by name.
      keys: `[B]`, one an example, other ones for each part.
      batch: transitions, leaves `[B, ...]`.
      frozen: states of the learners that have finished.
      hyper: see `Learner`.
      mean: averages an array over the batch, also where that is split over devices.
    """

    step: jax.Array
    params: ArrayTree
    slow: ArrayTree
    keys: jax.Array
    batch: Any
    frozen: Mapping[str, Any]
    hyper: Mapping[str, Any]
    mean: Callable[[jax.Array], jax.Array]


Loss = Callable[[ArrayTree, Seen], tuple[jax.Array, Metrics]]


def joint_learner(
    prepare: Callable[..., Any],
    init_params: Callable[..., dict[str, ArrayTree]],
    losses: Mapping[str, Loss],
    optimizers: Mapping[str, optax.GradientTransformation],
    *,
    averages: Mapping[str, Averaging],
) -> Learner:
    """Build the learner of several parts.

    Args:
      prepare: as in a `Learner`; gives transitions.
      init_params: `(key, batch) -> parameters by part`.
      losses: part -> `(its parameters, seen) -> (mean loss, metrics)`.
      optimizers: by part.
      averages: as in `descent`; each of one part.
    """

    def gradient(axis_name, state, keys, batch, frozen, hyper):
        grads, metrics = {}, {}
        for i, (name, loss) in enumerate(losses.items()):
            seen = Seen(
                step=state.step,
                params=state.params,
                slow=state.slow,
                keys=jax.vmap(jax.random.fold_in, (0, None))(keys, i),
                batch=batch,
                frozen=frozen,
                hyper=hyper,
                mean=lambda x: pmean(x.mean(), axis_name),
            )
            (value, more), grads[name] = jax.value_and_grad(loss, has_aux=True)(
                state.params[name], seen
            )
            metrics |= {f"{name}_loss": value, **more}
        total = sum(metrics[f"{name}_loss"] for name in losses)
        return grads, {"loss": total, **metrics}

    def learner(axis_name: str | None) -> Learner:
        return descent(
            prepare,
            draw_transition,
            init_params,
            functools.partial(gradient, axis_name),
            by_part(optimizers),
            averages=averages,
        )

    return over_devices(learner)


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


def bellman_error(
    q: Any, params: ArrayTree, batch: Transitions, ahead: jax.Array, discount: float
) -> tuple[jax.Array, jax.Array]:
    """Score critics against the reward and what lies ahead.

    Args:
      q: `(inputs [B, S], actions [B, A]) -> [2, B]`.
      params: of it.
      batch: B transitions.
      ahead: `[B]`, value of the next states; nothing is differentiated through it.
      discount: of it.

    Returns:
      squared errors, a mean over critics and batch, and the mean value found.
    """
    ahead = jax.lax.stop_gradient(jnp.where(batch.terminals, 0.0, ahead))
    found = q.apply(params, batch.inputs, batch.actions)
    return ((found - batch.rewards - discount * ahead) ** 2).mean(), found.mean()
