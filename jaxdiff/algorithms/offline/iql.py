"""IQL: implicit Q-learning, and a policy by advantage-weighted regression.

When the critic (`jaxdiff.algorithms.offline.critic`) has finished, the policy pi copies the
actions of the data, the better ones more eagerly:

(1) max_pi E w(s, a) log pi(a | s),
    w = min(exp(temperature (min_i Qtarget_i(s, a) - V(s))), max_weight)

(Kostrikov et al., 2021, arXiv:2110.06169, equation 7.) It never asks for the value of
an action that the data do not hold, and a policy of one peak covers all that is weighed
in: between two good actions it may choose their mean. The authors train policy and
critic side by side; one after the other, all weights are those of the finished critic.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm, Learner, decaying, descent
from jaxdiff.algorithms.offline.common import (
    OfflineConfig,
    Statistics,
    acting,
    preparing,
    zeros,
)
from jaxdiff.algorithms.offline.critic import check_expectile, critic_of
from jaxdiff.data.transitions import Transitions, draw_transition
from jaxdiff.networks import Actor
from jaxdiff.options import check_options


@dataclasses.dataclass(frozen=True)
class IQLConfig(OfflineConfig):
    """Options of IQL, beside those of data and critic.

    Attributes:
      actor: a Gaussian whose spread is learned, or one of a fixed spread, which is a
        regression of actions ("dirac").
      temperature: of the weights, the greedier the higher; 0 clones behaviour.
      max_weight: of an action.
      expectile: of the values among those of the actions in the data: 0.5 is their
        mean, near 1 the best of them.
      policy_decay: updates over which the policy's learning rate falls to zero along a
        cosine; 0 keeps it.
    """

    actor: Literal["gaussian", "dirac"] = "gaussian"
    temperature: float = 3.0
    max_weight: float = 100.0
    expectile: float = 0.7
    policy_decay: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self, temperature=0, max_weight=0, policy_decay=0)
        check_expectile(self.expectile)


def iql(config: IQLConfig, statistics: Statistics, *, action_dim: int) -> Algorithm:
    """Build IQL for a dataset.

    Args:
      config: options.
      statistics: of the dataset, from `jaxdiff.algorithms.offline.common.measure`.
      action_dim: A.

    Returns:
      An algorithm with the learners "critic" and "policy".
    """
    actor: Any = Actor(action_dim, config.widths, config.actor == "gaussian")
    prepare = preparing(config, statistics)
    q, v, critic = critic_of(config, prepare)
    return Algorithm(
        learners={
            "critic": critic,
            "policy": weighted_learner(
                actor,
                q,
                v,
                prepare,
                optax.adam(decaying(config.learning_rate, config.policy_decay)),
                temperature=config.temperature,
                max_weight=config.max_weight,
            ),
        },
        act=acting(actor, statistics),
        init_carry=lambda batch: (),
    )


def weighted_learner(
    actor: Any,
    q: Any,
    v: Any,
    prepare: Callable[..., Transitions],
    optimizer: optax.GradientTransformation,
    *,
    temperature: float,
    max_weight: float,
) -> Learner:
    """Build the learner of equation (1), after a learner "critic".

    `hyper` may hold a "temperature" to take the place of the one given.

    Args:
      actor: `inputs [B, S] -> (mean [B, A], standard deviation [A] or None)`.
      q: of the critic.
      v: likewise.
      prepare: as in a `Learner`.
      optimizer: of the actor.
      temperature: of the weights.
      max_weight: bound of the weights.
    """

    def gradient(state, keys, batch, frozen, hyper):
        del keys
        critic = frozen["critic"]
        best = q.apply(critic.slow["target"], batch.inputs, batch.actions).min(0)
        advantage = best - v.apply(critic.params["v"], batch.inputs)
        scaled = hyper.get("temperature", temperature) * advantage
        weights = jnp.minimum(jnp.exp(scaled), max_weight)

        def weighted(params):
            mean, std = actor.apply(params, batch.inputs)
            likely = log_likelihood(mean, std, batch.actions)
            loss = -(weights * likely).mean()
            metrics = {
                "loss": loss,
                "weight": weights.mean(),
                "advantage": advantage.mean(),
            }
            return loss, metrics

        return jax.grad(weighted, has_aux=True)(state.params)

    return descent(
        prepare,
        draw_transition,
        lambda key, batch: actor.init(key, zeros(batch)[0]),
        gradient,
        optimizer,
    )


def log_likelihood(
    mean: jax.Array, std: jax.Array | None, actions: jax.Array
) -> jax.Array:
    """The logarithm of a Gaussian's density, `[B]`.

    Without a standard deviation it is minus the squared distance: that of a variance of
    1/2, but for a constant.
    """
    if std is None:
        return -((actions - mean) ** 2).sum(-1)
    each = -(((actions - mean) / std) ** 2) / 2 - jnp.log(std) - jnp.log(2 * jnp.pi) / 2
    return each.sum(-1)
