"""BCQ: the best of several actions that the data may hold, each moved a little.

A model of the behaviour (`jaxdiff.algorithms.offline.vae`) draws actions, a network xi moves
them by at most phi, and critics, which only ever see such actions, choose:

(1) b = clip(a + phi tanh xi(s, a)),   a ~ behaviour(s)
(2) y = r + discount (1 - terminal) max_k [care min_i Qtarget_i(s', b'_k)
        + (1 - care) max_i Qtarget_i(s', b'_k)],   b'_k by the slow copy of xi
(3) min_Q E (y - Q_i(s, a))^2,   max_xi E Q_1(s, b)

(Fujimoto et al., 2019, arXiv:1812.02900.) Acting takes the best of many b by Q_1. The
authors train all side by side; here the behaviour finishes first.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm, ArrayTree, Averaging, Learner
from jaxdiff.algorithms.offline.best_of_n import choosing
from jaxdiff.algorithms.offline.common import (
    OfflineConfig,
    Statistics,
    preparing,
    zeros,
)
from jaxdiff.algorithms.offline.joint import Seen, bellman_error, joint_learner
from jaxdiff.algorithms.offline.vae import decode, vae_learner
from jaxdiff.data.transitions import Transitions
from jaxdiff.errors import UserError
from jaxdiff.networks import ActionVAE, Actor, TwinQ
from jaxdiff.options import check_options


@dataclasses.dataclass(frozen=True)
class BCQConfig(OfflineConfig):
    """Options of BCQ, beside those of data and critics.

    Attributes:
      phi: how far an action may be moved, where actions are in [-1, 1].
      care: weight of the smaller critic in equation (2), in [0, 1].
      backup_candidates: how many b'_k there are.
      vae_widths: of the hidden layers of the behaviour's model.
      candidates: drawn when acting, of which the best is done.
      noise: scale of what is drawn in acting; at 0 all candidates are one.
    """

    phi: float = 0.05
    care: float = 0.75
    backup_candidates: int = 10
    vae_widths: tuple[int, ...] = (750, 750)
    candidates: int = 100
    noise: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        ones = ("backup_candidates", "vae_widths", "candidates")
        rest = ("phi", "care", "noise")
        check_options(self, **dict.fromkeys(ones, 1), **dict.fromkeys(rest, 0))
        if self.care > 1:
            raise UserError(f"--care is {self.care}; it must be at most 1")


def bcq(config: BCQConfig, statistics: Statistics, *, action_dim: int) -> Algorithm:
    """Build BCQ for a dataset.

    Args:
      config: options.
      statistics: of the dataset, from `jaxdiff.algorithms.offline.common.measure`.
      action_dim: A.

    Returns:
      An algorithm with the learners "behaviour" and "policy".
    """
    q: Any = TwinQ(config.widths, config.layer_norm)
    vae: Any = ActionVAE(action_dim, config.vae_widths)
    mover: Any = Actor(action_dim, config.widths)
    prepare = preparing(config, statistics)

    def draw(states, key, inputs):
        normals = jax.random.normal(key, (len(inputs), 2 * action_dim))
        params = states["behaviour"].params
        actions = jnp.tanh(decode(vae, params, inputs, config.noise * normals))
        moving = states["policy"].params["mover"]
        return moved(mover, moving, inputs, actions, config.phi)

    def value(states, inputs, actions):
        return q.apply(states["policy"].params["q"], inputs, actions)[0]

    adam = optax.adam(config.learning_rate)
    return Algorithm(
        learners={
            "behaviour": vae_learner(vae, prepare, adam),
            "policy": bcq_learner(config, mover, vae, q, prepare),
        },
        act=choosing(draw, value, statistics, candidates=config.candidates, best=True),
        init_carry=lambda batch: (),
    )


def moved(
    mover: Any, params: ArrayTree, inputs: jax.Array, actions: jax.Array, phi: float
) -> jax.Array:
    """Move actions by at most phi, equation (1): `[B, A]`."""
    step, _ = mover.apply(params, jnp.concatenate([inputs, actions], axis=-1))
    return jnp.clip(actions + phi * step, -1, 1)


def careful(values: jax.Array, care: float) -> jax.Array:
    """Weigh the smaller and the larger of critics `[2, ...]`, equation (2): `[...]`."""
    return care * values.min(0) + (1 - care) * values.max(0)


def bcq_learner(
    config: BCQConfig,
    mover: Any,
    vae: Any,
    q: Any,
    prepare: Callable[..., Transitions],
) -> Learner:
    """Build the learner of equations (1) to (3), after a learner "behaviour".

    Its parameters are `{"mover", "q"}`, their slow copies `slow["mover"]` and
    `slow["target"]`.

    Args:
      config: options.
      mover: `[inputs | actions] [B, S + A] -> (steps in (-1, 1) [B, A], None)`.
      vae: of the behaviour.
      q: `(inputs [B, S], actions [B, A]) -> [2, B]`.
      prepare: as in a `Learner`.
    """

    def draws(seen, inputs, keys):
        size = 2 * seen.batch.actions.shape[-1]
        normals = jax.vmap(lambda key: jax.random.normal(key, (size,)))(keys)
        params = seen.frozen["behaviour"].params
        return jnp.tanh(decode(vae, params, inputs, normals))

    def init_params(key, batch):
        inputs, actions = zeros(batch)
        mover_key, q_key = jax.random.split(key)
        both = jnp.concatenate([inputs, actions], axis=-1)
        return {
            "mover": mover.init(mover_key, both),
            "q": q.init(q_key, inputs, actions),
        }

    def mover_loss(params, seen: Seen):
        inputs = seen.batch.inputs
        actions = draws(seen, inputs, seen.keys)
        actions = moved(mover, params, inputs, actions, config.phi)
        return -q.apply(seen.params["q"], inputs, actions)[0].mean(), {}

    def q_loss(params, seen: Seen):
        many = config.backup_candidates
        keys = jax.vmap(lambda key: jax.random.split(key, many))(seen.keys).ravel()
        inputs = jnp.repeat(seen.batch.next_inputs, many, axis=0)
        actions = draws(seen, inputs, keys)
        actions = moved(mover, seen.slow["mover"], inputs, actions, config.phi)
        values = careful(q.apply(seen.slow["target"], inputs, actions), config.care)
        ahead = values.reshape(-1, many).max(-1)
        loss, value = bellman_error(q, params, seen.batch, ahead, config.discount)
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
