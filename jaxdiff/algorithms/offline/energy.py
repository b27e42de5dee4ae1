"""Contrastive energy prediction: the energy that guides sampling towards high Q.

To sample pi(a|s) = mu(a|s) exp(beta Q(s, a)) / Z, the score of the behaviour mu_t at
noise level t needs the gradient of

(1) f(a_t, t, s) = log E[exp(beta Q(s, a)) | a_t],

which the value of the noised action itself does not give. f is learned from K draws a_k
of the behaviour in a state of the data, all noised to one level,

(2) min_f -E sum_k u_k log softmax_k f(a_kt, t, s),   u = softmax(beta Q_k),

where Q_k is the smaller target (Lu et al., 2023, arXiv:2304.12824). With
u_k = exp(beta Q_k), without the softmax's denominator, the minimum of (2) is (1) up to
a constant of t and s. With the denominator, as in the released code and here, it
approaches (1) as K grows. The draws are made once, before the first update.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Learner
from jaxdiff.algorithms.offline.behaviour import every_level, sample_actions
from jaxdiff.algorithms.offline.common import zeros
from jaxdiff.algorithms.offline.joint import Context, joint_learner
from jaxdiff.data.transitions import Transitions
from jaxdiff.diffusion import add_noise, normal, split_keys
from jaxdiff.networks import ScoreMLP
from jaxdiff.pytree import pytree_dataclass

# States in which actions are drawn together, before training; bounds the memory.
_TOGETHER = 1_024


@pytree_dataclass
class Supported(Transitions):
    """Transitions, with actions that the behaviour may take.

    Attributes:
      drawn: `[N, K, A]`, draws in the states, or in the next states.
    """

    drawn: Any


def energy_network(config: Any) -> Any:
    """Build the energy of options, `(x [B, A], time, inputs [B, S]) -> [B, 1]`."""
    return ScoreMLP(
        1, width=config.energy_width, blocks=config.energy_blocks, dropout=0.0
    )


def supporting(
    prepare: Callable[..., Transitions],
    score: Any,
    steps: Any,
    *,
    count: int,
    ahead: bool,
) -> Callable[..., Supported]:
    """Build a `prepare` that also draws actions; it reads the learner "behaviour".

    Args:
      prepare: of the transitions alone.
      score: network of the behaviour.
      steps: of the solver.
      count: K.
      ahead: draw in the next states instead of the states.
    """

    def prepared(data, frozen, key):
        found = prepare(data, frozen, key)
        params, action_dim = frozen["behaviour"].slow["ema"], found.actions.shape[1]

        def draw(pair):
            key, inputs = pair
            many = jnp.repeat(inputs[None], count, axis=0)
            return sample_actions(
                key, score, params, many, steps, action_dim=action_dim
            )

        inputs = found.next_inputs if ahead else found.inputs
        keys = jax.random.split(key, len(inputs))
        drawn = jax.lax.map(draw, (keys, inputs), batch_size=_TOGETHER)
        fields = {name: getattr(found, name) for name in Transitions.__annotations__}
        return Supported(**fields, drawn=drawn)

    return prepared


def values_of_drawn(
    q: Any, target: Any, inputs: jax.Array, drawn: jax.Array
) -> jax.Array:
    """Return the smaller target of draws `[B, K, A]` in states `[B, S]`: `[B, K]`."""
    many = jnp.broadcast_to(inputs[:, None], (*drawn.shape[:2], inputs.shape[-1]))
    return q.apply(target, many, drawn).min(0)


def contrastive_loss(energies: jax.Array, weights: jax.Array) -> jax.Array:
    """Return the loss `[...]` of equation (2); energies and weights are `[..., K]`."""
    return -(weights * jax.nn.log_softmax(energies)).sum(-1)


def energy_learner(
    energy: Any,
    q: Any,
    prepare: Callable[..., Supported],
    optimizer: optax.GradientTransformation,
    *,
    temperature: float,
) -> Learner:
    """Build the learner of equation (2); it reads the learner "critic".

    Its parameters are `{"energy"}`. A "temperature" in `hyper` replaces the argument.

    Args:
      energy: as `energy_network` builds it.
      q: network of the critics.
      prepare: as in a `Learner`; returns draws in the states.
      optimizer: of the energy.
      temperature: beta.
    """
    draw_level = every_level()

    def loss(params, context: Context):
        batch, drawn = context.batch, context.batch.drawn
        target = context.frozen["critic"].slow["target"]
        values = values_of_drawn(q, target, batch.inputs, drawn)
        level_keys, noise_keys = split_keys(context.keys)
        # All draws of a state share a level, so that their energies can be compared.
        level = jax.vmap(draw_level)(level_keys)
        noise = normal(noise_keys, drawn.shape)
        x_t = jnp.asarray(add_noise(drawn, noise, level))
        shape = drawn.shape[:2]
        energies = energy.apply(
            params,
            x_t.reshape(-1, drawn.shape[-1]),
            jnp.repeat(level.time, shape[1]),
            jnp.repeat(batch.inputs, shape[1], axis=0),
        ).reshape(shape)
        beta = context.hyper.get("temperature", temperature)
        weights = jax.nn.softmax(beta * values)
        return contrastive_loss(energies, weights).mean(), {}

    def init_params(key, batch):
        inputs, actions = zeros(batch)
        return {"energy": energy.init(key, actions, jnp.zeros(1), inputs)}

    return joint_learner(
        prepare, init_params, {"energy": loss}, {"energy": optimizer}, averages={}
    )
