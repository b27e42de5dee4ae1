"""Diffusion-QL: a diffusion policy that climbs Q through its own sampling chain.

The policy pi draws an action by a short chain of denoising steps. One loss trains it to
denoise the actions of the data and to end the chain where the critics are high:

(1) min_pi E |eps - eps_pi(a_t, t, s)|^2 / A - eta L_Q,
    L_Q = 1/2 sum over (i, j) of E Q_i(s, a_0) / mean |Q_j(s, a_0)|,   i != j
(2) min_Q E (r + discount (1 - terminal) min_i max_k Qtarget_i(s', a'_k) - Q_i(s, a))^2

Here a_0 is a draw of pi, differentiated through all steps, and a'_k are draws of its
slow copy, usually one (Wang et al., 2023, arXiv:2208.06193; the authors toss a coin for
the order of the critics, and (1) is the mean of both orders). Acting draws candidates
and chooses one with the probabilities softmax(temperature min_i Qtarget_i).

EDP (Kang et al., 2023, arXiv:2305.20081) replaces the chain in (1) by one step,

(3) a_0 = (a_t - sigma_t eps_pi(a_t, t, s)) / alpha_t,

from the a_t of the denoising loss (option `one_step`). However long the chain, the
policy's loss then calls the network once.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm, Averaging, Learner
from jaxdiff.algorithms.offline.behaviour import (
    BehaviourConfig,
    sample_actions,
    score_network,
)
from jaxdiff.algorithms.offline.best_of_n import BestOfN, best_of_n
from jaxdiff.algorithms.offline.common import (
    Statistics,
    make_prepare,
    offline_entry,
    zeros,
)
from jaxdiff.algorithms.offline.joint import Context, bellman_error, joint_learner
from jaxdiff.data.spec import Spec
from jaxdiff.data.transitions import Transitions
from jaxdiff.diffusion import (
    ddpm,
    from_x0,
    noise_examples,
    repeat_keys,
    split_keys,
    to_x0,
    uniform_row,
    vp_schedule,
)
from jaxdiff.networks import TwinQ
from jaxdiff.options import at_least, at_most


@dataclasses.dataclass(frozen=True)
class DiffusionQLConfig(BehaviourConfig):
    """Options of Diffusion-QL and EDP, beside those of data, critics and network.

    Attributes:
      eta: weight of values in the policy's loss; higher is greedier, and 0 clones the
        behaviour.
      one_step: estimate the action of the policy's loss by one step from a noised
        action of the data, as EDP does, in place of the whole chain.
      diffusion_steps: number of noise levels and of steps of the chain.
      backup_candidates: actions drawn in a next state; the best one gives its value.
      max_gradient: largest norm of the policy's gradient; none for no limit.
      ema_decay: weight of the old average when the policy's slow copy moves.
      ema_every: updates between two moves of the policy's slow copy.
      ema_start: the policy's slow copy is a plain copy until this update.
      learning_rate_decay: share of the updates over which the learning rate falls to 0
        along a cosine; 0 keeps it.
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
    learning_rate_decay: float = 0.0

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 1, "diffusion_steps", "backup_candidates")
        yield from at_least(self, 1, "ema_every")
        yield from at_least(self, 0, "eta", "max_gradient", "ema_start")
        yield from at_least(self, 0, "learning_rate_decay")
        yield from at_most(self, 1, "learning_rate_decay")


@dataclasses.dataclass(frozen=True)
class DiffusionQLActing(BestOfN):
    """How Diffusion-QL and EDP choose an action.

    Attributes:
      pick: draw a candidate by "softmax" of its value, or take the "best".
      temperature: factor of values in "softmax"; higher is greedier.
    """

    candidates: int = 50
    pick: Literal["softmax", "best"] = "softmax"
    temperature: float = 1.0

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 0, "temperature")


