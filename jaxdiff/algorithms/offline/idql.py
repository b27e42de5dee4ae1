"""IDQL: actions of the behaviour, of which the critic of IQL chooses one.

The critic (`jaxdiff.algorithms.offline.critic`) never sees a policy. But its expectile implies
one: that whose mean value is V,

(1) pi(a|s) = mu(a|s) w(s, a) / Z(s),   w = |tau - 1(Q(s, a) < V(s))|,

so a diffusion model of the behaviour mu, drawn from N times, and a choice among the
draws are all that is needed to act: by w ("expectile"), by exp(temperature Q)
("softmax"), or, as the authors do for their scores, the one of the highest Q ("best")
(Hansen-Estruch et al., 2023, arXiv:2304.10573). Q is the smaller of the
targets. mu is a DDPM of a few steps whose estimates are clipped to [-1, 1].
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm, Averaging, decaying
from jaxdiff.algorithms.offline.behaviour import (
    BehaviourConfig,
    behaviour_learner,
    sample_actions,
    score_network,
)
from jaxdiff.algorithms.offline.best_of_n import choosing
from jaxdiff.algorithms.offline.common import Statistics, preparing
from jaxdiff.algorithms.offline.critic import check_expectile, critic_of
from jaxdiff.diffusion import ddpm, uniform_row, vp_schedule
from jaxdiff.options import check_options


@dataclasses.dataclass(frozen=True)
class IDQLConfig(BehaviourConfig):
    """Options of IDQL, beside those of data, critic and behaviour.

    Attributes:
      expectile: of the values among those of the actions in the data: 0.5 is their
        mean, near 1 the best of them.
      diffusion_steps: levels of the diffusion model, and steps of drawing from it.
      candidates: N of equation (1); 1 clones behaviour.
      pick: how one of them is chosen: "best", "softmax" or "expectile".
      temperature: of "softmax", the greedier the higher.
      noise: scale of all noise in drawing; at 0 all candidates are one.
      score_rate_decay: updates over which the diffusion model's learning rate falls to
        zero along a cosine; 0 keeps it.
    """

    expectile: float = 0.7
    diffusion_steps: int = 5
    candidates: int = 16
    pick: Literal["best", "softmax", "expectile"] = "best"
    temperature: float = 3.0
    noise: float = 1.0
    score_decay: float = 1e-4
    ema_decay: float = 0.999
    score_rate_decay: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(
            self,
            diffusion_steps=1,
            candidates=1,
            temperature=0,
            noise=0,
            score_rate_decay=0,
        )
        check_expectile(self.expectile)


def idql(config: IDQLConfig, statistics: Statistics, *, action_dim: int) -> Algorithm:
    """Build IDQL for a dataset.

    Args:
      config: options.
      statistics: of the dataset, from `jaxdiff.algorithms.offline.common.measure`.
      action_dim: A.

    Returns:
      An algorithm with the learners "critic" and "behaviour".
    """
    score = score_network(config, action_dim)
    prepare = preparing(config, statistics)
    q, v, critic = critic_of(config, prepare)
    levels = vp_schedule(config.diffusion_steps, time="fraction")
    steps = ddpm(levels, variance="beta")

    def draw(states, key, inputs):
        return sample_actions(
            key,
            score,
            states["behaviour"].slow["ema"],
            inputs,
            steps,
            action_dim=action_dim,
            clip=1.0,
            temperature=config.noise,
        )

    def value(states, inputs, actions):
        critic = states["critic"]
        best = q.apply(critic.slow["target"], inputs, actions).min(0)
        if config.pick != "expectile":
            return config.temperature * best if config.pick == "softmax" else best
        above = best >= v.apply(critic.params["v"], inputs)
        return jnp.log(jnp.where(above, config.expectile, 1 - config.expectile))

    rate = decaying(config.learning_rate, config.score_rate_decay)
    return Algorithm(
        learners={
            "critic": critic,
            "behaviour": behaviour_learner(
                score,
                prepare,
                optax.adamw(rate, weight_decay=config.score_decay),
                averaging=Averaging(config.ema_decay),
                draw_level=uniform_row(levels),
            ),
        },
        act=choosing(
            draw,
            value,
            statistics,
            candidates=config.candidates,
            best=config.pick == "best",
        ),
        init_carry=lambda batch: (),
    )
