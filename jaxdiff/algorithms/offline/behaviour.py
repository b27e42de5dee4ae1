"""The behaviour model: a diffusion model of the actions that the data hold in a state.

In continuous time, with the VP levels alpha_t, sigma_t (equation 6 of
`jaxdiff.diffusion.schedule`, beta from 0.1 to 20),

(1) min E_{t, eps} |eps - eps_psi(alpha_t a + sigma_t eps, t, s)|^2,   t ~ U[0.001, 1],

summed over the entries of the action, in the logged loss too. Actions are drawn along
the probability flow,

(2) dx/dt = f(t) x + g(t)^2 / (2 sigma_t) eps_psi(x, t, s),

which DDIM and DPM-Solver++ solve on any grid of times (Song et al., 2021,
arXiv:2011.13456; Chen et al., 2024, arXiv:2310.07297, section 3.2).
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdiff.algorithms.base import ArrayTree, Averaging, Learner, supervised
from jaxdiff.algorithms.offline.common import OfflineConfig, zeros
from jaxdiff.data.transitions import Transitions, draw_transition
from jaxdiff.diffusion import (
    Denoise,
    DrawLevel,
    Steps,
    denoiser,
    denoising_loss,
    discretize,
    dpm_solver_pp,
    sample,
    split_keys,
    uniform_time,
    vp_level,
)
from jaxdiff.networks import ScoreMLP
from jaxdiff.options import at_least, below

# The time of the least noise in training and sampling.
FIRST_TIME = 1e-3


@dataclasses.dataclass(frozen=True)
class BehaviourConfig(OfflineConfig):
    """Options of a diffusion model of actions, beside those of data and critics.

    Attributes:
      score_width: width of the diffusion model.
      score_blocks: residual blocks of the diffusion model.
      score_dropout: share of each block's input that training hides.
      score_decay: weight decay of the diffusion model.
      ema_decay: weight of the old average when the diffusion model's averaged
        parameters move; 0 for no averaging.
    """

    score_width: int = 256
    score_blocks: int = 3
    score_dropout: float = 0.1
    score_decay: float = 0.01
    ema_decay: float = 0.0

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 1, "score_width")
        yield from at_least(self, 0, "score_blocks", "score_dropout", "score_decay")
        yield from at_least(self, 0, "ema_decay")
        yield from below(self, 1, "score_dropout", "ema_decay")


def score_network(config: BehaviourConfig, action_dim: int) -> Any:
    """Build the network of the diffusion model from options."""
    return ScoreMLP(
        action_dim,
        width=config.score_width,
        blocks=config.score_blocks,
        dropout=config.score_dropout,
    )


def every_level() -> DrawLevel:
    """Return `key -> level`, the distribution of levels in equation (1)."""
    return uniform_time(vp_level, FIRST_TIME, 1.0)


def behaviour_learner(
    network: Any,
    prepare: Callable[..., Transitions],
    optimizer: optax.GradientTransformation,
    *,
    averaging: Averaging,
    draw_level: DrawLevel | None = None,
    learning_rate_decay: float = 0.0,
) -> Learner:
    """Build the learner of equation (1).

    Args:
      network: `(x [B, A], time [B], inputs [B, S], keys [B] or None) -> noise [B, A]`,
        such as `ScoreMLP`; dropout draws from the keys.
      prepare: as in a `Learner`.
      optimizer: of the parameters.
      averaging: of the averaged parameters, `slow["ema"]`.
      draw_level: `key -> level` of an example; that of equation (1) by default.
      learning_rate_decay: as in `supervised`.
    """
    draw_level = draw_level or every_level()

    def init_params(key, batch):
        inputs, actions = zeros(batch)
        return network.init(key, actions, jnp.zeros(1), inputs)

    def loss(params, keys, batch):
        keys, dropout_keys = split_keys(keys)
        losses = denoising_loss(
            keys,
            lambda x, time: network.apply(params, x, time, batch.inputs, dropout_keys),
            draw_level,
            batch.actions,
            prediction="noise",
            weight=batch.actions.shape[-1],
        )
        return losses.mean(), {"loss": losses.mean()}

    return supervised(
        prepare,
        draw_transition,
        init_params,
        [loss],
        optimizer,
        averaging=averaging,
        learning_rate_decay=learning_rate_decay,
    )


def flow_steps(
    num_steps: int, *, solver: Callable[..., Steps] = dpm_solver_pp
) -> Steps:
    """Tabulate a solver of equation (2) at times evenly spaced from 1 to 0.001.

    Args:
      num_steps: calls of the network; the last step goes from time 0.001 to no noise.
      solver: of `jaxdiff.diffusion`, such as `ddim`.
    """
    times = np.linspace(1.0, FIRST_TIME, num_steps)[::-1]
    return solver(discretize(vp_level, times))


def sample_actions(
    keys: jax.Array,
    network: Any,
    params: ArrayTree,
    inputs: jax.Array,
    steps: Steps,
    *,
    action_dim: int,
    clip: float | None = None,
    temperature: Any = 1.0,
    guided: Callable[[Denoise], Denoise] | None = None,
) -> jax.Array:
    """Draw actions from the model, one in each state.

    Args:
      keys: consumed. One key, or `[B]` keys, one for each state.
      network: as in `behaviour_learner`.
      params: of the network, usually averaged.
      inputs: `[B, S]`, normalised.
      steps: from `flow_steps`, or of any sampler whose levels the network knows.
      action_dim: A.
      clip: limit every estimate of the action to [-clip, clip].
      temperature: factor of all noise.
      guided: `denoise -> denoise`, changes the estimates.

    Returns:
      `[B, A]`, normalised.
    """
    denoise = denoiser(
        lambda x, time: network.apply(params, x, time, inputs),
        prediction="noise",
        clip=clip,
    )
    if guided is not None:
        denoise = guided(denoise)
    shape = (len(inputs), action_dim)
    return sample(keys, denoise, steps, shape, temperature=temperature).x
