"""FQL: a policy of one step, distilled from a flow and drawn towards Q.

Three parts train side by side. A flow v models the behaviour: along the straight way
from noise z to an action a of the data,

(1) min_v E |v(x_u, u, s) - (a - z)|^2,   x_u = (1 - u) a + u z,   u ~ U(0, 1],

and Euler's method from u = 1 to 0 maps z to a draw of it. The policy mu(s, z) does that
in one step, and climbs Q at once:

(2) min_mu E [alpha |mu(s, z) - euler(s, z)|^2 / A - mean_i Q_i(s, mu(s, z))]
(3) min_Q E (r + discount (1 - terminal) mean_i Qtarget_i(s', mu(s', z')) - Q_i(s, a))^2

(Park et al., 2025, arXiv:2502.02538.) Nothing is differentiated through the flow's
steps, and none are taken when acting; z is drawn anew each time, so the policy remains
random. With alpha_u = 1 - u and sigma_u = u DDIM is Euler's method, so the shared
sampler draws from the flow.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdiff.algorithms.base import ActOutput, Algorithm, ArrayTree, Averaging, Learner
from jaxdiff.algorithms.offline.behaviour import BehaviourConfig, score_network
from jaxdiff.algorithms.offline.common import Statistics, preparing, zeros
from jaxdiff.algorithms.offline.joint import Seen, bellman_error, joint_learner
from jaxdiff.data.normalizer import normalize, unnormalize
from jaxdiff.data.transitions import Transitions, beside
from jaxdiff.diffusion import NoiseLevels, Steps, ddim, discretize, sample
from jaxdiff.networks import Actor, TwinQ
from jaxdiff.options import check_options


@dataclasses.dataclass(frozen=True)
class FQLConfig(BehaviourConfig):
    """Options of FQL, beside those of data, critics and the flow's network.

    Attributes:
      alpha: of equation (2): how near to the flow the policy is kept.
      flow_steps: Euler's steps.
      unit_q: divide Q in equation (2) by its mean size.
      noise: scale of z in acting; at 0 actions are not random.
    """

    alpha: float = 10.0
    flow_steps: int = 10
    unit_q: bool = False
    noise: float = 1.0
    score_dropout: float = 0.0
    score_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self, alpha=0, flow_steps=1, noise=0)


def fql(config: FQLConfig, statistics: Statistics, *, action_dim: int) -> Algorithm:
    """Build FQL for a dataset.

    Args:
      config: options.
      statistics: of the dataset, from `jaxdiff.algorithms.offline.common.measure`.
      action_dim: A.

    Returns:
      An algorithm with the one learner "policy".
    """
    actor: Any = Actor(action_dim, config.widths)
    q: Any = TwinQ(config.widths, config.layer_norm)
    flow = score_network(config, action_dim)

    def act(states, carry, key, observation, reset, goal=None):
        del reset
        inputs = beside(observation, goal, statistics.inputs.low.shape[-1])
        inputs = normalize(statistics.inputs, inputs)
        z = config.noise * jax.random.normal(key, (len(inputs), action_dim))
        actions = one_step(actor, states["policy"].params["actor"], inputs, z)
        return ActOutput(action=unnormalize(statistics.actions, actions)), carry

    return Algorithm(
        learners={
            "policy": fql_learner(
                config, actor, flow, q, preparing(config, statistics)
            ),
        },
        act=act,
        init_carry=lambda batch: (),
    )


def flow_level(time: Any) -> NoiseLevels:
    """The level u = `time` of the straight way of equation (1)."""
    return NoiseLevels(time=time, alpha=1 - time, sigma=time)


def euler(num_steps: int) -> Steps:
    """Tabulate Euler's method from u = 1 to 0 in equal steps."""
    return ddim(discretize(flow_level, np.linspace(0, 1, num_steps + 1)[1:]))


