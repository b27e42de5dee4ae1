"""SRPO: a policy that acts in one step, kept near the data by a diffusion model.

Three learners, one after another: the critic of IQL (`jaxdiff.algorithms.offline.critic`), a
diffusion model of the behaviour (`jaxdiff.algorithms.offline.behaviour`), and the policy,

(1) max_pi E_s [ beta Q(s, pi(s)) - E_t omega(t) sigma_t / alpha_t KL(pi_t || mu_t) ],

whose gradient takes a forward pass of the frozen diffusion model at a random level and
the gradient of the frozen critic (Chen et al., 2024, "Score regularized policy
optimization through diffusion behavior", arXiv:2310.07297, equation 15 times beta; see
`jaxdiff.diffusion.regularize`). Q is the mean of both *target* critics at the action
itself, the score is that at the noised action. No chain is sampled, neither in training
nor in acting.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm, Averaging, Learner, decaying, descent
from jaxdiff.algorithms.offline.behaviour import (
    BehaviourConfig,
    behaviour_learner,
    score_network,
)
from jaxdiff.algorithms.offline.common import (
    Statistics,
    acting,
    preparing,
    zeros,
)
from jaxdiff.algorithms.offline.critic import (
    check_expectile,
    critic_of,
    q_gradient,
)
from jaxdiff.data.transitions import Transitions, draw_transition
from jaxdiff.diffusion import Omega, score_gradient, uniform_time, unit_rms, vp_level
from jaxdiff.errors import UserError
from jaxdiff.networks import Actor
from jaxdiff.options import check_options

# Times at which the policy meets the behaviour; what lies beyond says little.
FIRST_TIME, LAST_TIME = 0.02, 0.98


@dataclasses.dataclass(frozen=True)
class SRPOConfig(BehaviourConfig):
    """Options of SRPO, beside those of data, critic and behaviour.

    Attributes:
      actor: of the policy: an action, or a Gaussian whose spread is learned.
      temperature: beta of equation (1), the greedier the higher; 0 seeks an action that
        is likely in the data.
      omega: weight of noise levels: sigma^2 ("variance"), 1 ("one"), alpha / sigma
        ("ratio") or sigma^4 ("variance-squared").
      baseline: subtract the noise from the model's prediction of it: the same mean, and
        less variance wherever the noise hides the data; more at the lowest levels,
        which weigh little but for "ratio". The released code does without.
      unit_gradient: scale the gradient of Q to a mean square of 1 in every state.
      expectile: of the values among those of the actions in the data: 0.5 is their
        mean, near 1 the best of them.
      policy_decay: updates over which the policy's learning rate falls to zero along a
        cosine; 0 keeps it.
    """

    actor: Literal["dirac", "gaussian"] = "dirac"
    temperature: float = 0.1
    omega: Omega = "variance"
    baseline: bool = True
    unit_gradient: bool = False
    expectile: float = 0.7
    policy_decay: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self, temperature=0, policy_decay=0)
        check_expectile(self.expectile)
        if self.actor == "gaussian" and not self.baseline:
            raise UserError(
                "--no-baseline takes the entropy of a gaussian actor away, which would "
                "shrink to a point; leave it out, or choose --actor dirac"
            )


def srpo(config: SRPOConfig, statistics: Statistics, *, action_dim: int) -> Algorithm:
    """Build SRPO for a dataset.

    Args:
      config: options.
      statistics: of the dataset, from `jaxdiff.algorithms.offline.common.measure`.
      action_dim: A.

    Returns:
      An algorithm with the learners "critic", "behaviour" and "policy".
    """
    actor: Any = Actor(action_dim, config.widths, config.actor == "gaussian")
    score = score_network(config, action_dim)
    prepare = preparing(config, statistics)
    q, _, critic = critic_of(config, prepare)
    return Algorithm(
        learners={
            "critic": critic,
            "behaviour": behaviour_learner(
                score,
                prepare,
                optax.adamw(config.learning_rate, weight_decay=config.score_decay),
                averaging=Averaging(config.ema_decay),
            ),
            "policy": regularised_learner(
                actor,
                q,
                score,
                prepare,
                optax.adam(decaying(config.learning_rate, config.policy_decay)),
                temperature=config.temperature,
                kind=config.omega,
                baseline=config.baseline,
                unit_gradient=config.unit_gradient,
            ),
        },
        act=acting(actor, statistics),
        init_carry=lambda batch: (),
    )


def regularised_learner(
    actor: Any,
    q: Any,
    score: Any,
    prepare: Callable[..., Transitions],
    optimizer: optax.GradientTransformation,
    *,
    temperature: float,
    kind: Omega = "variance",
    baseline: bool = True,
    unit_gradient: bool = False,
) -> Learner:
    """Build the learner of equation (1), after learners "critic" and "behaviour".

    `hyper` may hold a "temperature" to take the place of the one given.

    Args:
      actor: `inputs [B, S] -> (mean [B, A], standard deviation [A] or None)`.
      q: of the critic.
      score: network of the behaviour.
      prepare: as in a `Learner`.
      optimizer: of the actor.
      temperature: beta.
      kind: of omega.
      baseline: see `jaxdiff.diffusion.regularize.score_gradient`.
      unit_gradient: apply `unit_rms` to the gradients of Q.
    """
    draw_level = uniform_time(vp_level, FIRST_TIME, LAST_TIME)

    def chance(key, shape):
        level_key, noise_key, actor_key = jax.random.split(key, 3)
        noise = jax.random.normal(noise_key, shape)
        return draw_level(level_key), noise, jax.random.normal(actor_key, shape)

    def gradient(state, keys, batch, frozen, hyper):
        shape = batch.actions.shape[1:]
        level, noise, xi = jax.vmap(lambda key: chance(key, shape))(keys)
        behaviour = frozen["behaviour"].slow["ema"]

        def loss(params):
            mean, std = actor.apply(params, batch.inputs)
            std = jnp.zeros(shape) if std is None else std
            action = mean + std * xi
            # What is fixed here is a direction, carried on to the actor below.
            mean, std, fixed = jax.lax.stop_gradient((mean, std, action))
            away = score_gradient(
                lambda x, time: score.apply(behaviour, x, time, batch.inputs),
                level,
                noise,
                mean,
                std * xi,
                std,
                kind=kind,
                baseline=baseline,
            )
            values, rise = q_gradient(
                q, frozen["critic"].slow["target"], batch.inputs, fixed
            )
            rise = unit_rms(rise) if unit_gradient else rise
            beta = hyper.get("temperature", temperature)
            downhill = away - beta * rise
            surrogate = (downhill * action).sum(-1).mean()
            metrics = {
                "loss": surrogate,
                "q": values.mean(),
                "score_gradient": jnp.abs(away).mean(),
                "q_gradient": jnp.abs(beta * rise).mean(),
            }
            return surrogate, metrics

        return jax.grad(loss, has_aux=True)(state.params)

    return descent(
        prepare,
        draw_transition,
        lambda key, batch: actor.init(key, zeros(batch)[0]),
        gradient,
        optimizer,
    )
