"""Diffusion-QL: a diffusion policy that climbs Q through its own sampling chain.

The policy pi draws an action by a short chain of denoising steps. It is trained to
denoise the actions of the data and, at once, to end where the critics are high:

(1) min_pi E |eps - eps_pi(a_t, t, s)|^2 / A - eta L_Q,
    L_Q = 1/2 sum over (i, j) of E Q_i(s, a_0) / mean |Q_j(s, a_0)|,   i != j
(2) min_Q E (r + discount (1 - terminal) min_i max_k Qtarget_i(s', a'_k) - Q_i(s, a))^2

with a_0 a draw of pi, differentiated step by step, and a'_k draws of its slow copy,
usually one (Wang et al., 2023, arXiv:2208.06193; the authors toss a coin for the order
of the two critics, of which (1) is the mean). Acting draws candidates and chooses one
with probabilities softmax(temperature min_i Qtarget_i).

EDP (Kang et al., 2023, arXiv:2305.20081) replaces the chain in (1) by one step,

(3) a_0 = (a_t - sigma_t eps_pi(a_t, t, s)) / alpha_t,

from the very a_t that the denoising loss looks at: `one_step`. It then needs no more
calls of the network than behaviour cloning does, however long the chain.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm, Averaging, Learner, decaying
from jaxdiff.algorithms.offline.behaviour import (
    BehaviourConfig,
    sample_actions,
    sample_each,
    score_network,
)
from jaxdiff.algorithms.offline.best_of_n import choosing
from jaxdiff.algorithms.offline.common import Statistics, preparing, zeros
from jaxdiff.algorithms.offline.joint import Seen, bellman_error, joint_learner
from jaxdiff.data.transitions import Transitions
from jaxdiff.diffusion import (
    ddpm,
    from_x0,
    noise_examples,
    to_x0,
    uniform_row,
    vp_schedule,
)
from jaxdiff.networks import TwinQ
from jaxdiff.options import check_options


@dataclasses.dataclass(frozen=True)
class DiffusionQLConfig(BehaviourConfig):
    """Options of Diffusion-QL and EDP, beside those of data, critics and network.

    Attributes:
      eta: of equation (1), the greedier the higher; 0 clones behaviour.
      one_step: take equation (3) for the chain of equation (1), as EDP does.
      diffusion_steps: levels, and steps of the chain.
      backup_candidates: how many a'_k there are in equation (2).
      max_gradient: bound of the norm of the policy's gradient; None for none.
      ema_decay: of the policy's slow copy.
      ema_every: updates between two moves of it.
      ema_start: until this update it is a plain copy.
      candidates: drawn when acting.
      pick: how one of them is chosen, "softmax" or the "best".
      temperature: of "softmax", the greedier the higher.
      noise: scale of all noise in acting; at 0 all candidates are one.
      policy_decay: updates over which the learning rate falls to zero along a cosine; 0
        keeps it.
    """

    eta: float = 1.0
    one_step: bool = False
    diffusion_steps: int = 5
    backup_candidates: int = 1
    max_gradient: float | None = None
    score_dropout: float = 0.0
    score_decay: float = 0.0
    ema_decay: float = 0.995
    ema_every: int = 5
    ema_start: int = 1_000
    candidates: int = 50
    pick: Literal["softmax", "best"] = "softmax"
    temperature: float = 1.0
    noise: float = 1.0
    policy_decay: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        ones = ("diffusion_steps", "backup_candidates", "ema_every", "candidates")
        rest = ("eta", "max_gradient", "ema_start", "temperature", "noise")
        check_options(
            self,
            policy_decay=0,
            **dict.fromkeys(ones, 1),
            **dict.fromkeys(rest, 0),
        )


def diffusion_ql(
    config: DiffusionQLConfig, statistics: Statistics, *, action_dim: int
) -> Algorithm:
    """Build Diffusion-QL or EDP for a dataset.

    Args:
      config: options.
      statistics: of the dataset, from `jaxdiff.algorithms.offline.common.measure`.
      action_dim: A.

    Returns:
      An algorithm with the one learner "policy".
    """
    q: Any = TwinQ(config.widths, config.layer_norm)
    score = score_network(config, action_dim)
    steps = ddpm(vp_schedule(config.diffusion_steps, time="fraction"))

    def draw(states, key, inputs):
        return sample_actions(
            key,
            score,
            states["policy"].slow["actor"],
            inputs,
            steps,
            action_dim=action_dim,
            clip=1.0,
            temperature=config.noise,
        )

    def value(states, inputs, actions):
        least = q.apply(states["policy"].slow["target"], inputs, actions).min(0)
        return config.temperature * least

    learner = diffusion_ql_learner(
        config, score, q, preparing(config, statistics), action_dim=action_dim
    )
    return Algorithm(
        learners={"policy": learner},
        act=choosing(
            draw,
            value,
            statistics,
            candidates=config.candidates,
            best=config.pick == "best",
        ),
        init_carry=lambda batch: (),
    )


def diffusion_ql_learner(
    config: DiffusionQLConfig,
    score: Any,
    q: Any,
    prepare: Callable[..., Transitions],
    *,
    action_dim: int,
) -> Learner:
    """Build the learner of equations (1) to (3).

    Its parameters are `{"actor", "q"}`, their slow copies `slow["actor"]` and
    `slow["target"]`. `hyper` may hold an "eta" to take the place of the option.

    Args:
      config: options.
      score: of the policy, `(x [B, A], time [B], inputs [B, S], keys) -> noise`.
      q: `(inputs [B, S], actions [B, A]) -> [2, B]`.
      prepare: as in a `Learner`.
      action_dim: A.
    """
    levels = vp_schedule(config.diffusion_steps, time="fraction")
    draw_level, steps = uniform_row(levels), ddpm(levels)

    def draws(keys, params, inputs):
        return sample_each(
            keys, score, params, inputs, steps, action_dim=action_dim, clip=1.0
        )

    def init_params(key, batch):
        inputs, actions = zeros(batch)
        actor_key, q_key = jax.random.split(key)
        return {
            "actor": score.init(actor_key, actions, jnp.zeros(1), inputs),
            "q": q.init(q_key, inputs, actions),
        }

    def actor_loss(params, seen: Seen):
        batch = seen.batch
        noise_keys, chain_keys, drop_keys = jax.vmap(
            lambda key: jax.random.split(key, 3), out_axes=1
        )(seen.keys)
        x_t, level = noise_examples(noise_keys, draw_level, batch.actions)
        noise = from_x0(batch.actions, x_t, level, prediction="noise")
        found = score.apply(params, x_t, level.time, batch.inputs, drop_keys)
        cloning = jnp.square(found - noise).mean()
        if config.one_step:
            actions = to_x0(found, x_t, level, prediction="noise")
            actions = jnp.clip(jnp.asarray(actions), -1, 1)
        else:
            actions = draws(chain_keys, params, batch.inputs)
        values = q.apply(seen.params["q"], batch.inputs, actions)
        sizes = [seen.mean(jnp.abs(jax.lax.stop_gradient(each))) for each in values]
        # The guard is for critics that are still zero.
        gain = (values[0] / jnp.maximum(sizes[1], 1e-8)).mean()
        gain = (gain + (values[1] / jnp.maximum(sizes[0], 1e-8)).mean()) / 2
        eta = seen.hyper.get("eta", config.eta)
        return cloning - eta * gain, {"cloning": cloning, "gain": gain}

    def q_loss(params, seen: Seen):
        batch, many = seen.batch, config.backup_candidates
        keys = jax.vmap(lambda key: jax.random.split(key, many))(seen.keys).ravel()
        inputs = jnp.repeat(batch.next_inputs, many, axis=0)
        actions = draws(keys, seen.slow["actor"], inputs)
        ahead = q.apply(seen.slow["target"], inputs, actions)
        ahead = ahead.reshape(2, -1, many).max(-1).min(0)
        loss, value = bellman_error(q, params, batch, ahead, config.discount)
        return loss, {"q": value}

    rate = decaying(config.learning_rate, config.policy_decay)
    actor = optax.adamw(rate, weight_decay=config.score_decay)
    if config.max_gradient is not None:
        actor = optax.chain(optax.clip_by_global_norm(config.max_gradient), actor)
    slowly = Averaging(
        config.ema_decay, every=config.ema_every, start=config.ema_start, part="actor"
    )
    return joint_learner(
        prepare,
        init_params,
        {"actor": actor_loss, "q": q_loss},
        {"actor": actor, "q": optax.adam(rate)},
        averages={
            "actor": slowly,
            "target": Averaging(1 - config.target_rate, part="q"),
        },
    )
