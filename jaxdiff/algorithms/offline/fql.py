"""FQL: a one-step policy, distilled from a flow and moved towards high Q.

Three parts train side by side. A flow v models the behaviour along the straight line
from noise z to an action a of the data,

(1) min_v E |v(s, x_t, t) - (a - z)|^2 / A,   x_t = (1 - t) z + t a,   t ~ U[0, 1),

and Euler's method from t = 0 to 1 maps z to a draw from it, clipped to [-1, 1]. The
policy mu(s, z) learns to do so in one step, and climbs Q as well:

(2) min_mu E [alpha |mu(s, z) - euler(s, z)|^2 / A - mean_i Q_i(s, clip mu(s, z))]
(3) min_Q E (r + discount (1 - terminal) mean_i Qtarget_i(s', clip mu(s', z'))
             - Q_i(s, a))^2

(Park et al., 2025, arXiv:2502.02538.) No gradient flows through the steps of Euler's
method, and acting takes none of them. Acting draws a new z each time, so the policy is
random.

All networks are dense layers with GELU. They read their arguments side by side, and the
time as the one number it is. Critics may normalise each hidden layer after its GELU.
With alpha = t and sigma = 1 - t DDIM is Euler's method, so the sampler of
`jaxdiff.diffusion` draws from the flow.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdiff.algorithms.base import ActOutput, Algorithm, ArrayTree, Averaging, Learner
from jaxdiff.algorithms.offline.common import (
    OfflineConfig,
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
from jaxdiff.networks import MLP, TwinQ
from jaxdiff.options import Options, at_least


@dataclasses.dataclass(frozen=True)
class FQLConfig(OfflineConfig):
    """Options of FQL, beside those of data and networks.

    Attributes:
      alpha: weight of staying near the flow; lower is greedier.
      flow_steps: steps of Euler's method.
      unit_q: divide values in the policy's loss by their mean size.
    """

    layer_norm: bool = True
    alpha: float = 10.0
    flow_steps: int = 10
    unit_q: bool = False

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
    layers = functools.partial(MLP, approximate=True)
    network: Any = layers(spec.action_dim, config.widths)
    q: Any = TwinQ(config.widths, config.layer_norm, layers)

    def act(states, carry, keys, observation, reset, goal=None, guidance=None):
        del reset
        inputs = policy_inputs(statistics, observation, goal)
        scale = with_guidance(acting, guidance).noise
        z = scale * normal(keys, (len(inputs), spec.action_dim))
        actions = apply(network, states["policy"].params["actor"], inputs, z)
        actions = jnp.clip(actions, -1, 1)
        return ActOutput(action=unnormalize(statistics.actions, actions)), carry

    prepare = make_prepare(config, statistics)
    return Algorithm(
        learners={"policy": fql_learner(config, network, network, q, prepare)},
        act=act,
    )


def flow_level(noise: Any) -> NoiseLevels:
    """Return the level of equation (1) whose share of noise, 1 - t, is given."""
    return NoiseLevels(time=1 - noise, alpha=1 - noise, sigma=noise)


def euler(num_steps: int) -> Steps:
    """Tabulate Euler's method from t = 0 to 1 in equal steps."""
    return ddim(discretize(flow_level, np.linspace(0, 1, num_steps + 1)[1:]))


def follow(
    flow: Any, params: ArrayTree, inputs: jax.Array, z: jax.Array, steps: Steps
) -> jax.Array:
    """Map noise to actions of the behaviour.

    Args:
      flow: `[inputs | x | time] [B, S + A + 1] -> velocity [B, A]`.
      params: of the flow.
      inputs: `[B, S]`.
      z: `[B, A]`.
      steps: from `euler`.

    Returns:
      `[B, A]`, in [-1, 1].
    """

    def denoise(x, level):
        time = jnp.broadcast_to(level.time, (len(x), 1))
        # The end of the line from x, at the velocity there.
        return x + level.sigma * apply(flow, params, inputs, x, time)

    # The key is unused: the steps add no noise.
    drawn = sample(jax.random.key(0), denoise, steps, z.shape, init=z).x
    return jnp.clip(drawn, -1, 1)


def apply(network: Any, params: ArrayTree, *parts: jax.Array) -> jax.Array:
    """Apply a network to arrays `[B, ...]` side by side."""
    return network.apply(params, jnp.concatenate(parts, axis=-1))


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
      actor: `[inputs | z] [B, S + A] -> actions [B, A]`, of any size.
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
            "flow": flow.init(flow_key, jnp.pad(both, ((0, 0), (0, 1)))),
            "actor": actor.init(actor_key, both),
            "q": q.init(q_key, inputs, actions),
        }

    def flow_loss(params, context: Context):
        time_keys, z_keys = split_keys(context.keys)
        actions = context.batch.actions
        z = normal(z_keys, actions.shape)
        time = jax.vmap(jax.random.uniform)(time_keys)[:, None]
        x = (1 - time) * z + time * actions
        found = apply(flow, params, context.batch.inputs, x, time)
        return jnp.square(found - (actions - z)).mean(), {}

    def actor_loss(params, context: Context):
        inputs = context.batch.inputs
        z = normal(context.keys, context.batch.actions.shape)
        actions = apply(actor, params, inputs, z)
        wanted = follow(flow, context.params["flow"], inputs, z, steps)
        # The distance is that of actions as they are, or none would come back.
        distance = jnp.square(actions - wanted).mean()
        actions = jnp.clip(actions, -1, 1)
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
        actions = apply(actor, context.params["actor"], inputs, z)
        actions = jnp.clip(actions, -1, 1)
        ahead = q.apply(context.slow["target"], inputs, actions).mean(0)
        loss, value = bellman_error(q, params, context.batch, ahead, config.discount)
        return loss, {"q": value}

    losses = {"flow": flow_loss, "actor": actor_loss, "q": q_loss}
    return joint_learner(
        prepare,
        init_params,
        losses,
        dict.fromkeys(losses, optax.adam(config.learning_rate)),
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
