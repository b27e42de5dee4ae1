"""CQL: critics that are told to think little of what the data did not do.

Soft actor-critic with a penalty on its critics: the soft maximum of Q over all actions
shall not be larger than Q of the action that the data took,

(1) min_Q E (r + discount (1 - terminal) min_i Qtarget_i(s', a') - Q_i(s, a))^2
        + penalty E [log integral exp Q_i(s, b) db - Q_i(s, a)],   a' ~ pi(.|s')
(2) the integral by importance sampling: the mean of exp(Q_i(s, b_j)) / p(b_j) over
    actions b_j drawn uniformly, from pi(.|s) and from pi(.|s')
(3) min_pi E [w log pi(b|s) - min_i Q_i(s, b)],   b ~ pi(.|s)
(4) min_w log w E [-log pi(b|s) - entropy],   entropy = -A, wanted of the policy

(Kumar et al., 2020, arXiv:2006.04779, equation 4, "CQL(H)".) For the first updates the
policy clones behaviour: in (3) the log density of the data's action stands for Q. The
variant with a Lagrange multiplier, which the authors use in AntMaze, is not here.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm, Averaging, Learner
from jaxdiff.algorithms.offline import squashed
from jaxdiff.algorithms.offline.common import (
    OfflineConfig,
    Statistics,
    acting,
    preparing,
    zeros,
)
from jaxdiff.algorithms.offline.joint import Seen, bellman_error, joint_learner
from jaxdiff.data.transitions import Transitions
from jaxdiff.networks import SquashedActor, TwinQ
from jaxdiff.options import check_options


@dataclasses.dataclass(frozen=True)
class CQLConfig(OfflineConfig):
    """Options of CQL, beside those of data and critics.

    Attributes:
      penalty: of equation (1), the more careful the higher.
      penalty_actions: drawn from each of the three sources of equation (2).
      policy_rate: learning rate of policy and w.
      warm_up: updates in which the policy clones behaviour.
    """

    penalty: float = 5.0
    penalty_actions: int = 10
    policy_rate: float = 1e-4
    warm_up: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self, penalty=0, penalty_actions=1, policy_rate=0, warm_up=0)


def cql(config: CQLConfig, statistics: Statistics, *, action_dim: int) -> Algorithm:
    """Build CQL for a dataset.

    Args:
      config: options.
      statistics: of the dataset, from `jaxdiff.algorithms.offline.common.measure`.
      action_dim: A.

    Returns:
      An algorithm with the one learner "policy", which acts by its mean.
    """
    q: Any = TwinQ(config.widths, config.layer_norm)
    actor: Any = SquashedActor(action_dim, config.widths)
    learner = cql_learner(config, actor, q, preparing(config, statistics))
    return Algorithm(
        learners={"policy": learner},
        act=acting(actor, statistics, part="actor", squash=jnp.tanh),
        init_carry=lambda batch: (),
    )


def cql_learner(
    config: CQLConfig, actor: Any, q: Any, prepare: Callable[..., Transitions]
) -> Learner:
    """Build the learner of equations (1) to (4).

    Its parameters are `{"actor", "entropy", "q"}`, of which "entropy" is log w, and the
    targets `slow["target"]`. `hyper` may hold a "penalty" to take the place of the
    option.

    Args:
      config: options.
      actor: `inputs [B, S] -> (mean [B, A], standard deviation [B, A])`, before tanh.
      q: `(inputs [..., S], actions [..., A]) -> [2, ...]`.
      prepare: as in a `Learner`.
    """

    def draws(params, inputs, keys, count):
        """Actions `[count, B, A]` and log densities `[count, B]`, fixed or not."""
        mean, std = actor.apply(params, inputs)
        shape = (count, mean.shape[-1])
        normals = jax.vmap(lambda key: jax.random.normal(key, shape), out_axes=1)(keys)
        return squashed.draw(mean, std, normals)

    def init_params(key, batch):
        inputs, actions = zeros(batch)
        actor_key, q_key = jax.random.split(key)
        return {
            "actor": actor.init(actor_key, inputs),
            "entropy": jnp.zeros(()),
            "q": q.init(q_key, inputs, actions),
        }

    def actor_loss(params, seen: Seen):
        inputs = seen.batch.inputs
        (actions,), (likely,) = draws(params, inputs, seen.keys, 1)
        least = q.apply(seen.params["q"], inputs, actions).min(0)
        mean, std = actor.apply(params, inputs)
        cloned = squashed.log_density(mean, std, seen.batch.actions)
        wanted = jnp.where(seen.step < config.warm_up, cloned, least)
        loss = (jnp.exp(seen.params["entropy"]) * likely - wanted).mean()
        return loss, {"entropy": -likely.mean()}

    def entropy_loss(log_weight, seen: Seen):
        _, (likely,) = draws(seen.params["actor"], seen.batch.inputs, seen.keys, 1)
        target = -float(seen.batch.actions.shape[-1])
        return log_weight * (-likely - target).mean(), {}

    def q_loss(params, seen: Seen):
        batch, many = seen.batch, config.penalty_actions
        ahead_keys, here_keys, next_keys, uniform_keys = jax.vmap(
            lambda key: jax.random.split(key, 4), out_axes=1
        )(seen.keys)
        policy = seen.params["actor"]
        (actions,), _ = draws(policy, batch.next_inputs, ahead_keys, 1)
        ahead = q.apply(seen.slow["target"], batch.next_inputs, actions).min(0)
        error, value = bellman_error(q, params, batch, ahead, config.discount)

        size = batch.actions.shape[-1]
        uniform = jax.vmap(
            lambda key: jax.random.uniform(key, (many, size), minval=-1, maxval=1),
            out_axes=1,
        )(uniform_keys)
        sources = [
            (uniform, jnp.full(uniform.shape[:2], size * jnp.log(0.5))),
            draws(policy, batch.inputs, here_keys, many),
            draws(policy, batch.next_inputs, next_keys, many),
        ]
        drawn, density = (
            jnp.concatenate(parts) for parts in zip(*sources, strict=True)
        )
        inputs = jnp.broadcast_to(batch.inputs, (len(drawn), *batch.inputs.shape))
        values = q.apply(params, inputs, drawn)  # [2, J, B]
        taken = q.apply(params, batch.inputs, batch.actions)
        penalty = (soft_maximum(values, density) - taken).mean()
        scale = seen.hyper.get("penalty", config.penalty)
        return error + scale * penalty, {"q": value, "penalty": penalty}

    slowly = optax.adam(config.policy_rate)
    return joint_learner(
        prepare,
        init_params,
        {"actor": actor_loss, "entropy": entropy_loss, "q": q_loss},
        {
            "actor": slowly,
            "entropy": slowly,
            "q": optax.adam(config.learning_rate),
        },
        averages={"target": Averaging(1 - config.target_rate, part="q")},
    )


def soft_maximum(values: jax.Array, log_density: jax.Array) -> jax.Array:
    """Estimate log integral exp Q, equation (2).

    Args:
      values: `[2, J, B]`, of J actions in each state.
      log_density: `[J, B]`, of how they were drawn.

    Returns:
      `[2, B]`.
    """
    logits = values - log_density
    return jax.nn.logsumexp(logits, axis=1) - jnp.log(values.shape[1])
