"""SRPO: a policy that acts in one step, kept near the data by a diffusion model.

Three learners train one after another: the critic of IQL
(`jaxdiff.algorithms.offline.critic`), a diffusion model of the behaviour
(`jaxdiff.algorithms.offline.behaviour`), and the policy,

(1) max_pi E_s [ beta Q(s, pi(s)) - E_t omega(t) sigma_t / alpha_t KL(pi_t || mu_t) ],

whose gradient takes one forward pass of the frozen diffusion model at a random level
and the gradient of the frozen critic (Chen et al., 2024, "Score regularized policy
optimization through diffusion behavior", arXiv:2310.07297, equation 15 times beta; see
`jaxdiff.diffusion.regularize`). Q is the mean of both *target* critics at the action
itself; the score is taken at the noised action. Neither training nor acting runs a
sampling chain.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm, Averaging, Learner, descent
from jaxdiff.algorithms.offline.behaviour import (
    BehaviourConfig,
    behaviour_learner,
    score_network,
)
from jaxdiff.algorithms.offline.common import (
    Statistics,
    act_by_mean,
    make_prepare,
    offline_entry,
    zeros,
)
from jaxdiff.algorithms.offline.critic import CriticConfig, critic_of, q_gradient
from jaxdiff.data.spec import Spec
from jaxdiff.data.transitions import Transitions, draw_transition
from jaxdiff.diffusion import (
    Omega,
    normal,
    score_gradient,
    split_keys,
    uniform_time,
    unit_rms,
    vp_level,
)
from jaxdiff.networks import Actor
from jaxdiff.options import Options, at_least, at_most

# Times at which policy and behaviour are compared; times beyond carry little signal.
FIRST_TIME, LAST_TIME = 0.02, 0.98


@dataclasses.dataclass(frozen=True)
class SRPOConfig(BehaviourConfig, CriticConfig):
    """Options of SRPO, beside those of data, critics and behaviour model.

    Attributes:
      actor: "dirac" learns a single action, "gaussian" also learns its spread.
      temperature: weight of values; higher is greedier, and 0 seeks an action that is
        likely in the data.
      omega: weight of noise levels: sigma^2 ("variance"), 1 ("one"), alpha / sigma
        ("ratio") or sigma^4 ("variance-squared").
      baseline: subtract the true noise from the model's prediction, which keeps the
        mean of the gradient and reduces its variance at all but the lowest noise
        levels; the authors' released code does not subtract it.
      unit_gradient: scale the gradient of the critic to a mean square of 1 in every
        state.
      policy_decay: share of the updates over which the policy's learning rate falls to
        0 along a cosine; 0 keeps it.
      policy_widths: widths of the hidden layers of the policy; by default `widths`.
    """

    actor: Literal["dirac", "gaussian"] = "dirac"
    temperature: float = 0.1
    omega: Omega = "variance"
    baseline: bool = True
    unit_gradient: bool = False
    policy_decay: float = 0.0
    policy_widths: tuple[int, ...] | None = None

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 0, "temperature", "policy_decay")
        yield from at_least(self, 1, "policy_widths")
        yield from at_most(self, 1, "policy_decay")
        if self.actor == "gaussian" and not self.baseline:
            yield (
                "`baseline=False` removes the entropy of `actor='gaussian'`, whose "
                "spread would shrink to 0; choose `baseline=True` or `actor='dirac'`"
            )


def srpo(
    config: SRPOConfig, acting: Options, statistics: Statistics, spec: Spec
) -> Algorithm:
    """Build SRPO, with the learners "critic", "behaviour" and "policy"."""
    del acting
    widths = config.widths if config.policy_widths is None else config.policy_widths
    actor: Any = Actor(spec.action_dim, widths, config.actor == "gaussian")
    score = score_network(config, spec.action_dim)
    prepare = make_prepare(config, statistics)
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
                optax.adam(config.learning_rate),
                temperature=config.temperature,
                kind=config.omega,
                baseline=config.baseline,
                unit_gradient=config.unit_gradient,
                learning_rate_decay=config.policy_decay,
            ),
        },
        act=act_by_mean(actor, statistics),
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
    learning_rate_decay: float = 0.0,
) -> Learner:
    """Build the learner of equation (1); it reads learners "critic" and "behaviour".

    A "temperature" in `hyper` replaces the argument.

    Args:
      actor: `inputs [B, S] -> (mean [B, A], standard deviation [A] or None)`.
      q: network of the critics.
      score: network of the behaviour.
      prepare: as in a `Learner`.
      optimizer: of the actor.
      temperature: beta.
      kind: of omega.
      baseline: see `jaxdiff.diffusion.regularize.score_gradient`.
      unit_gradient: apply `unit_rms` to the gradients of Q.
      learning_rate_decay: as in `descent`.
    """
    draw_level = uniform_time(vp_level, FIRST_TIME, LAST_TIME)

    def gradient(state, keys, batch, frozen, hyper):
        shape = batch.actions.shape
        level_keys, noise_keys, actor_keys = split_keys(keys, 3)
        level = jax.vmap(draw_level)(level_keys)
        noise, xi = normal(noise_keys, shape), normal(actor_keys, shape)
        behaviour = frozen["behaviour"].slow["ema"]

        def loss(params):
            mean, std = actor.apply(params, batch.inputs)
            std = jnp.zeros(shape[1:]) if std is None else std
            action = mean + std * xi
            # A constant direction; only `action` carries it back to the actor.
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
        learning_rate_decay=learning_rate_decay,
    )


ENTRY = offline_entry(
    name="srpo",
    summary="a one-step policy regularised by a diffusion model of the behaviour",
    config=SRPOConfig,
    build=srpo,
    learners=("critic", "behaviour", "policy"),
    laptop={"score_width": 128, "score_blocks": 2, "policy_decay": 1.0},
)
