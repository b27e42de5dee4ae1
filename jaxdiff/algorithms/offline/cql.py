"""CQL: critics with a penalty on the values of actions that the data do not hold.

Soft actor-critic whose critics are penalised if the soft maximum of Q over all actions
is larger than Q at the action of the data,

(1) min_Q E (r + discount (1 - terminal) min_i Qtarget_i(s', a') - Q_i(s, a))^2
        + penalty E [log integral exp Q_i(s, b) db - Q_i(s, a)],   a' ~ pi(.|s')
(2) the integral by importance sampling: the mean of exp(Q_i(s, b_j)) / p(b_j) over
    actions b_j drawn uniformly, from pi(.|s) and from pi(.|s')
(3) min_pi E [w log pi(b|s) - min_i Q_i(s, b)],   b ~ pi(.|s)
(4) min_w log w E [-log pi(b|s) - entropy],   entropy = -A, the target entropy

(Kumar et al., 2020, arXiv:2006.04779, equation 4, "CQL(H)".) In the first updates the
policy clones the behaviour: the log density of the data's action replaces Q in (3). The
variant with a Lagrange multiplier on the penalty is not implemented.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm, Averaging, Learner
from jaxdiff.algorithms.offline import squashed
from jaxdiff.algorithms.offline.common import (
    OfflineConfig,
    Statistics,
    act_by_mean,
    make_prepare,
    offline_entry,
    zeros,
)
from jaxdiff.algorithms.offline.joint import Context, bellman_error, joint_learner
from jaxdiff.data.spec import Spec
from jaxdiff.data.transitions import Transitions
from jaxdiff.diffusion import normal, split_keys
from jaxdiff.networks import SquashedActor, TwinQ
from jaxdiff.options import Options, at_least


@dataclasses.dataclass(frozen=True)
class CQLConfig(OfflineConfig):
    """Options of CQL, beside those of data and critics.

    Attributes:
      penalty: weight of the penalty on critics; higher is more cautious.
      penalty_actions: actions drawn for the penalty from each of three sources: the
        uniform distribution, and the policy in the state and in the next state.
      policy_rate: step size of Adam for the policy and the weight of its entropy.
      warm_up: updates in which the policy clones the behaviour.
    """

    penalty: float = 5.0
    penalty_actions: int = 10
    policy_rate: float = 1e-4
    warm_up: int = 0

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 0, "penalty", "policy_rate", "warm_up")
        yield from at_least(self, 1, "penalty_actions")


def cql(
    config: CQLConfig, acting: Options, statistics: Statistics, spec: Spec
) -> Algorithm:
    """Build CQL, with the learner "policy"; it acts by the policy's mean."""
    del acting
    q: Any = TwinQ(config.widths, config.layer_norm)
    actor: Any = SquashedActor(spec.action_dim, config.widths)
    learner = cql_learner(config, actor, q, make_prepare(config, statistics))
    return Algorithm(
        learners={"policy": learner},
        act=act_by_mean(actor, statistics, part="actor", squash=jnp.tanh),
    )


def cql_learner(
    config: CQLConfig, actor: Any, q: Any, prepare: Callable[..., Transitions]
) -> Learner:
    """Build the learner of equations (1) to (4).

    Its parameters are `{"actor", "entropy", "q"}`, where "entropy" is log w; the
    targets are `slow["target"]`. A "penalty" in `hyper` replaces the option.

    Args:
      config: options.
      actor: `inputs [B, S] -> (mean [B, A], standard deviation [B, A])`, before tanh.
      q: `(inputs [..., S], actions [..., A]) -> [2, ...]`.
      prepare: as in a `Learner`.
    """

    def sample(params, inputs, keys, count):
        """Draw actions `[count, B, A]` and their log densities `[count, B]`."""
        mean, std = actor.apply(params, inputs)
        xi = normal(keys, (len(mean), count, mean.shape[-1])).swapaxes(0, 1)
        return squashed.sample_action(mean, std, xi)

    def init_params(key, batch):
        inputs, actions = zeros(batch)
        actor_key, q_key = jax.random.split(key)
        return {
            "actor": actor.init(actor_key, inputs),
            "entropy": jnp.zeros(()),
            "q": q.init(q_key, inputs, actions),
        }

    def actor_loss(params, context: Context):
        inputs = context.batch.inputs
        (actions,), (likely,) = sample(params, inputs, context.keys, 1)
        least = q.apply(context.params["q"], inputs, actions).min(0)
        mean, std = actor.apply(params, inputs)
        cloned = squashed.log_density(mean, std, context.batch.actions)
        wanted = jnp.where(context.step < config.warm_up, cloned, least)
        loss = (jnp.exp(context.params["entropy"]) * likely - wanted).mean()
        return loss, {"entropy": -likely.mean()}

    def entropy_loss(log_weight, context: Context):
        batch = context.batch
        _, (likely,) = sample(context.params["actor"], batch.inputs, context.keys, 1)
        target = -float(batch.actions.shape[-1])
        return log_weight * (-likely - target).mean(), {}

    def q_loss(params, context: Context):
        batch, many = context.batch, config.penalty_actions
        ahead_keys, here_keys, next_keys, uniform_keys = split_keys(context.keys, 4)
        policy = context.params["actor"]
        (actions,), _ = sample(policy, batch.next_inputs, ahead_keys, 1)
        ahead = q.apply(context.slow["target"], batch.next_inputs, actions).min(0)
        error, value = bellman_error(q, params, batch, ahead, config.discount)

        size = batch.actions.shape[-1]
        uniform = jax.vmap(
            lambda key: jax.random.uniform(key, (many, size), minval=-1, maxval=1),
            out_axes=1,
        )(uniform_keys)
        sources = [
            (uniform, jnp.full(uniform.shape[:2], size * jnp.log(0.5))),
            sample(policy, batch.inputs, here_keys, many),
            sample(policy, batch.next_inputs, next_keys, many),
        ]
        drawn, density = (
            jnp.concatenate(parts) for parts in zip(*sources, strict=True)
        )
        inputs = jnp.broadcast_to(batch.inputs, (len(drawn), *batch.inputs.shape))
        values = q.apply(params, inputs, drawn)  # [2, J, B]
        taken = q.apply(params, batch.inputs, batch.actions)
        penalty = (soft_maximum(values, density) - taken).mean()
        scale = context.hyper.get("penalty", config.penalty)
        return error + scale * penalty, {"q": value, "penalty": penalty}

    slowly = optax.adam(config.policy_rate)
    return joint_learner(
        prepare,
        init_params,
        {"actor": actor_loss, "entropy": entropy_loss, "q": q_loss},
        {"actor": slowly, "entropy": slowly, "q": optax.adam(config.learning_rate)},
        averages={"target": Averaging(1 - config.target_rate, part="q")},
    )


def soft_maximum(values: jax.Array, log_density: jax.Array) -> jax.Array:
    """Estimate log integral exp Q, equation (2).

    Args:
      values: `[2, J, B]`, of J actions in each state.
      log_density: `[J, B]`, of the distributions that the actions were drawn from.

    Returns:
      `[2, B]`.
    """
    logits = values - log_density
    return jax.nn.logsumexp(logits, axis=1) - jnp.log(values.shape[1])


ENTRY = offline_entry(
    name="cql",
    summary="conservative Q-learning",
    config=CQLConfig,
    build=cql,
    learners=("policy",),
    laptop={"warm_up": 1_000},
)
