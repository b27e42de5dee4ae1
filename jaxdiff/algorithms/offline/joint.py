"""Parts of a learner that train side by side, each on a loss of its own.

An actor and its critics are parameters `{"actor": ..., "q": ...}` of one learner. In an
update every part descends its own loss in its own parameters. All parts move at once,
so each loss sees the other parts as they were before the update. Averaged copies, such
as target critics, move afterwards.
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
    by_part,
    descent,
    over_devices,
    pmean,
)
from jaxdiff.data.transitions import Transitions, draw_transition


class Context(NamedTuple):
    """What a loss reads beside the parameters that it moves.

    Attributes:
      step: updates made so far, `[]`.
      params: all parameters by part, as they were before the update.
      slow: averaged copies by name.
      keys: `[B]`, one for each example; each part has other ones.
      batch: transitions, leaves `[B, ...]`.
      frozen: states of the learners that have finished.
      hyper: see `Learner`.
      mean: averages an array over the batch, over all devices.
    """

    step: jax.Array
    params: ArrayTree
    slow: ArrayTree
    keys: jax.Array
    batch: Any
    frozen: Mapping[str, Any]
    hyper: Mapping[str, Any]
    mean: Callable[[jax.Array], jax.Array]


Loss = Callable[[ArrayTree, Context], tuple[jax.Array, Metrics]]


def joint_learner(
    prepare: Callable[..., Any],
    init_params: Callable[..., dict[str, ArrayTree]],
    losses: Mapping[str, Loss],
    optimizers: Mapping[str, optax.GradientTransformation],
    *,
    averages: Mapping[str, Averaging],
    learning_rate_decay: float = 0.0,
) -> Learner:
    """Build the learner of several parts.

    Args:
      prepare: as in a `Learner`; returns transitions.
      init_params: `(key, batch) -> parameters by part`.
      losses: part -> `(its parameters, context) -> (mean loss, metrics)`.
      optimizers: by part.
      averages: as in `descent`, each of one part.
      learning_rate_decay: as in `descent`, of all parts.
    """

    def gradient(axis_name, state, keys, batch, frozen, hyper):
        grads, metrics = {}, {}
        for i, (name, loss) in enumerate(losses.items()):
            context = Context(
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
                state.params[name], context
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
            learning_rate_decay=learning_rate_decay,
        )

    return over_devices(learner)


def bellman_error(
    q: Any, params: ArrayTree, batch: Transitions, ahead: jax.Array, discount: float
) -> tuple[jax.Array, jax.Array]:
    """Compare critics with the reward plus the discounted value of the next state.

    Args:
      q: `(inputs [B, S], actions [B, A]) -> [2, B]`.
      params: of the critics.
      batch: B transitions.
      ahead: `[B]`, values of the next states; no gradient flows through them.
      discount: weight of `ahead`.

    Returns:
      The squared error and the value that the critics found, averaged over critics and
      batch.
    """
    ahead = jax.lax.stop_gradient(jnp.where(batch.terminals, 0.0, ahead))
    found = q.apply(params, batch.inputs, batch.actions)
    return ((found - batch.rewards - discount * ahead) ** 2).mean(), found.mean()
