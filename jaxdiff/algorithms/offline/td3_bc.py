"""TD3+BC: the least that makes an online algorithm work on data alone.

A deterministic policy pi is trained beside two critics, towards their value and towards
the actions of the data at once:

(1) min_Q E (r + discount (1 - terminal) min_i Qtarget_i(s', a') - Q_i(s, a))^2,
    a' = pi_target(s') + noise within bounds, clipped to [-1, 1]
(2) max_pi E [alpha Q_1(s, pi(s)) / mean |Q_1(s, pi(s))| - |pi(s) - a|^2 / A]

(Fujimoto & Gu, 2021, arXiv:2106.06860; the bounded noise and the policy's rarer updates
are those of TD3, Fujimoto et al., 2018, arXiv:1802.09477.) All copies that move slowly
move when the policy does.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm, Learner, TrainState, pmean
from jaxdiff.algorithms.offline.common import (
    OfflineConfig,
    Statistics,
    acting,
    preparing,
    zeros,
)
from jaxdiff.data.transitions import Transitions, draw_transition
from jaxdiff.networks import Actor, TwinQ
from jaxdiff.options import check_options


@dataclasses.dataclass(frozen=True)
class TD3BCConfig(OfflineConfig):
    """Options of TD3+BC, beside those of data and critics.

    Attributes:
      temperature: alpha of equation (2), the greedier the higher.
      smoothing: standard deviation of the noise on the actions that critics look
        ahead to, where actions are in [-1, 1].
      smoothing_bound: of that noise.
      policy_delay: updates of the critics for one of the policy and of slow copies.
    """

    temperature: float = 2.5
    smoothing: float = 0.2
    smoothing_bound: float = 0.5
    policy_delay: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(
            self, temperature=0, smoothing=0, smoothing_bound=0, policy_delay=1
        )


def td3_bc(
    config: TD3BCConfig, statistics: Statistics, *, action_dim: int
) -> Algorithm:
    """Build TD3+BC for a dataset.

    Args:
      config: options.
      statistics: of the dataset, from `jaxdiff.algorithms.offline.common.measure`.
      action_dim: A.

    Returns:
      An algorithm with the one learner "policy".
    """
    q: Any = TwinQ(config.widths, config.layer_norm)
    actor: Any = Actor(action_dim, config.widths)
    learner = td3_bc_learner(config, actor, q, preparing(config, statistics))
    return Algorithm(
        learners={"policy": learner},
        act=acting(actor, statistics, part="actor"),
        init_carry=lambda batch: (),
    )


def td3_bc_learner(
    config: TD3BCConfig, actor: Any, q: Any, prepare: Callable[..., Transitions]
) -> Learner:
    """Build the learner of equations (1) and (2).

    Its parameters are `{"actor", "q"}`, as are the slow ones, `slow["target"]`. `hyper`
    may hold a "temperature" to take the place of the one in the options.

    Args:
      config: options.
      actor: `inputs [B, S] -> (actions [B, A], None)`.
      q: `(inputs [B, S], actions [B, A]) -> [2, B]`.
      prepare: as in a `Learner`.
    """
    optimizer = optax.adam(config.learning_rate)

    def init(key, batch, frozen):
        del frozen
        inputs, actions = zeros(batch)
        actor_key, q_key = jax.random.split(key)
        params = {
            "actor": actor.init(actor_key, inputs),
            "q": q.init(q_key, inputs, actions),
        }
        return TrainState(
            step=jnp.int32(0),
            params=params,
            slow={"target": params},
            model_state={},
            opt_state={name: optimizer.init(part) for name, part in params.items()},
        )

    def q_loss(params, target, keys, batch):
        ahead, _ = actor.apply(target["actor"], batch.next_inputs)
        noise = jax.vmap(lambda key: jax.random.normal(key, ahead.shape[1:]))(keys)
        bound = config.smoothing_bound
        ahead = ahead + jnp.clip(config.smoothing * noise, -bound, bound)
        ahead = jnp.clip(ahead, -1, 1)
        beyond = q.apply(target["q"], batch.next_inputs, ahead).min(0)
        wanted = batch.rewards + config.discount * jnp.where(
            batch.terminals, 0.0, beyond
        )
        found = q.apply(params, batch.inputs, batch.actions)
        return ((found - wanted) ** 2).mean(), found.mean()

    def policy_loss(params, q_params, batch, temperature, axis_name):
        actions, _ = actor.apply(params, batch.inputs)
        values = q.apply(q_params, batch.inputs, actions)[0]
        size = pmean(jnp.abs(jax.lax.stop_gradient(values)).mean(), axis_name)
        cloning = ((actions - batch.actions) ** 2).mean()
        # The guard is for critics that are still zero.
        return cloning - temperature * values.mean() / jnp.maximum(size, 1e-8)

    def descend(state, params, name, grads):
        updates, opt_state = optimizer.update(grads, state.opt_state[name])
        return optax.apply_updates(params, updates), opt_state

    def update(state, keys, batch, frozen, hyper, axis_name=None):
        del frozen
        temperature = hyper.get("temperature", config.temperature)
        params, target = state.params, state.slow["target"]
        (loss, value), grads = pmean(
            jax.value_and_grad(q_loss, has_aux=True)(params["q"], target, keys, batch),
            axis_name,
        )
        q_params, q_state = descend(state, params["q"], "q", grads)

        def moved(_):
            grads = jax.grad(policy_loss)(
                params["actor"], q_params, batch, temperature, axis_name
            )
            actor_params, actor_state = descend(
                state, params["actor"], "actor", pmean(grads, axis_name)
            )
            new = {"actor": actor_params, "q": q_params}
            slow = optax.incremental_update(new, target, config.target_rate)
            return actor_params, actor_state, slow

        step = state.step + 1
        actor_params, actor_state, slow = jax.lax.cond(
            step % config.policy_delay == 0,
            moved,
            lambda _: (params["actor"], state.opt_state["actor"], target),
            None,
        )
        state = dataclasses.replace(
            state,
            step=step,
            params={"actor": actor_params, "q": q_params},
            slow={"target": slow},
            opt_state={"actor": actor_state, "q": q_state},
        )
        return state, {"loss": loss, "q": value}

    return Learner(prepare, draw_transition, init, update)
