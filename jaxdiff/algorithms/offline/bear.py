"""BEAR: the best policy whose draws could have been the data's.

A policy pi of tanh-Gaussians climbs Q as long as its draws look like those of a model
of the behaviour (`jaxdiff.algorithms.offline.vae`). How unlike they are is told by the maximum
mean discrepancy of a few draws of each, x_i of pi and y_j of the model, before tanh,

(1) MMD^2 = mean k(x_i, x_i') + mean k(y_j, y_j') - 2 mean k(x_i, y_j),
    k(x, y) = exp(-|x - y|_1 / (2 width)) or exp(-|x - y|_2^2 / (2 width))

and a multiplier w keeps it at a bound,

(2) max_pi E [min_i Q_i(s, b) - w MMD],   b ~ pi(.|s)
(3) min_w -w E [MMD - bound]

(Kumar et al., 2019, arXiv:1906.00949). In the first updates Q is left out of (2). The
critics are those of BCQ (`jaxdiff.algorithms.offline.bcq`, equations 2 and 3), over draws of
the slow copy of pi. A few draws tell where a policy is rather than how dense, so it may
stay in a part of what the behaviour does.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm, Averaging, Learner
from jaxdiff.algorithms.offline.bcq import careful
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
from jaxdiff.networks import ActionVAE, SquashedActor, TwinQ
from jaxdiff.options import check_options

# Of the logarithm of the multiplier.
_BOUNDS = (-5.0, 10.0)


@dataclasses.dataclass(frozen=True)
class BEARConfig(OfflineConfig):
    """Options of BEAR, beside those of data and critics.

    Attributes:
      kernel: of equation (1), "laplacian" or "gaussian".
      width: of the kernel.
      bound: of the discrepancy.
      draws: of policy and behaviour, whose discrepancy is measured.
      multiplier_rate: learning rate of the logarithm of w.
      warm_up: updates in which the policy only copies the behaviour.
      care: weight of the smaller critic, in [0, 1].
      backup_candidates: draws of the policy that critics look ahead to.
      vae_widths: of the hidden layers of the behaviour's model.
      candidates: drawn when acting, of which the best is done.
      noise: scale of what is drawn in acting; at 0 all candidates are one.
    """

    kernel: Literal["laplacian", "gaussian"] = "laplacian"
    width: float = 10.0
    bound: float = 0.05
    draws: int = 5
    multiplier_rate: float = 1e-3
    warm_up: int = 0
    care: float = 0.75
    backup_candidates: int = 10
    vae_widths: tuple[int, ...] = (750, 750)
    candidates: int = 10
    noise: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        ones = ("draws", "backup_candidates", "vae_widths", "candidates")
        rest = ("bound", "multiplier_rate", "warm_up", "care", "noise")
        check_options(self, **dict.fromkeys(ones, 1), **dict.fromkeys(rest, 0))
        if self.width <= 0:
            raise UserError(f"--width is {self.width}; it must be above 0")
        if self.care > 1:
            raise UserError(f"--care is {self.care}; it must be at most 1")


def bear(config: BEARConfig, statistics: Statistics, *, action_dim: int) -> Algorithm:
    """Build BEAR for a dataset.

    Args:
      config: options.
      statistics: of the dataset, from `jaxdiff.algorithms.offline.common.measure`.
      action_dim: A.

    Returns:
      An algorithm with the learners "behaviour" and "policy".
    """
    q: Any = TwinQ(config.widths, config.layer_norm)
    vae: Any = ActionVAE(action_dim, config.vae_widths)
    actor: Any = SquashedActor(action_dim, config.widths)
    prepare = preparing(config, statistics)

    def draw(states, key, inputs):
        mean, std = actor.apply(states["policy"].params["actor"], inputs)
        return jnp.tanh(mean + config.noise * std * jax.random.normal(key, mean.shape))

    def value(states, inputs, actions):
        return q.apply(states["policy"].params["q"], inputs, actions)[0]

    return Algorithm(
        learners={
            "behaviour": vae_learner(vae, prepare, optax.adam(config.learning_rate)),
            "policy": bear_learner(config, actor, vae, q, prepare),
        },
        act=choosing(draw, value, statistics, candidates=config.candidates, best=True),
        init_carry=lambda batch: (),
    )


def discrepancy(x: jax.Array, y: jax.Array, *, kernel: str, width: float) -> jax.Array:
    """Measure how unlike draws are, equation (1), its root.

    Args:
      x: `[..., N, A]`.
      y: `[..., M, A]`.
      kernel: "laplacian" or "gaussian".
      width: of the kernel.

    Returns:
      `[...]`.
    """

    def mean_kernel(x, y):
        apart = x[..., :, None, :] - y[..., None, :, :]
        size = jnp.abs(apart) if kernel == "laplacian" else apart**2
        return jnp.exp(-size.sum(-1) / (2 * width)).mean((-1, -2))

    square = mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y)
    # A root has no slope at zero.
    return jnp.sqrt(jnp.maximum(square, 0.0) + 1e-6)


def bear_learner(
    config: BEARConfig,
    actor: Any,
    vae: Any,
    q: Any,
    prepare: Callable[..., Transitions],
) -> Learner:
    """Build the learner of equations (2) and (3), after a learner "behaviour".

    Its parameters are `{"actor", "multiplier", "q"}`, the second the logarithm of w,
    their slow copies `slow["actor"]` and `slow["target"]`.

    Args:
      config: options.
      actor: `inputs [B, S] -> (mean [B, A], standard deviation [B, A])`, before tanh.
      vae: of the behaviour.
      q: `(inputs [B, S], actions [B, A]) -> [2, B]`.
      prepare: as in a `Learner`.
    """

    def draws(params, inputs, keys, count):
        """Of the policy, before tanh: `[B, count, A]`."""
        mean, std = actor.apply(params, inputs)
        shape = (count, mean.shape[-1])
        xi = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
        return mean[:, None] + std[:, None] * xi

    def unlike(params, seen, keys):
        """Draws of the policy `[B, count, A]`, and their discrepancy `[B]`."""
        policy_keys, code_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        inputs, count = seen.batch.inputs, config.draws
        mine = draws(params, inputs, policy_keys, count)
        size = mine.shape[-1]
        normals = jax.vmap(lambda key: jax.random.normal(key, (count, 2 * size)))(
            code_keys
        )
        theirs = decode(
            vae,
            seen.frozen["behaviour"].params,
            jnp.repeat(inputs, count, axis=0),
            normals.reshape(-1, 2 * size),
        ).reshape(mine.shape)
        found = discrepancy(mine, theirs, kernel=config.kernel, width=config.width)
        return mine, found

    def init_params(key, batch):
        inputs, actions = zeros(batch)
        actor_key, q_key = jax.random.split(key)
        return {
            "actor": actor.init(actor_key, inputs),
            "multiplier": jnp.zeros(()),
            "q": q.init(q_key, inputs, actions),
        }

    def weight(log_multiplier):
        return jnp.exp(jnp.clip(log_multiplier, *_BOUNDS))

    def actor_loss(params, seen: Seen):
        mine, apart = unlike(params, seen, seen.keys)
        inputs = jnp.repeat(seen.batch.inputs, mine.shape[1], axis=0)
        actions = jnp.tanh(mine.reshape(-1, mine.shape[-1]))
        gain = q.apply(seen.params["q"], inputs, actions).min(0).mean()
        gain = jnp.where(seen.step < config.warm_up, 0.0, gain)
        apart = apart.mean()
        loss = weight(seen.params["multiplier"]) * apart - gain
        return loss, {"discrepancy": apart}

    def multiplier_loss(log_multiplier, seen: Seen):
        _, apart = unlike(seen.params["actor"], seen, seen.keys)
        return -weight(log_multiplier) * (apart.mean() - config.bound), {}

    def q_loss(params, seen: Seen):
        many, inputs = config.backup_candidates, seen.batch.next_inputs
        actions = jnp.tanh(draws(seen.slow["actor"], inputs, seen.keys, many))
        values = q.apply(
            seen.slow["target"],
            jnp.repeat(inputs, many, axis=0),
            actions.reshape(-1, actions.shape[-1]),
        )
        ahead = careful(values, config.care).reshape(-1, many).max(-1)
        loss, value = bellman_error(q, params, seen.batch, ahead, config.discount)
        return loss, {"q": value}

    adam, slowly = optax.adam(config.learning_rate), 1 - config.target_rate
    return joint_learner(
        prepare,
        init_params,
        {"actor": actor_loss, "multiplier": multiplier_loss, "q": q_loss},
        {
            "actor": adam,
            "multiplier": optax.adam(config.multiplier_rate),
            "q": adam,
        },
        averages={
            "actor": Averaging(slowly, part="actor"),
            "target": Averaging(slowly, part="q"),
        },
    )
