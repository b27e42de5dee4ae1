"""QGPO: actions of the behaviour, guided by an energy while they are drawn.

Wanted are draws of pi(a|s) = mu(a|s) exp(beta Q(s, a)) / Z. At noise level t its score
is that of the behaviour mu_t plus the gradient of

(1) f(a_t, t, s) = log E[exp(beta Q(s, a)) | a_t],

for which no value of the noised action itself will do. Three learners, one after
another: the behaviour (`jaxdiff.algorithms.offline.behaviour`); critics that look ahead to K
draws a'_k of the behaviour, the better ones the more,

(2) min_Q E (r + discount (1 - terminal) sum_k w_k Q_k - Q_i(s, a))^2,
    Q_k = min_i Qtarget_i(s', a'_k),   w = softmax(backup_temperature Q_k);

and the energy f, by contrastive energy prediction over K draws a_k in a state of the
data, all noised to one level,

(3) min_f -E sum_k u_k log softmax_k f(a_kt, t, s),   u = softmax(beta Q_k)

(Lu et al., 2023, arXiv:2304.12824). With u_k = exp(beta Q_k), not divided by their sum,
the least of (3) is (1) exactly but for a number that depends on t and s; divided, as in
the released code and here, it is so as K grows. The draws are made once, before a
learner's first update. When acting, the gradient of f, times `guide_scale`, is added to
the score that the solver follows.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm, Averaging, Learner
from jaxdiff.algorithms.offline.behaviour import (
    BehaviourConfig,
    behaviour_learner,
    every_level,
    flow_steps,
    sample_actions,
    score_network,
)
from jaxdiff.algorithms.offline.best_of_n import choosing
from jaxdiff.algorithms.offline.common import Statistics, preparing, zeros
from jaxdiff.algorithms.offline.joint import Seen, bellman_error, joint_learner
from jaxdiff.data.transitions import Transitions
from jaxdiff.diffusion import add_noise, guide_prediction
from jaxdiff.networks import ScoreMLP, TwinQ
from jaxdiff.options import check_options
from jaxdiff.pytree import pytree_dataclass

# States whose draws are made at once, before training.
_TOGETHER = 1_024


@pytree_dataclass
class Supported(Transitions):
    """Transitions, and what else the behaviour may do.

    Attributes:
      drawn: `[N, K, A]`, draws in the states, or in the next states.
    """

    drawn: Any


@dataclasses.dataclass(frozen=True)
class QGPOConfig(BehaviourConfig):
    """Options of QGPO, beside those of data, critics and behaviour.

    Attributes:
      temperature: beta of equation (1), the greedier the higher.
      backup_temperature: of equation (2), likewise.
      support_actions: K.
      energy_width: of the energy's network.
      energy_blocks: its residual blocks.
      sampling_steps: of the solver, in acting and for the draws; of less than about 10
        the last ones are too long for it.
      guide_scale: of the energy's gradient when acting; 1 is exact, 0 clones behaviour.
      candidates: drawn when acting, of which the one of the highest Q is done.
      noise: scale of all noise in acting; at 0 actions are not random.
    """

    temperature: float = 3.0
    backup_temperature: float = 1.0
    support_actions: int = 16
    energy_width: int = 256
    energy_blocks: int = 2
    sampling_steps: int = 15
    guide_scale: float = 1.0
    candidates: int = 1
    noise: float = 1.0
    score_dropout: float = 0.0
    score_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        ones = ("support_actions", "energy_width", "sampling_steps", "candidates")
        rest = ("temperature", "backup_temperature", "energy_blocks", "noise")
        check_options(
            self,
            guide_scale=0,
            **dict.fromkeys(ones, 1),
            **dict.fromkeys(rest, 0),
        )


def qgpo(config: QGPOConfig, statistics: Statistics, *, action_dim: int) -> Algorithm:
    """Build QGPO for a dataset.

    Args:
      config: options.
      statistics: of the dataset, from `jaxdiff.algorithms.offline.common.measure`.
      action_dim: A.

    Returns:
      An algorithm with the learners "behaviour", "critic" and "energy".
    """
    q: Any = TwinQ(config.widths, config.layer_norm)
    score = score_network(config, action_dim)
    energy = energy_network(config)
    prepare = preparing(config, statistics)
    steps = flow_steps(config.sampling_steps)

    def drawing(ahead: bool) -> Callable[..., Supported]:
        return supporting(
            prepare, score, steps, count=config.support_actions, ahead=ahead
        )

    def draw(states, key, inputs):
        def value(x, level):
            time = jnp.broadcast_to(level.time, x.shape[:1])
            return energy.apply(states["energy"].params["energy"], x, time, inputs)

        return sample_actions(
            key,
            score,
            states["behaviour"].slow["ema"],
            inputs,
            steps,
            action_dim=action_dim,
            temperature=config.noise,
            guided=lambda denoise: guide_prediction(
                denoise,
                lambda x, level: value(x, level)[:, 0],
                scale=config.guide_scale,
            ),
        )

    def value(states, inputs, actions):
        return q.apply(states["critic"].slow["target"], inputs, actions).min(0)

    adam = optax.adam(config.learning_rate)
    return Algorithm(
        learners={
            "behaviour": behaviour_learner(
                score,
                prepare,
                optax.adamw(config.learning_rate, weight_decay=config.score_decay),
                averaging=Averaging(config.ema_decay),
            ),
            "critic": support_learner(
                q,
                drawing(True),
                adam,
                temperature=config.backup_temperature,
                discount=config.discount,
                target_rate=config.target_rate,
            ),
            "energy": energy_learner(
                energy, q, drawing(False), adam, temperature=config.temperature
            ),
        },
        act=choosing(draw, value, statistics, candidates=config.candidates, best=True),
        init_carry=lambda batch: (),
    )


def energy_network(config: QGPOConfig) -> Any:
    """The network of the energy: `(x [B, A], time [B], inputs [B, S]) -> [B, 1]`."""
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
    """Build a `prepare` that also draws actions, after a learner "behaviour".

    Args:
      prepare: of the transitions alone.
      score: network of the behaviour.
      steps: of the sampler.
      count: K.
      ahead: draw in the next states, not in those of the transitions.
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
    """The smaller target of every draw: `[B, K]`, of inputs `[B, S]`."""
    many = jnp.broadcast_to(inputs[:, None], (*drawn.shape[:2], inputs.shape[-1]))
    return q.apply(target, many, drawn).min(0)


