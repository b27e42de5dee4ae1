"""The critic of implicit Q-learning, which asks only for actions of the data.

With an expectile tau, two critics Q_i, slow copies of them (targets) and a value V,

(1) min_V E L_tau(min_i Qtarget_i(s, a) - V(s)),   L_tau(u) = |tau - 1(u < 0)| u^2
(2) min_Q E (r + discount (1 - terminal) V(s') - Q_i(s, a))^2, averaged over i
(3) Qtarget <- Qtarget + rate (Q - Qtarget)

(Kostrikov et al., 2021, arXiv:2110.06169.) As tau approaches 1, V approaches the value
of the best action in the data, and (2) becomes Q-learning restricted to such actions.
One update does all three: (2) reads V as it was before (1) changes it, as in the
released code of SRPO.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import ArrayTree, Averaging, Learner, descent
from jaxdiff.algorithms.offline.common import OfflineConfig, zeros
from jaxdiff.data.transitions import Transitions, draw_transition
from jaxdiff.networks import TwinQ, Value
from jaxdiff.options import above, below


@dataclasses.dataclass(frozen=True)
class CriticConfig(OfflineConfig):
    """Options of an implicit critic.

    Attributes:
      expectile: expectile of the values of the data's actions that V estimates: 0.5 is
        their mean, and near 1 is the best.
    """

    expectile: float = 0.7

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from above(self, 0, "expectile")
        yield from below(self, 1, "expectile")


def expectile_loss(error: jax.Array, expectile: Any) -> jax.Array:
    """L_tau of equation (1), elementwise; tau = 1/2 is half the square."""
    return jnp.abs(expectile - (error < 0)) * error**2


def critic_of(
    config: CriticConfig, prepare: Callable[..., Transitions]
) -> tuple[Any, Any, Learner]:
    """Build Q, V and their learner from options.

    Args:
      config: options.
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

    Its parameters are `{"q", "v"}`; the targets are `slow["target"]`. An "expectile" in
    `hyper` replaces the argument.

    Args:
      q: `(inputs [B, S], actions [B, A]) -> [2, B]`, such as `TwinQ`.
      v: `inputs [B, S] -> [B]`, such as `Value`.
      prepare: as in a `Learner`.
      optimizer: of the parameters of Q and V.
      expectile: tau.
      discount: weight of a reward relative to a reward one step earlier.
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
    """Evaluate the mean of both targets at actions, and its gradient.

    Args:
      q: as in `critic_learner`.
      target: parameters of the targets.
      inputs: `[B, S]`.
      actions: `[B, A]`.

    Returns:
      Values `[B]`, and their gradients with respect to the actions `[B, A]`.
    """

    def total(actions):
        values = q.apply(target, inputs, actions).mean(0)
        return values.sum(), values

    gradient, values = jax.grad(total, has_aux=True)(actions)
    return values, gradient
