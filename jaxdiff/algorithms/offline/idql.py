"""IDQL: the critic of IQL chooses among actions drawn from the behaviour.

The critic (`jaxdiff.algorithms.offline.critic`) never evaluates a policy. Its expectile
implies one, the policy whose mean value is V,

(1) pi(a|s) = mu(a|s) w(s, a) / Z(s),   w = |tau - 1(Q(s, a) < V(s))|,

so acting needs only a diffusion model of the behaviour mu and a choice among N actions
drawn from it: at random by w ("expectile") or by exp(temperature Q) ("softmax"), or the
action of the highest Q ("best"), which the authors use for their scores
(Hansen-Estruch et al., 2023, arXiv:2304.10573). Q is the smaller of the targets. mu is
a DDPM of a few steps whose estimates are clipped to [-1, 1].
"""

import dataclasses
from collections.abc import Iterator
from typing import Literal

import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm, Averaging
from jaxdiff.algorithms.offline.behaviour import (
    BehaviourConfig,
    behaviour_learner,
    sample_actions,
    score_network,
)
from jaxdiff.algorithms.offline.best_of_n import BestOfN, best_of_n
from jaxdiff.algorithms.offline.common import Statistics, make_prepare, offline_entry
from jaxdiff.algorithms.offline.critic import CriticConfig, critic_of
from jaxdiff.data.spec import Spec
from jaxdiff.diffusion import ddpm, uniform_row, vp_schedule
from jaxdiff.options import at_least, at_most


@dataclasses.dataclass(frozen=True)
class IDQLConfig(BehaviourConfig, CriticConfig):
    """Options of IDQL, beside those of data, critics and behaviour model.

    Attributes:
      diffusion_steps: number of noise levels and of denoising steps.
      score_rate_decay: share of the updates over which the diffusion model's learning
        rate falls to 0 along a cosine; 0 keeps it.
    """

    diffusion_steps: int = 5
    score_decay: float = 1e-4
    ema_decay: float = 0.999
    score_rate_decay: float = 0.0

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 1, "diffusion_steps")
        yield from at_least(self, 0, "score_rate_decay")
        yield from at_most(self, 1, "score_rate_decay")


@dataclasses.dataclass(frozen=True)
class IDQLActing(BestOfN):
    """How IDQL chooses an action.

    Attributes:
      pick: take the "best" candidate, or draw one by "softmax" of its value or by the
        "expectile" of the critic.
      temperature: factor of values in "softmax"; higher is greedier.
    """

    candidates: int = 16
    pick: Literal["best", "softmax", "expectile"] = "best"
    temperature: float = 3.0

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 0, "temperature")


def idql(
    config: IDQLConfig, acting: IDQLActing, statistics: Statistics, spec: Spec
) -> Algorithm:
    """Build IDQL, with the learners "critic" and "behaviour"."""
    score = score_network(config, spec.action_dim)
    prepare = make_prepare(config, statistics)
    q, v, critic = critic_of(config, prepare)
    levels = vp_schedule(config.diffusion_steps, time="fraction")
    steps = ddpm(levels, variance="beta")

    def sample(states, keys, inputs, options):
        return sample_actions(
            keys,
            score,
            states["behaviour"].slow["ema"],
            inputs,
            steps,
            action_dim=spec.action_dim,
            clip=1.0,
            temperature=options.noise,
        )

    def value(states, inputs, actions, options):
        critic = states["critic"]
        best = q.apply(critic.slow["target"], inputs, actions).min(0)
        if acting.pick == "best":
            return best
        if acting.pick == "softmax":
            return options.temperature * best
        above = best >= v.apply(critic.params["v"], inputs)
        return jnp.log(jnp.where(above, config.expectile, 1 - config.expectile))

    return Algorithm(
        learners={
            "critic": critic,
            "behaviour": behaviour_learner(
                score,
                prepare,
                optax.adamw(config.learning_rate, weight_decay=config.score_decay),
                averaging=Averaging(config.ema_decay),
                draw_level=uniform_row(levels),
                learning_rate_decay=config.score_rate_decay,
            ),
        },
        act=best_of_n(sample, value, statistics, acting, best=acting.pick == "best"),
    )


ENTRY = offline_entry(
    name="idql",
    summary="IQL's critic chooses among actions of a diffusion model",
    config=IDQLConfig,
    acting=IDQLActing,
    build=idql,
    learners=("critic", "behaviour"),
    laptop={
        "score_width": 128,
        "score_blocks": 2,
        "ema_decay": 0.995,
        "score_rate_decay": 1.0,
    },
)
