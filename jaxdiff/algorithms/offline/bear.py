"""BEAR: the best policy whose samples resemble samples of the behaviour.

A policy pi of tanh-Gaussians climbs Q while its samples stay close to those of a
behaviour model (`jaxdiff.algorithms.offline.vae`). The distance is the maximum mean
discrepancy between a few samples of each, x_i of pi and y_j of the model, before tanh,

(1) MMD^2 = mean k(x_i, x_i') + mean k(y_j, y_j') - 2 mean k(x_i, y_j),
    k(x, y) = exp(-|x - y|_1 / (2 width)) or exp(-|x - y|_2^2 / (2 width))

and a multiplier w keeps it at a bound,

(2) max_pi E [min_i Q_i(s, b) - w MMD],   b ~ pi(.|s)
(3) min_w -w E [MMD - bound]

(Kumar et al., 2019, arXiv:1906.00949). The first updates leave Q out of (2). The
critics are those of BCQ (`jaxdiff.algorithms.offline.bcq`, equations 2 and 3), over
samples of the slow copy of pi. A few samples tell where a policy has support rather
than how dense it is, so pi may keep to a part of what the behaviour does.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm, Averaging, Learner
from jaxdiff.algorithms.offline.bcq import careful
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
from jaxdiff.diffusion import normal, split_keys
from jaxdiff.networks import ActionVAE, SquashedActor, TwinQ
from jaxdiff.options import above, at_least, at_most

# Bounds of log w.
_BOUNDS = (-5.0, 10.0)


@dataclasses.dataclass(frozen=True)
class BEARConfig(OfflineConfig):
    """Options of BEAR, beside those of data and critics.

    Attributes:
      kernel: kernel of the discrepancy between policy and behaviour.
      width: width of the kernel.
      bound: discrepancy that the multiplier enforces.
      draws: samples of policy and of behaviour that the discrepancy compares.
      multiplier_rate: step size of Adam for the logarithm of the multiplier.
      warm_up: updates in which the policy only copies the behaviour.
      care: weight of the smaller critic in the value of a next state, from 0 to 1; the
        larger critic has the rest.
      backup_candidates: actions drawn in a next state; the best one gives its value.
      vae_widths: widths of the hidden layers of the behaviour model.
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

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from above(self, 0, "width")
        yield from at_least(self, 0, "bound", "multiplier_rate", "warm_up", "care")
        yield from at_most(self, 1, "care")
        yield from at_least(self, 1, "draws", "backup_candidates", "vae_widths")


@dataclasses.dataclass(frozen=True)
class BEARActing(BestOfN):
    """How BEAR chooses an action."""

    candidates: int = 10


def bear(
    config: BEARConfig, acting: BEARActing, statistics: Statistics, spec: Spec
) -> Algorithm:
    """Build BEAR, with the learners "behaviour" and "policy"."""
    q: Any = TwinQ(config.widths, config.layer_norm)
    vae: Any = ActionVAE(spec.action_dim, config.vae_widths)
    actor: Any = SquashedActor(spec.action_dim, config.widths)
    prepare = make_prepare(config, statistics)

    def sample(states, keys, inputs, options):
        mean, std = actor.apply(states["policy"].params["actor"], inputs)
        return jnp.tanh(mean + options.noise * std * normal(keys, mean.shape))

    def value(states, inputs, actions, options):
        del options
        return q.apply(states["policy"].params["q"], inputs, actions)[0]

    return Algorithm(
        learners={
            "behaviour": vae_learner(vae, prepare, optax.adam(config.learning_rate)),
            "policy": bear_learner(config, actor, vae, q, prepare),
        },
        act=best_of_n(sample, value, statistics, acting),
    )


