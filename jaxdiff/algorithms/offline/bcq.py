"""BCQ: the best of several actions of the behaviour, each adjusted a little.

A model of the behaviour (`jaxdiff.algorithms.offline.vae`) draws actions, a network xi
moves each by at most phi, and critics choose. Critics only ever evaluate such actions:

(1) b = clip(a + phi tanh xi(s, a)),   a ~ behaviour(s)
(2) y = r + discount (1 - terminal) max_k [care min_i Qtarget_i(s', b'_k)
        + (1 - care) max_i Qtarget_i(s', b'_k)],   b'_k by the slow copy of xi
(3) min_Q E (y - Q_i(s, a))^2,   max_xi E Q_1(s, b)

(Fujimoto et al., 2019, arXiv:1812.02900.) Acting takes the best of many b by Q_1. The
authors train all parts side by side; here the behaviour model trains first.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm, ArrayTree, Averaging, Learner
from jaxdiff.algorithms.offline.best_of_n import BestOfN, best_of_n
from jaxdiff.algorithms.offline.common import (
    OfflineConfig,
    Statistics,
    make_prepare,
    offline_entry,
    zeros,
)
from jaxdiff.algorithms.offline.joint import Context, bellman_error, joint_learner
from jaxdiff.algorithms.offline.vae import decode, vae_learner
from jaxdiff.data.spec import Spec
from jaxdiff.data.transitions import Transitions
from jaxdiff.diffusion import normal, repeat_keys
from jaxdiff.networks import ActionVAE, Actor, TwinQ
from jaxdiff.options import at_least, at_most


@dataclasses.dataclass(frozen=True)
class BCQConfig(OfflineConfig):
    """Options of BCQ, beside those of data and critics.

    Attributes:
      phi: largest change of an action that the behaviour model drew; actions lie in
        [-1, 1].
      care: weight of the smaller critic in the value of a next state, from 0 to 1; the
        larger critic has the rest.
      backup_candidates: actions drawn in a next state; the best one gives its value.
      vae_widths: widths of the hidden layers of the behaviour model.
    """

    phi: float = 0.05
    care: float = 0.75
    backup_candidates: int = 10
    vae_widths: tuple[int, ...] = (750, 750)

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 0, "phi", "care")
        yield from at_most(self, 1, "care")
        yield from at_least(self, 1, "backup_candidates", "vae_widths")


@dataclasses.dataclass(frozen=True)
class BCQActing(BestOfN):
    """How BCQ chooses an action."""

    candidates: int = 100


def bcq(
    config: BCQConfig, acting: BCQActing, statistics: Statistics, spec: Spec
) -> Algorithm:
    """Build BCQ, with the learners "behaviour" and "policy"."""
    q: Any = TwinQ(config.widths, config.layer_norm)
    vae: Any = ActionVAE(spec.action_dim, config.vae_widths)
    mover: Any = Actor(spec.action_dim, config.widths)
    prepare = make_prepare(config, statistics)

    def sample(states, keys, inputs, options):
        noise = options.noise * normal(keys, (len(inputs), 2 * spec.action_dim))
        actions = jnp.tanh(decode(vae, states["behaviour"].params, inputs, noise))
        moving = states["policy"].params["mover"]
        return moved(mover, moving, inputs, actions, config.phi)

    def value(states, inputs, actions, options):
        del options
        return q.apply(states["policy"].params["q"], inputs, actions)[0]

    adam = optax.adam(config.learning_rate)
    return Algorithm(
        learners={
            "behaviour": vae_learner(vae, prepare, adam),
            "policy": bcq_learner(config, mover, vae, q, prepare),
        },
        act=best_of_n(sample, value, statistics, acting),
    )


def moved(
    mover: Any, params: ArrayTree, inputs: jax.Array, actions: jax.Array, phi: float
) -> jax.Array:
    """Move actions `[B, A]` by at most phi, equation (1)."""
    step, _ = mover.apply(params, jnp.concatenate([inputs, actions], axis=-1))
    return jnp.clip(actions + phi * step, -1, 1)


def careful(values: jax.Array, care: float) -> jax.Array:
    """Weigh the smaller and the larger critic of `[2, ...]`, equation (2): `[...]`."""
    return care * values.min(0) + (1 - care) * values.max(0)


def bcq_learner(
    config: BCQConfig,
    mover: Any,
    vae: Any,
    q: Any,
    prepare: Callable[..., Transitions],
) -> Learner:
    """Build the learner of equations (1) to (3); it reads the learner "behaviour".

    Its parameters are `{"mover", "q"}`; slow copies are `slow["mover"]` and
    `slow["target"]`.

    Args:
      config: options.
      mover: `[inputs | actions] [B, S + A] -> (steps in (-1, 1) [B, A], None)`.
      vae: network of the behaviour model.
      q: `(inputs [B, S], actions [B, A]) -> [2, B]`.
      prepare: as in a `Learner`.
    """

    def sample(context, inputs, keys):
        noise = normal(keys, (len(inputs), 2 * context.batch.actions.shape[-1]))
        params = context.frozen["behaviour"].params
        return jnp.tanh(decode(vae, params, inputs, noise))

    def init_params(key, batch):
        inputs, actions = zeros(batch)
        mover_key, q_key = jax.random.split(key)
        both = jnp.concatenate([inputs, actions], axis=-1)
        return {
            "mover": mover.init(mover_key, both),
            "q": q.init(q_key, inputs, actions),
        }

    def mover_loss(params, context: Context):
        inputs = context.batch.inputs
        actions = sample(context, inputs, context.keys)
        actions = moved(mover, params, inputs, actions, config.phi)
        return -q.apply(context.params["q"], inputs, actions)[0].mean(), {}

    def q_loss(params, context: Context):
        batch, many = context.batch, config.backup_candidates
        inputs = jnp.repeat(batch.next_inputs, many, axis=0)
        actions = sample(context, inputs, repeat_keys(context.keys, many))
        actions = moved(mover, context.slow["mover"], inputs, actions, config.phi)
        values = careful(q.apply(context.slow["target"], inputs, actions), config.care)
        ahead = values.reshape(-1, many).max(-1)
        loss, value = bellman_error(q, params, batch, ahead, config.discount)
        return loss, {"q": value}

    adam, slowly = optax.adam(config.learning_rate), 1 - config.target_rate
    return joint_learner(
        prepare,
        init_params,
        {"mover": mover_loss, "q": q_loss},
        {"mover": adam, "q": adam},
        averages={
            "mover": Averaging(slowly, part="mover"),
            "target": Averaging(slowly, part="q"),
        },
    )


ENTRY = offline_entry(
    name="bcq",
    summary="batch-constrained Q-learning",
    config=BCQConfig,
    acting=BCQActing,
    build=bcq,
    learners=("behaviour", "policy"),
    laptop={"vae_widths": (256, 256)},
    laptop_acting={"candidates": 20},
)
