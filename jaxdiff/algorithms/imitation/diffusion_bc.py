"""Diffusion policies: from what is observed to an action, by denoising the action.

The actions of whoever made the data may have several modes, such as two ways round an
obstacle; a denoiser of actions learns all of them (Pearce et al., "Imitating human
behaviour with diffusion models", 2023, arXiv:2301.10677),

(1) min_theta E |noise - network(o, a_t, t / T)|^2,   a_t = alpha a + sigma noise.

Training knows one way, acting several, all of them one scan:

(2) Diffusion BC: T denoising steps;
(3) Diffusion-X: then M more at the last level, without noise, which draw an action
    towards likelier ones. A step has the size of the first beta, so an M belongs to its
    schedule: 8 to 32 suit "linear"; with "cosine" they draw each mode into a point;
(4) Diffusion-KDE: of n actions the one where a kernel density of them is greatest,
    argmax_i sum_j exp(-|a_i - a_j|^2 / (2 h^2)), h in units of [-1, 1]. It seeks the
    largest mode: of two that the data share 60 to 40 it acts by the first nine times
    in ten with n = 50;
(5) guidance: u + w (c - u), u the prediction whose embedding is zero. It prefers what
    is done here and nowhere else, in imitation often a mistake (section 3.2). The
    paper's weight is w - 1.

The schedule of the paper, "linear", leaves much of the data at its last level
(alpha = 0.78 for T = 50), where sampling nevertheless begins with N(0, I). That shifts
the shares of modes towards those in the middle of the range; "linear_rescaled" and
"cosine" do not.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp

from jaxdiff.algorithms.base import Algorithm
from jaxdiff.algorithms.imitation import policy as cloning
from jaxdiff.algorithms.imitation.policy import CloningConfig, Head, Statistics
from jaxdiff.diffusion import (
    classifier_free,
    cosine_schedule,
    ddpm,
    denoiser,
    denoising_loss,
    linear_schedule,
    sample,
    select_by,
    uniform_row,
)
from jaxdiff.errors import UserError
from jaxdiff.options import check_options

_SCHEDULES = {
    "linear": linear_schedule,
    "linear_rescaled": functools.partial(linear_schedule, rescale=True),
    "cosine": cosine_schedule,
}


@dataclasses.dataclass(frozen=True)
class DiffusionBCConfig(CloningConfig):
    """Options of diffusion policies, beside those of all that imitate.

    Attributes:
      diffusion_steps: T.
      schedule: "linear" (the paper's), "linear_rescaled" or "cosine".
      variance: of the noise of a denoising step, "beta" (the paper's) or "posterior".
      clip: limit of |a| in the estimates on the way, in units of [-1, 1]; None, as in
        the paper, for none. Of the many levels of "cosine" the first ones multiply
        what the network gets wrong, which 1 holds in.
      condition_dropout: share of examples whose embedding is zero in training.
      extra_steps: M of equation (3).
      candidates: n of equation (4); 1 for no choice.
      bandwidth: h of equation (4); this one is the paper's of the claw machine, where
        it is 0.1 of [0, 1].
      guidance_weight: w of equation (5); 1 for none.
      temperature: scale of all noise in sampling; at 0 actions are not random.
    """

    diffusion_steps: int = 50
    schedule: Literal["linear", "linear_rescaled", "cosine"] = "linear"
    variance: Literal["beta", "posterior"] = "beta"
    clip: float | None = None
    condition_dropout: float = 0.0
    extra_steps: int = 0
    candidates: int = 1
    bandwidth: float = 0.2
    guidance_weight: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(
            self,
            **dict.fromkeys(("diffusion_steps", "candidates"), 1),
            **dict.fromkeys(("clip", "condition_dropout", "extra_steps"), 0),
            **dict.fromkeys(("guidance_weight", "temperature"), 0),
        )
        if self.bandwidth <= 0:
            raise UserError(f"--bandwidth is {self.bandwidth}; it must be above 0")
        if self.condition_dropout >= 1:
            raise UserError(
                f"--condition-dropout is {self.condition_dropout}; it must be below 1, "
                "or nothing that is observed is ever learned from"
            )
        if self.guidance_weight != 1 and not self.condition_dropout:
            raise UserError(
                f"--guidance-weight is {self.guidance_weight}, and the network never "
                "learned what is done without an observation; train it with "
                "--condition-dropout 0.1"
            )


def diffusion_bc(
    config: DiffusionBCConfig, statistics: Statistics, *, action_dim: int
) -> Algorithm:
    """Build a diffusion policy for a dataset.

    Args:
      config: options.
      statistics: of the dataset, from `cloning.measure`.
      action_dim: A.

    Returns:
      An algorithm with the learner "policy".
    """
    return cloning.cloning(config, statistics, diffusion_head(config, action_dim))


def diffusion_head(config: DiffusionBCConfig, action_dim: int) -> Head:
    """Build what is learned, equation (1), and how it acts, equations (2) to (5)."""
    levels = _SCHEDULES[config.schedule](config.diffusion_steps, time="fraction")
    steps = ddpm(levels, variance=config.variance, extra_steps=config.extra_steps)

    def loss(keys, denoise, embedding, actions):
        drop_keys, keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        drop = functools.partial(jax.random.bernoulli, p=config.condition_dropout)
        embedding = _masked(embedding, ~jax.vmap(drop)(drop_keys))
        return denoising_loss(
            keys,
            lambda action, time: denoise(embedding, action, time),
            uniform_row(levels),
            actions,
            prediction="noise",
        )

    def act(key, denoise, embedding):
        batch = len(embedding)
        many = jnp.repeat(embedding, config.candidates, axis=0)
        network = functools.partial(denoise, many)
        if config.guidance_weight != 1:
            twice = jnp.concatenate([many, many])
            network = classifier_free(
                lambda action, time, keep: denoise(_masked(twice, keep), action, time),
                weight=config.guidance_weight,
            )
        found = sample(
            key,
            denoiser(network, prediction="noise", clip=config.clip),
            steps,
            (batch * config.candidates, action_dim),
            temperature=config.temperature,
        ).x
        found = found.reshape(batch, config.candidates, action_dim)
        return densest(found, config.bandwidth)

    return Head(action_dim, loss, act)


def densest(candidates: jax.Array, bandwidth: float) -> jax.Array:
    """Choose the candidate among most others, equation (4).

    Args:
      candidates: `[B, n, A]`.
      bandwidth: h, in the units of the candidates.

    Returns:
      `[B, A]`.
    """

    def density(actions):
        offsets = (actions[:, None] - actions) / bandwidth
        return jnp.exp(-jnp.square(offsets).sum(-1) / 2).sum(-1)

    return jax.vmap(select_by(density))(candidates)[0]


def _masked(embedding: jax.Array, keep: jax.Array) -> jax.Array:
    return jnp.where(keep[:, None, None], embedding, 0.0)
