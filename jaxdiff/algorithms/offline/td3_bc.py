"""TD3+BC: an online algorithm with a term that clones behaviour.

A deterministic policy pi trains beside two critics. It climbs their value and stays
near the actions of the data:

(1) min_Q E (r + discount (1 - terminal) min_i Qtarget_i(s', a') - Q_i(s, a))^2,
    a' = pi_target(s') + noise within bounds, clipped to [-1, 1]
(2) max_pi E [alpha Q_1(s, pi(s)) / mean |Q_1(s, pi(s))| - |pi(s) - a|^2 / A]

(Fujimoto & Gu, 2021, arXiv:2106.06860; the bounded noise and the delayed updates of the
policy are those of TD3, Fujimoto et al., 2018, arXiv:1802.09477.) Slow copies move only
when the policy does.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm, Learner, TrainState, pmean
from jaxdiff.algorithms.offline.common import (
    OfflineConfig,
    Statistics,
    act_by_mean,
    make_prepare,
    offline_entry,
    zeros,
)
from jaxdiff.algorithms.offline.joint import bellman_error
from jaxdiff.data.spec import Spec
from jaxdiff.data.transitions import Transitions, draw_transition
from jaxdiff.diffusion import normal
from jaxdiff.networks import Actor, TwinQ
from jaxdiff.options import Options, at_least


@dataclasses.dataclass(frozen=True)
class TD3BCConfig(OfflineConfig):
    """Options of TD3+BC, beside those of data and critics.

    Attributes:
      temperature: weight of values relative to cloning; higher is greedier.
      smoothing: standard deviation of the noise on the next action, where actions lie
        in [-1, 1].
      smoothing_bound: largest size of the noise on the next action.
      policy_delay: updates of the critics between two updates of the policy and of slow
        copies.
    """

    temperature: float = 2.5
    smoothing: float = 0.2
    smoothing_bound: float = 0.5
    policy_delay: int = 2

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 0, "temperature", "smoothing", "smoothing_bound")
        yield from at_least(self, 1, "policy_delay")


def td3_bc(
    config: TD3BCConfig, acting: Options, statistics: Statistics, spec: Spec
) -> Algorithm:
    """Build TD3+BC, with the learner "policy"."""
    del acting
    q: Any = TwinQ(config.widths, config.layer_norm)
    actor: Any = Actor(spec.action_dim, config.widths)
    learner = td3_bc_learner(config, actor, q, make_prepare(config, statistics))
    return Algorithm(
        learners={"policy": learner},
        act=act_by_mean(actor, statistics, part="actor"),
    )


def td3_bc_learner(
    config: TD3BCConfig, actor: Any, q: Any, prepare: Callable[..., Transitions]
) -> Learner:
    """Build the learner of equations (1) and (2).

    Parameters and the slow copies `slow["target"]` are `{"actor", "q"}`. A
    "temperature" in `hyper` replaces the option.

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
            opt_state={name: optimizer.init(part) for name, part in params.items()},
        )

    def q_loss(params, target, keys, batch):
        ahead, _ = actor.apply(target["actor"], batch.next_inputs)
        noise = normal(keys, ahead.shape)
        bound = config.smoothing_bound
        ahead = ahead + jnp.clip(config.smoothing * noise, -bound, bound)
        ahead = jnp.clip(ahead, -1, 1)
        beyond = q.apply(target["q"], batch.next_inputs, ahead).min(0)
        return bellman_error(q, params, batch, beyond, config.discount)

    def policy_loss(params, q_params, batch, temperature, axis_name):
        actions, _ = actor.apply(params, batch.inputs)
        values = q.apply(q_params, batch.inputs, actions)[0]
        size = pmean(jnp.abs(jax.lax.stop_gradient(values)).mean(), axis_name)
        cloning = ((actions - batch.actions) ** 2).mean()
        # The guard prevents 0 / 0 while the critics are zero.
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


ENTRY = offline_entry(
    name="td3-bc",
    summary="TD3 with a behaviour-cloning term",
    config=TD3BCConfig,
    build=td3_bc,
    learners=("policy",),
)