def support_learner(
    q: Any,
    prepare: Callable[..., Supported],
    optimizer: optax.GradientTransformation,
    *,
    temperature: float,
    discount: float,
    target_rate: float,
) -> Learner:
    """Build the learner of equation (2), after a learner "behaviour".

    Its parameters are `{"q"}` and the targets `slow["target"]`.

    Args:
      q: `(inputs [..., S], actions [..., A]) -> [2, ...]`, such as `TwinQ`.
      prepare: gives draws in the next states.
      optimizer: of both critics.
      temperature: of the backup; 0 looks ahead to the behaviour's mean value.
      discount: of a reward relative to the one a step earlier.
      target_rate: share by which targets move to the trained critics in an update.
    """

    def loss(params, seen: Seen):
        values = values_of_drawn(
            q, seen.slow["target"], seen.batch.next_inputs, seen.batch.drawn
        )
        ahead = (jax.nn.softmax(temperature * values) * values).sum(-1)
        error, value = bellman_error(q, params, seen.batch, ahead, discount)
        return error, {"q": value}

    return joint_learner(
        prepare,
        lambda key, batch: {"q": q.init(key, *zeros(batch))},
        {"q": loss},
        {"q": optimizer},
        averages={"target": Averaging(1 - target_rate, part="q")},
    )


def contrastive_loss(energies: jax.Array, weights: jax.Array) -> jax.Array:
    """Score energies `[..., K]` by equation (3), weights u `[..., K]`: `[...]`."""
    return -(weights * jax.nn.log_softmax(energies)).sum(-1)


def energy_learner(
    energy: Any,
    q: Any,
    prepare: Callable[..., Supported],
    optimizer: optax.GradientTransformation,
    *,
    temperature: float,
) -> Learner:
    """Build the learner of equation (3), after learners "behaviour" and "critic".

    Its parameters are `{"energy"}`. `hyper` may hold a "temperature" to take the place
    of the one given.

    Args:
      energy: as `energy_network` builds it.
      q: of the critic.
      prepare: gives draws in the states of the data.
      optimizer: of the energy.
      temperature: beta.
    """
    draw_level = every_level()

    def loss(params, seen: Seen):
        drawn, beta = seen.batch.drawn, seen.hyper.get("temperature", temperature)
        target = seen.frozen["critic"].slow["target"]
        values = values_of_drawn(q, target, seen.batch.inputs, drawn)
        level_keys, noise_keys = jax.vmap(jax.random.split, out_axes=1)(seen.keys)
        # One level for all draws of a state, or their energies could not be compared.
        level = jax.vmap(draw_level)(level_keys)
        noise = jax.vmap(lambda key: jax.random.normal(key, drawn.shape[1:]))(
            noise_keys
        )
        x_t = jnp.asarray(add_noise(drawn, noise, level))
        shape = drawn.shape[:2]
        energies = energy.apply(
            params,
            x_t.reshape(-1, drawn.shape[-1]),
            jnp.repeat(level.time, shape[1]),
            jnp.repeat(seen.batch.inputs, shape[1], axis=0),
        ).reshape(shape)
        weights = jax.nn.softmax(beta * values)
        return contrastive_loss(energies, weights).mean(), {}

    def init_params(key, batch):
        inputs, actions = zeros(batch)
        return {"energy": energy.init(key, actions, jnp.zeros(1), inputs)}

    return joint_learner(
        prepare, init_params, {"energy": loss}, {"energy": optimizer}, averages={}
    )