def follow(
    flow: Any, params: ArrayTree, inputs: jax.Array, z: jax.Array, steps: Steps
) -> jax.Array:
    """Map noise to draws of the behaviour.

    Args:
      flow: `(x [B, A], time [B], inputs [B, S]) -> velocity [B, A]`.
      params: of it.
      inputs: `[B, S]`.
      z: `[B, A]`.
      steps: from `euler`.
    """

    def denoise(x, level):
        time = jnp.broadcast_to(level.time, x.shape[:1])
        # The rest of the way at the velocity of now.
        return x + level.sigma * flow.apply(params, x, time, inputs)

    return sample(jax.random.key(0), denoise, steps, z.shape, init=z).x


def one_step(
    actor: Any, params: ArrayTree, inputs: jax.Array, z: jax.Array
) -> jax.Array:
    """Act by mu: actions `[B, A]` of states `[B, S]` and noise `[B, A]`."""
    return actor.apply(params, jnp.concatenate([inputs, z], axis=-1))[0]


def fql_learner(
    config: FQLConfig,
    actor: Any,
    flow: Any,
    q: Any,
    prepare: Callable[..., Transitions],
) -> Learner:
    """Build the learner of equations (1) to (3).

    Its parameters are `{"flow", "actor", "q"}`, the targets `slow["target"]`. `hyper`
    may hold an "alpha" to take the place of the option.

    Args:
      config: options.
      actor: `[inputs | z] [B, S + A] -> (actions [B, A], None)`.
      flow: as in `follow`.
      q: `(inputs [B, S], actions [B, A]) -> [2, B]`.
      prepare: as in a `Learner`.
    """
    steps = euler(config.flow_steps)

    def normals(keys, actions):
        return jax.vmap(lambda key: jax.random.normal(key, actions.shape[1:]))(keys)

    def init_params(key, batch):
        inputs, actions = zeros(batch)
        flow_key, actor_key, q_key = jax.random.split(key, 3)
        both = jnp.concatenate([inputs, actions], axis=-1)
        return {
            "flow": flow.init(flow_key, actions, jnp.zeros(1), inputs),
            "actor": actor.init(actor_key, both),
            "q": q.init(q_key, inputs, actions),
        }

    def flow_loss(params, seen: Seen):
        time_keys, z_keys, drop_keys = jax.vmap(
            lambda key: jax.random.split(key, 3), out_axes=1
        )(seen.keys)
        z, actions = normals(z_keys, seen.batch.actions), seen.batch.actions
        # In (0, 1], as the steps of Euler's method are.
        time = 1 - jax.vmap(jax.random.uniform)(time_keys)
        x = (1 - time[:, None]) * actions + time[:, None] * z
        found = flow.apply(params, x, time, seen.batch.inputs, drop_keys)
        return jnp.square(found - (actions - z)).mean(), {}

    def actor_loss(params, seen: Seen):
        inputs = seen.batch.inputs
        z = normals(seen.keys, seen.batch.actions)
        actions = one_step(actor, params, inputs, z)
        wanted = follow(flow, seen.params["flow"], inputs, z, steps)
        distance = jnp.square(actions - jnp.clip(wanted, -1, 1)).mean()
        values = q.apply(seen.params["q"], inputs, actions).mean(0)
        gain = values.mean()
        if config.unit_q:
            size = seen.mean(jnp.abs(jax.lax.stop_gradient(values)))
            gain = gain / jnp.maximum(size, 1e-8)
        alpha = seen.hyper.get("alpha", config.alpha)
        return alpha * distance - gain, {"distance": distance}

    def q_loss(params, seen: Seen):
        inputs = seen.batch.next_inputs
        z = normals(seen.keys, seen.batch.actions)
        actions = one_step(actor, seen.params["actor"], inputs, z)
        ahead = q.apply(seen.slow["target"], inputs, actions).mean(0)
        loss, value = bellman_error(q, params, seen.batch, ahead, config.discount)
        return loss, {"q": value}

    adam = optax.adam(config.learning_rate)
    return joint_learner(
        prepare,
        init_params,
        {"flow": flow_loss, "actor": actor_loss, "q": q_loss},
        {
            "flow": optax.adamw(config.learning_rate, weight_decay=config.score_decay),
            "actor": adam,
            "q": adam,
        },
        averages={"target": Averaging(1 - config.target_rate, part="q")},
    )
