"""FQL: a one-step policy, distilled from a flow and moved towards high Q.

Three parts train side by side. A flow v models the behaviour along the straight line
from noise z to an action a of the data,

(1) min_v E |v(x_u, u, s) - (a - z)|^2,   x_u = (1 - u) a + u z,   u ~ U(0, 1],

and Euler's method from u = 1 to 0 maps z to a draw from it. The policy mu(s, z) learns
to do so in one step, and climbs Q as well:

(2) min_mu E [alpha |mu(s, z) - euler(s, z)|^2 / A - mean_i Q_i(s, mu(s, z))]
(3) min_Q E (r + discount (1 - terminal) mean_i Qtarget_i(s', mu(s', z')) - Q_i(s, a))^2

(Park et al., 2025, arXiv:2502.02538.) No gradient flows through the steps of Euler's
method, and acting takes none of them. Acting draws a new z each time, so the policy is
random. With alpha_u = 1 - u and sigma_u = u DDIM is Euler's method, so the sampler of
`jaxdiff.diffusion` draws from the flow.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdiff.algorithms.base import ActOutput, Algorithm, ArrayTree, Averaging, Learner
from jaxdiff.algorithms.offline.behaviour import BehaviourConfig, score_network
from jaxdiff.algorithms.offline.common import (
    Statistics,
    make_prepare,
    offline_entry,
    policy_inputs,
    with_guidance,
    zeros,
)
from jaxdiff.algorithms.offline.joint import Context, bellman_error, joint_learner
from jaxdiff.data.normalizer import unnormalize
from jaxdiff.data.spec import Spec
from jaxdiff.data.transitions import Transitions
from jaxdiff.diffusion import (
    NoiseLevels,
    Steps,
    ddim,
    discretize,
    normal,
    sample,
    split_keys,
)
from jaxdiff.networks import Actor, TwinQ
from jaxdiff.options import Options, at_least


@dataclasses.dataclass(frozen=True)
class FQLConfig(BehaviourConfig):
    """Options of FQL, beside those of data, critics and the flow's network.

    Attributes:
      alpha: weight of staying near the flow; lower is greedier.
      flow_steps: steps of Euler's method.
      unit_q: divide values in the policy's loss by their mean size.
    """

    alpha: float = 10.0
    flow_steps: int = 10
    unit_q: bool = False
    score_dropout: float = 0.0
    score_decay: float = 0.0

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 0, "alpha")
        yield from at_least(self, 1, "flow_steps")


@dataclasses.dataclass(frozen=True)
class FQLActing(Options):
    """How FQL acts.

    Attributes:
      noise: factor of the noise that the policy maps to an action; 0 makes actions
        deterministic.
    """

    noise: float = 1.0

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 0, "noise")


def fql(
    config: FQLConfig, acting: FQLActing, statistics: Statistics, spec: Spec
) -> Algorithm:
    """Build FQL, with the learner "policy"."""
    actor: Any = Actor(spec.action_dim, config.widths)
    q: Any = TwinQ(config.widths, config.layer_norm)
    flow = score_network(config, spec.action_dim)

    def act(states, carry, keys, observation, reset, goal=None, guidance=None):
        del reset
        inputs = policy_inputs(statistics, observation, goal)
        scale = with_guidance(acting, guidance).noise
        z = scale * normal(keys, (len(inputs), spec.action_dim))
        actions = one_step(actor, states["policy"].params["actor"], inputs, z)
        return ActOutput(action=unnormalize(statistics.actions, actions)), carry

    prepare = make_prepare(config, statistics)
    return Algorithm(
        learners={"policy": fql_learner(config, actor, flow, q, prepare)},
        act=act,
        init_carry=lambda batch: (),
    )


def flow_level(time: Any) -> NoiseLevels:
    """Return the level u = `time` of equation (1)."""
    return NoiseLevels(time=time, alpha=1 - time, sigma=time)


def euler(num_steps: int) -> Steps:
    """Tabulate Euler's method from u = 1 to 0 in equal steps."""
    return ddim(discretize(flow_level, np.linspace(0, 1, num_steps + 1)[1:]))


