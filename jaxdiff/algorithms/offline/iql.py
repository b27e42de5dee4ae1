"""IQL: implicit Q-learning, and a policy by advantage-weighted regression.

After the critic (`jaxdiff.algorithms.offline.critic`) has trained, the policy pi copies
the actions of the data, with a larger weight on better actions:

(1) max_pi E w(s, a) log pi(a | s),
    w = min(exp(temperature (min_i Qtarget_i(s, a) - V(s))), max_weight)

(Kostrikov et al., 2021, arXiv:2110.06169, equation 7.) IQL never evaluates an action
that the data do not hold. A Gaussian policy has one peak: between two good actions it
may choose their mean. The authors train policy and critic side by side; here the critic
trains first, so that all weights come from the final critic.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm, Learner, descent
from jaxdiff.algorithms.offline.common import (
    Statistics,
    act_by_mean,
    make_prepare,
    offline_entry,
    zeros,
)
from jaxdiff.algorithms.offline.critic import CriticConfig, critic_of
from jaxdiff.data.spec import Spec
from jaxdiff.data.transitions import Transitions, draw_transition
from jaxdiff.networks import Actor
from jaxdiff.options import Options, at_least, at_most


@dataclasses.dataclass(frozen=True)
class IQLConfig(CriticConfig):
    """Options of IQL, beside those of data and critics.

    Attributes:
      actor: "gaussian" learns the spread of the policy; "dirac" keeps it fixed and
        regresses on actions.
      temperature: factor of advantages in the weights of actions; higher is greedier,
        and 0 clones the behaviour.
      max_weight: largest weight of an action.
      policy_decay: share of the updates over which the policy's learning rate falls to
        0 along a cosine; 0 keeps it.
    """

    actor: Literal["gaussian", "dirac"] = "gaussian"
    temperature: float = 3.0
    max_weight: float = 100.0
    policy_decay: float = 0.0

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 0, "temperature", "max_weight", "policy_decay")
        yield from at_most(self, 1, "policy_decay")


def iql(
    config: IQLConfig, acting: Options, statistics: Statistics, spec: Spec
) -> Algorithm:
    """Build IQL, with the learners "critic" and "policy"."""
    del acting
    actor: Any = Actor(spec.action_dim, config.widths, config.actor == "gaussian")
    prepare = make_prepare(config, statistics)
    q, v, critic = critic_of(config, prepare)
    return Algorithm(
        learners={
            "critic": critic,
            "policy": weighted_learner(
                actor,
                q,
                v,
                prepare,
                optax.adam(config.learning_rate),
                temperature=config.temperature,
                max_weight=config.max_weight,
                learning_rate_decay=config.policy_decay,
            ),
        },
        act=act_by_mean(actor, statistics),
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
    learning_rate_decay: float = 0.0,
) -> Learner:
    """Build the learner of equation (1), which reads the learner "critic".

    A "temperature" in `hyper` replaces the argument.

    Args:
      actor: `inputs [B, S] -> (mean [B, A], standard deviation [A] or None)`.
      q: network of the critics.
      v: network of the value.
      prepare: as in a `Learner`.
      optimizer: of the actor.
      temperature: factor of advantages.
      max_weight: largest weight.
      learning_rate_decay: as in `descent`.
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
        learning_rate_decay=learning_rate_decay,
    )


def log_likelihood(
    mean: jax.Array, std: jax.Array | None, actions: jax.Array
) -> jax.Array:
    """Return the log density `[B]` of a Gaussian.

    Without a standard deviation it is minus the squared distance, which is the log
    density of a variance of 1/2 up to a constant.
    """
    if std is None:
        return -((actions - mean) ** 2).sum(-1)
    each = -(((actions - mean) / std) ** 2) / 2 - jnp.log(std) - jnp.log(2 * jnp.pi) / 2
    return each.sum(-1)


ENTRY = offline_entry(
    name="iql",
    summary="implicit Q-learning with advantage-weighted regression",
    config=IQLConfig,
    build=iql,
    learners=("critic", "policy"),
    laptop={"policy_decay": 1.0},
)
