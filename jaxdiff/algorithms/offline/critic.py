"""The critic of implicit Q-learning: the best of what the data did, never asked more.

With an expectile tau, two critics Q_i, slow copies of them (targets) and a value V,

(1) min_V E L_tau(min_i Qtarget_i(s, a) - V(s)),   L_tau(u) = |tau - 1(u < 0)| u^2
(2) min_Q E (r + discount (1 - terminal) V(s') - Q_i(s, a))^2, a mean over i
(3) Qtarget <- Qtarget + rate (Q - Qtarget)

(Kostrikov et al., 2021, arXiv:2110.06169.) As tau nears 1, V nears the value of the
best action that the data hold, so (2) is Q-learning that asks for no other actions. All
three are one update: (2) reads the V that (1) is about to change, as SRPO's code does.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import ArrayTree, Averaging, Learner, descent
from jaxdiff.algorithms.offline.common import zeros
from jaxdiff.data.transitions import Transitions, draw_transition
from jaxdiff.errors import UserError
from jaxdiff.networks import TwinQ, Value


def check_expectile(expectile: float) -> None:
    """Check an option.

    Raises:
      UserError: it does not lie between 0 and 1.
    """
    if not 0 < expectile < 1:
        raise UserError(f"--expectile is {expectile}; it must lie between 0 and 1")


def expectile_loss(error: jax.Array, expectile: Any) -> jax.Array:
    """L_tau of equation (1), elementwise; tau = 1/2 is half the square."""
    return jnp.abs(expectile - (error < 0)) * error**2


def critic_of(
    config: Any, prepare: Callable[..., Transitions]
) -> tuple[Any, Any, Learner]:
    """Build Q and V of options, and their learner.

    Args:
      config: options of an `OfflineConfig`, and `expectile`.
      prepare: as in a `Learner`.

    Returns:
      Q, V and the learner "critic".
    """
    q: Any = TwinQ(config.widths, config.layer_norm)
    v: Any = Value(config.widths, config.layer_norm)
    learner = critic_learner(
        q,
        v,
        prepare,
        optax.adam(config.learning_rate),
        expectile=config.expectile,
        discount=config.discount,
        target_rate=config.target_rate,
    )
    return q, v, learner


def critic_learner(
    q: Any,
    v: Any,
    prepare: Callable[..., Transitions],
    optimizer: optax.GradientTransformation,
    *,
    expectile: float,
    discount: float,
    target_rate: float,
) -> Learner:
    """Build the learner of equations (1) to (3).

    Its parameters are `{"q", "v"}` and the targets `slow["target"]`. `hyper` may hold
    an "expectile" to take the place of the one given.

    Args:
      q: `(inputs [B, S], actions [B, A]) -> [2, B]`, such as `TwinQ`.
      v: `inputs [B, S] -> [B]`, such as `Value`.
      prepare: as in a `Learner`.
      optimizer: of both.
      expectile: tau.
      discount: of a reward relative to the one a step earlier.
      target_rate: rate of equation (3).
    """

    def init_params(key, batch):
        inputs, actions = zeros(batch)
        q_key, v_key = jax.random.split(key)
        return {"q": q.init(q_key, inputs, actions), "v": v.init(v_key, inputs)}

    def loss(params, target, batch, tau):
        best = q.apply(target, batch.inputs, batch.actions).min(0)
        value = v.apply(params["v"], batch.inputs)
        value_loss = expectile_loss(best - value, tau).mean()
        ahead = jax.lax.stop_gradient(v.apply(params["v"], batch.next_inputs))
        wanted = batch.rewards + discount * jnp.where(batch.terminals, 0.0, ahead)
        found = q.apply(params["q"], batch.inputs, batch.actions)
        q_loss = ((found - wanted) ** 2).mean()
        metrics = {
            "loss": value_loss + q_loss,
            "value_loss": value_loss,
            "q_loss": q_loss,
            "value": value.mean(),
        }
        return value_loss + q_loss, metrics

    def gradient(state, keys, batch, frozen, hyper):
        del keys, frozen
        tau = hyper.get("expectile", expectile)
        return jax.grad(loss, has_aux=True)(
            state.params, state.slow["target"], batch, tau
        )

    return descent(
        prepare,
        draw_transition,
        init_params,
        gradient,
        optimizer,
        averages={"target": Averaging(1 - target_rate, part="q")},
    )


def q_gradient(
    q: Any, target: ArrayTree, inputs: jax.Array, actions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Find the mean of both targets at actions, and its gradient.

    Args:
      q: as in `critic_learner`.
      target: parameters.
      inputs: `[B, S]`.
      actions: `[B, A]`.

    Returns:
      values `[B]` and gradients by the actions `[B, A]`.
    """

    def total(actions):
        values = q.apply(target, inputs, actions).mean(0)
        return values.sum(), values

    gradient, values = jax.grad(total, has_aux=True)(actions)
    return values, gradient