def follow(
    flow: Any, params: ArrayTree, inputs: jax.Array, z: jax.Array, steps: Steps
) -> jax.Array:
    """Map noise to actions of the behaviour.

    Args:
      flow: `(x [B, A], time [B], inputs [B, S]) -> velocity [B, A]`.
      params: of the flow.
      inputs: `[B, S]`.
      z: `[B, A]`.
      steps: from `euler`.

    Returns:
      `[B, A]`.
    """

    def denoise(x, level):
        time = jnp.broadcast_to(level.time, x.shape[:1])
        # The end of the line from x, at the velocity there.
        return x + level.sigma * flow.apply(params, x, time, inputs)

    # The key is unused: the steps add no noise.
    return sample(jax.random.key(0), denoise, steps, z.shape, init=z).x


def one_step(
    actor: Any, params: ArrayTree, inputs: jax.Array, z: jax.Array
) -> jax.Array:
    """Return the actions mu(s, z) `[B, A]` of states `[B, S]` and noise `[B, A]`."""
    return actor.apply(params, jnp.concatenate([inputs, z], axis=-1))[0]


def fql_learner(
    config: FQLConfig,
    actor: Any,
    flow: Any,
    q: Any,
    prepare: Callable[..., Transitions],
) -> Learner:
    """Build the learner of equations (1) to (3).

    Its parameters are `{"flow", "actor", "q"}`; the targets are `slow["target"]`. An
    "alpha" in `hyper` replaces the option.

    Args:
      config: options.
      actor: `[inputs | z] [B, S + A] -> (actions [B, A], None)`.
      flow: as in `follow`.
      q: `(inputs [B, S], actions [B, A]) -> [2, B]`.
      prepare: as in a `Learner`.
    """
    steps = euler(config.flow_steps)

    def init_params(key, batch):
        inputs, actions = zeros(batch)
        flow_key, actor_key, q_key = jax.random.split(key, 3)
        both = jnp.concatenate([inputs, actions], axis=-1)
        return {
            "flow": flow.init(flow_key, actions, jnp.zeros(1), inputs),
            "actor": actor.init(actor_key, both),
            "q": q.init(q_key, inputs, actions),
        }

    def flow_loss(params, context: Context):
        time_keys, z_keys, drop_keys = split_keys(context.keys, 3)
        actions = context.batch.actions
        z = normal(z_keys, actions.shape)
        # In (0, 1], like the times of Euler's method.
        time = 1 - jax.vmap(jax.random.uniform)(time_keys)
        x = (1 - time[:, None]) * actions + time[:, None] * z
        found = flow.apply(params, x, time, context.batch.inputs, drop_keys)
        return jnp.square(found - (actions - z)).mean(), {}

    def actor_loss(params, context: Context):
        inputs = context.batch.inputs
        z = normal(context.keys, context.batch.actions.shape)
        actions = one_step(actor, params, inputs, z)
        wanted = follow(flow, context.params["flow"], inputs, z, steps)
        distance = jnp.square(actions - jnp.clip(wanted, -1, 1)).mean()
        values = q.apply(context.params["q"], inputs, actions).mean(0)
        gain = values.mean()
        if config.unit_q:
            size = context.mean(jnp.abs(jax.lax.stop_gradient(values)))
            # The guard prevents 0 / 0 while the critics are zero.
            gain = gain / jnp.maximum(size, 1e-8)
        alpha = context.hyper.get("alpha", config.alpha)
        return alpha * distance - gain, {"distance": distance}

    def q_loss(params, context: Context):
        inputs = context.batch.next_inputs
        z = normal(context.keys, context.batch.actions.shape)
        actions = one_step(actor, context.params["actor"], inputs, z)
        ahead = q.apply(context.slow["target"], inputs, actions).mean(0)
        loss, value = bellman_error(q, params, context.batch, ahead, config.discount)
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


ENTRY = offline_entry(
    name="fql",
    summary="flow Q-learning: a one-step policy distilled from a flow",
    config=FQLConfig,
    acting=FQLActing,
    build=fql,
    learners=("policy",),
)