def diffusion_ql(
    config: DiffusionQLConfig,
    acting: DiffusionQLActing,
    statistics: Statistics,
    spec: Spec,
) -> Algorithm:
    """Build Diffusion-QL or EDP, with the learner "policy"."""
    q: Any = TwinQ(config.widths, config.layer_norm)
    score = score_network(config, spec.action_dim)
    steps = ddpm(vp_schedule(config.diffusion_steps, time="fraction"))

    def sample(states, keys, inputs, options):
        return sample_actions(
            keys,
            score,
            states["policy"].slow["actor"],
            inputs,
            steps,
            action_dim=spec.action_dim,
            clip=1.0,
            temperature=options.noise,
        )

    def value(states, inputs, actions, options):
        least = q.apply(states["policy"].slow["target"], inputs, actions).min(0)
        return options.temperature * least

    learner = diffusion_ql_learner(
        config, score, q, make_prepare(config, statistics), action_dim=spec.action_dim
    )
    return Algorithm(
        learners={"policy": learner},
        act=best_of_n(sample, value, statistics, acting, best=acting.pick == "best"),
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

    Its parameters are `{"actor", "q"}`; slow copies are `slow["actor"]` and
    `slow["target"]`. An "eta" in `hyper` replaces the option.

    Args:
      config: options.
      score: of the policy, `(x [B, A], time [B], inputs [B, S], keys) -> noise`.
      q: `(inputs [B, S], actions [B, A]) -> [2, B]`.
      prepare: as in a `Learner`.
      action_dim: A.
    """
    levels = vp_schedule(config.diffusion_steps, time="fraction")
    draw_level, steps = uniform_row(levels), ddpm(levels)

    def chain(keys, params, inputs):
        return sample_actions(
            keys, score, params, inputs, steps, action_dim=action_dim, clip=1.0
        )

    def init_params(key, batch):
        inputs, actions = zeros(batch)
        actor_key, q_key = jax.random.split(key)
        return {
            "actor": score.init(actor_key, actions, jnp.zeros(1), inputs),
            "q": q.init(q_key, inputs, actions),
        }

    def actor_loss(params, context: Context):
        batch = context.batch
        noise_keys, chain_keys, drop_keys = split_keys(context.keys, 3)
        x_t, level = noise_examples(noise_keys, draw_level, batch.actions)
        noise = from_x0(batch.actions, x_t, level, prediction="noise")
        found = score.apply(params, x_t, level.time, batch.inputs, drop_keys)
        cloning = jnp.square(found - noise).mean()
        if config.one_step:
            actions = to_x0(found, x_t, level, prediction="noise")
            actions = jnp.clip(jnp.asarray(actions), -1, 1)
        else:
            actions = chain(chain_keys, params, batch.inputs)
        values = q.apply(context.params["q"], batch.inputs, actions)
        sizes = [context.mean(jnp.abs(jax.lax.stop_gradient(each))) for each in values]
        # The guards prevent 0 / 0 while the critics are zero.
        gain = (values[0] / jnp.maximum(sizes[1], 1e-8)).mean()
        gain = (gain + (values[1] / jnp.maximum(sizes[0], 1e-8)).mean()) / 2
        eta = context.hyper.get("eta", config.eta)
        return cloning - eta * gain, {"cloning": cloning, "gain": gain}

    def q_loss(params, context: Context):
        batch, many = context.batch, config.backup_candidates
        inputs = jnp.repeat(batch.next_inputs, many, axis=0)
        keys = repeat_keys(context.keys, many)
        actions = chain(keys, context.slow["actor"], inputs)
        ahead = q.apply(context.slow["target"], inputs, actions)
        ahead = ahead.reshape(2, -1, many).max(-1).min(0)
        loss, value = bellman_error(q, params, batch, ahead, config.discount)
        return loss, {"q": value}

    actor = optax.adamw(config.learning_rate, weight_decay=config.score_decay)
    if config.max_gradient is not None:
        actor = optax.chain(optax.clip_by_global_norm(config.max_gradient), actor)
    slowly = Averaging(
        config.ema_decay, every=config.ema_every, start=config.ema_start, part="actor"
    )
    return joint_learner(
        prepare,
        init_params,
        {"actor": actor_loss, "q": q_loss},
        {"actor": actor, "q": optax.adam(config.learning_rate)},
        averages={
            "actor": slowly,
            "target": Averaging(1 - config.target_rate, part="q"),
        },
        learning_rate_decay=config.learning_rate_decay,
    )


ENTRY = offline_entry(
    name="diffusion-ql",
    summary="a diffusion policy that climbs Q through its chain, or by one step (EDP)",
    config=DiffusionQLConfig,
    acting=DiffusionQLActing,
    build=diffusion_ql,
    learners=("policy",),
    laptop={"score_width": 128, "score_blocks": 1},
    laptop_acting={"candidates": 16},
)