def discrepancy(x: jax.Array, y: jax.Array, *, kernel: str, width: float) -> jax.Array:
    """Return the maximum mean discrepancy, the root of equation (1).

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
    # The offset keeps the gradient of the root finite at 0.
    return jnp.sqrt(jnp.maximum(square, 0.0) + 1e-6)


def _bounded(step: Any, log_multiplier: Any) -> Any:
    # A clip inside of the loss would have no gradient beyond a bound, and a multiplier
    # that once went there would never return.
    return jnp.clip(log_multiplier + step, *_BOUNDS) - log_multiplier


def bear_learner(
    config: BEARConfig,
    actor: Any,
    vae: Any,
    q: Any,
    prepare: Callable[..., Transitions],
) -> Learner:
    """Build the learner of equations (2) and (3); it reads the learner "behaviour".

    Its parameters are `{"actor", "multiplier", "q"}`, where "multiplier" is log w; slow
    copies are `slow["actor"]` and `slow["target"]`.

    Args:
      config: options.
      actor: `inputs [B, S] -> (mean [B, A], standard deviation [B, A])`, before tanh.
      vae: network of the behaviour model.
      q: `(inputs [B, S], actions [B, A]) -> [2, B]`.
      prepare: as in a `Learner`.
    """

    def sample(params, inputs, keys, count):
        """Draw actions of the policy `[B, count, A]`, before tanh."""
        mean, std = actor.apply(params, inputs)
        xi = normal(keys, (len(mean), count, mean.shape[-1]))
        return mean[:, None] + std[:, None] * xi

    def compare(params, context):
        """Draw from the policy `[B, count, A]`, and find the discrepancy `[B]`."""
        policy_keys, code_keys = split_keys(context.keys)
        inputs, count = context.batch.inputs, config.draws
        mine = sample(params, inputs, policy_keys, count)
        size = 2 * mine.shape[-1]
        theirs = decode(
            vae,
            context.frozen["behaviour"].params,
            jnp.repeat(inputs, count, axis=0),
            normal(code_keys, (len(inputs), count, size)).reshape(-1, size),
        ).reshape(mine.shape)
        apart = discrepancy(mine, theirs, kernel=config.kernel, width=config.width)
        return mine, apart

    def init_params(key, batch):
        inputs, actions = zeros(batch)
        actor_key, q_key = jax.random.split(key)
        return {
            "actor": actor.init(actor_key, inputs),
            "multiplier": jnp.zeros(()),
            "q": q.init(q_key, inputs, actions),
        }

    def actor_loss(params, context: Context):
        mine, apart = compare(params, context)
        inputs = jnp.repeat(context.batch.inputs, mine.shape[1], axis=0)
        actions = jnp.tanh(mine.reshape(-1, mine.shape[-1]))
        gain = q.apply(context.params["q"], inputs, actions).min(0).mean()
        gain = jnp.where(context.step < config.warm_up, 0.0, gain)
        apart = apart.mean()
        loss = jnp.exp(context.params["multiplier"]) * apart - gain
        return loss, {"discrepancy": apart}

    def multiplier_loss(log_multiplier, context: Context):
        _, apart = compare(context.params["actor"], context)
        return -jnp.exp(log_multiplier) * (apart.mean() - config.bound), {}

    def q_loss(params, context: Context):
        many, inputs = config.backup_candidates, context.batch.next_inputs
        actions = sample(context.slow["actor"], inputs, context.keys, many)
        values = q.apply(
            context.slow["target"],
            jnp.repeat(inputs, many, axis=0),
            jnp.tanh(actions).reshape(-1, actions.shape[-1]),
        )
        ahead = careful(values, config.care).reshape(-1, many).max(-1)
        loss, value = bellman_error(q, params, context.batch, ahead, config.discount)
        return loss, {"q": value}

    adam, slowly = optax.adam(config.learning_rate), 1 - config.target_rate
    return joint_learner(
        prepare,
        init_params,
        {"actor": actor_loss, "multiplier": multiplier_loss, "q": q_loss},
        {
            "actor": adam,
            "multiplier": optax.chain(
                optax.adam(config.multiplier_rate), optax.stateless(_bounded)
            ),
            "q": adam,
        },
        averages={
            "actor": Averaging(slowly, part="actor"),
            "target": Averaging(slowly, part="q"),
        },
    )


ENTRY = offline_entry(
    name="bear",
    summary="a policy whose samples stay close to those of the behaviour",
    config=BEARConfig,
    acting=BEARActing,
    build=bear,
    learners=("behaviour", "policy"),
    laptop={"vae_widths": (256, 256), "warm_up": 1_000},
)
