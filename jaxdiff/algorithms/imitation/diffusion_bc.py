"""Diffusion policies: from an observation to an action, by denoising the action.

Demonstrated actions may have several modes, such as two ways round an obstacle. A
denoiser of actions learns all of them (Pearce et al., "Imitating human behaviour with
diffusion models", 2023, arXiv:2301.10677):

(1) min_theta E |noise - network(o, a_t, t / T)|^2 / A,   a_t = alpha a + sigma noise.

Training is the same for all ways of acting, and each of them is one scan:

(2) Diffusion BC: T denoising steps;
(3) Diffusion-X: M more steps at the last level, without noise, which move an action
    towards a more likely one. A step has the size of the first beta, so M depends on
    the schedule: 8 to 32 suit "linear"; with "cosine" they collapse each mode;
(4) Diffusion-KDE: the one of n actions where their kernel density is largest,
    argmax_i sum_j exp(-|a_i - a_j|^2 / (2 h^2)), h in units of [-1, 1]. It prefers
    the largest mode: between two that share the data 60 to 40 it chooses the first
    nine times in ten with n = 50;
(5) guidance: u + w (c - u), u the prediction for an embedding of zero. It prefers
    actions that are taken here and nowhere else, often a mistake in imitation
    (section 3.2). The paper's weight is w - 1.

The schedule of the paper, "linear", leaves much of the data at its last level
(alpha = 0.78 for T = 50), but sampling starts from N(0, I). That shifts the shares of
modes towards those in the middle of the range. "linear_rescaled" and "cosine" keep the
shares.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from jaxdiff.algorithms.base import Algorithm, Entry, Preset
from jaxdiff.algorithms.imitation.options import ImitationConfig
from jaxdiff.algorithms.imitation.policy import (
    Head,
    Statistics,
    generic_config,
    generic_training,
    imitation,
    measure,
)
from jaxdiff.data.episodes import Dataset
from jaxdiff.data.spec import Spec
from jaxdiff.diffusion import (
    SCHEDULES,
    classifier_free,
    ddpm,
    denoiser,
    denoising_loss,
    repeat_keys,
    sample,
    select_by,
    uniform_row,
)
from jaxdiff.options import Named, Options, above, at_least, refuse


@dataclasses.dataclass(frozen=True)
class DiffusionBCConfig(ImitationConfig):
    """Options of diffusion policies that training reads.

    Attributes:
      diffusion_steps: number T of noise levels.
      schedule: noise schedule; "linear" is the paper's.
      condition_dropout: share of examples that train without an observation; guidance
        needs some.
    """

    diffusion_steps: int = 50
    schedule: Annotated[str, Named(SCHEDULES)] = "linear"
    condition_dropout: float = 0.0

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 1, "diffusion_steps")
        yield from at_least(self, 0, "condition_dropout")
        if self.condition_dropout >= 1:
            yield (
                f"`condition_dropout` is {self.condition_dropout}; it must be below 1, "
                "or the policy never sees an observation"
            )


@dataclasses.dataclass(frozen=True)
class DiffusionBCActing(Options):
    """Options of diffusion policies that may change after training.

    Attributes:
      variance: variance of the noise of a denoising step, "beta" (the paper's) or
        "posterior".
      clip: limit of the estimated action in every step, where actions lie in [-1, 1];
        none as in the paper. A limit of 1 bounds the errors of the network, which the
        first levels of "cosine" multiply.
      extra_steps: number M of steps without noise after the last one (Diffusion-X).
      candidates: number n of actions that are drawn; the densest one is taken
        (Diffusion-KDE).
      bandwidth: width h of the kernels that measure density; 0.2 is the paper's 0.1 of
        a range [0, 1].
      guidance_weight: weight w of classifier-free guidance by the observation; 1 is no
        guidance.
      temperature: scale of all noise in sampling; at 0 actions are deterministic.
    """

    variance: Literal["beta", "posterior"] = "beta"
    clip: float | None = None
    extra_steps: int = 0
    candidates: int = 1
    bandwidth: float = 0.2
    guidance_weight: float = 1.0
    temperature: float = 1.0

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 1, "candidates")
        yield from at_least(
            self, 0, "clip", "extra_steps", "guidance_weight", "temperature"
        )
        yield from above(self, 0, "bandwidth")


def diffusion_bc(
    config: DiffusionBCConfig,
    acting: DiffusionBCActing,
    statistics: Statistics,
    spec: Spec,
) -> Algorithm:
    """Build a diffusion policy for a dataset.

    Args:
      config: options that training reads.
      acting: options that may change after training.
      statistics: of the dataset, from `policy.measure`.
      spec: of the dataset.

    Returns:
      An algorithm with the learner "policy".

    Raises:
      UserError: options that do not fit each other or the observations.
    """
    if acting.guidance_weight != 1 and not config.condition_dropout:
        refuse(
            [
                f"`guidance_weight` is {acting.guidance_weight}, and the network did "
                "not learn to act without an observation; train it with "
                "`condition_dropout=0.1`"
            ]
        )
    head = diffusion_head(config, acting, spec.action_dim)
    return imitation(config, statistics, spec, head)


def diffusion_head(
    config: DiffusionBCConfig, acting: DiffusionBCActing, action_dim: int
) -> Head:
    """Build the loss of equation (1) and the acting of equations (2) to (5)."""
    levels = SCHEDULES[config.schedule](config.diffusion_steps, time="fraction")
    steps = ddpm(levels, variance=acting.variance, extra_steps=acting.extra_steps)

    def loss(keys, prepare, embedding, actions):
        drop_keys, keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        drop = functools.partial(jax.random.bernoulli, p=config.condition_dropout)
        embedding = _masked(embedding, ~jax.vmap(drop)(drop_keys))

        def network(action, time):
            prepared, told = prepare(embedding, time)
            return prepared(action, told)

        return denoising_loss(
            keys,
            network,
            uniform_row(levels),
            actions,
            prediction="noise",
        )

    def act(keys, prepare, embedding):
        many = jnp.repeat(embedding, acting.candidates, axis=0)
        if acting.guidance_weight == 1:
            network, told = prepare(many, steps.level.time)
        else:
            both, told = prepare(
                jnp.concatenate([many, jnp.zeros_like(many)]), steps.level.time
            )
            network = classifier_free(
                lambda action, told, keep: both(action, told),
                weight=acting.guidance_weight,
            )
        found = sample(
            repeat_keys(keys, acting.candidates),
            denoiser(network, prediction="noise", clip=acting.clip),
            dataclasses.replace(
                steps, level=dataclasses.replace(steps.level, time=told)
            ),
            (len(many), action_dim),
            temperature=acting.temperature,
        ).x
        found = found.reshape(len(embedding), acting.candidates, action_dim)
        return densest(found, acting.bandwidth)

    return Head(action_dim, loss, act)


def densest(candidates: jax.Array, bandwidth: float) -> jax.Array:
    """Choose the candidate of largest kernel density, equation (4).

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


def generic(dataset: Dataset, spec: Spec) -> Preset:
    """Return options for data that no task has presets for; see `Entry.generic`."""
    config = generic_config(
        DiffusionBCConfig(hidden=256, diffusion_steps=20, schedule="cosine"),
        dataset,
        spec,
    )
    return Preset(config, DiffusionBCActing(clip=1.0), generic_training(spec))


def _masked(embedding: jax.Array, keep: jax.Array) -> jax.Array:
    return jnp.where(keep[:, None, None], embedding, 0.0)


ENTRY = Entry(
    name="diffusion-bc",
    summary="diffusion policies: Diffusion BC, Diffusion-X and Diffusion-KDE",
    config=DiffusionBCConfig,
    acting=DiffusionBCActing,
    statistics=Statistics,
    measure=measure,
    build=diffusion_bc,
    generic=generic,
)
