"""QGPO: actions of the behaviour, guided by an energy while they are drawn.

The aim is to sample pi(a|s) = mu(a|s) exp(beta Q(s, a)) / Z. Three learners train one
after another. The first is the behaviour mu (`jaxdiff.algorithms.offline.behaviour`).
The second are critics that look ahead to K draws a'_k of the behaviour, with more
weight on better ones,

(1) min_Q E (r + discount (1 - terminal) sum_k w_k Q_k - Q_i(s, a))^2,
    Q_k = min_i Qtarget_i(s', a'_k),   w = softmax(backup_temperature Q_k).

The third is the energy f (`jaxdiff.algorithms.offline.energy`), whose gradient turns
the score of the behaviour into that of pi at every noise level. Acting adds this
gradient, times `guide_scale`, to the score that the solver follows (Lu et al., 2023,
arXiv:2304.12824).
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import Algorithm, Averaging, Learner
from jaxdiff.algorithms.offline.behaviour import (
    BehaviourConfig,
    behaviour_learner,
    flow_steps,
    sample_actions,
    score_network,
)
from jaxdiff.algorithms.offline.best_of_n import BestOfN, best_of_n
from jaxdiff.algorithms.offline.common import (
    Statistics,
    make_prepare,
    offline_entry,
    zeros,
)
from jaxdiff.algorithms.offline.energy import (
    Supported,
    energy_learner,
    energy_network,
    supporting,
    values_of_drawn,
)
from jaxdiff.algorithms.offline.joint import Context, bellman_error, joint_learner
from jaxdiff.data.spec import Spec
from jaxdiff.diffusion import guide_prediction
from jaxdiff.networks import TwinQ
from jaxdiff.options import at_least


@dataclasses.dataclass(frozen=True)
class QGPOConfig(BehaviourConfig):
    """Options of QGPO, beside those of data, critics and behaviour model.

    Attributes:
      temperature: factor of values in the energy; higher is greedier.
      backup_temperature: factor of values in the weights of the actions that critics
        look ahead to; higher is greedier.
      support_actions: actions drawn from the behaviour in each state of the data.
      support_steps: solver steps of those draws; with fewer than about 10 the last
        steps are too long to be accurate.
      energy_width: width of the energy's network.
      energy_blocks: residual blocks of the energy's network.
    """

    temperature: float = 3.0
    backup_temperature: float = 1.0
    support_actions: int = 16
    support_steps: int = 15
    energy_width: int = 256
    energy_blocks: int = 2
    score_dropout: float = 0.0
    score_decay: float = 0.0

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 1, "support_actions", "support_steps", "energy_width")
        yield from at_least(self, 0, "temperature", "backup_temperature")
        yield from at_least(self, 0, "energy_blocks")


@dataclasses.dataclass(frozen=True)
class QGPOActing(BestOfN):
    """How QGPO draws an action.

    Attributes:
      sampling_steps: solver steps of an action; none for `support_steps`, as trained.
      guide_scale: factor of the energy's gradient; 1 is exact, and 0 clones the
        behaviour.
    """

    sampling_steps: int | None = None
    guide_scale: float = 1.0

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 1, "sampling_steps")
        yield from at_least(self, 0, "guide_scale")


def qgpo(
    config: QGPOConfig, acting: QGPOActing, statistics: Statistics, spec: Spec
) -> Algorithm:
    """Build QGPO, with the learners "behaviour", "critic" and "energy"."""
    q: Any = TwinQ(config.widths, config.layer_norm)
    score = score_network(config, spec.action_dim)
    energy = energy_network(config)
    prepare = make_prepare(config, statistics)
    support_steps = flow_steps(config.support_steps)
    steps = flow_steps(acting.sampling_steps or config.support_steps)

    def supported(ahead: bool) -> Callable[..., Supported]:
        return supporting(
            prepare, score, support_steps, count=config.support_actions, ahead=ahead
        )

    def sample(states, keys, inputs, options):
        def value(x, level):
            time = jnp.broadcast_to(level.time, x.shape[:1])
            params = states["energy"].params["energy"]
            return energy.apply(params, x, time, inputs)[:, 0]

        return sample_actions(
            keys,
            score,
            states["behaviour"].slow["ema"],
            inputs,
            steps,
            action_dim=spec.action_dim,
            temperature=options.noise,
            guided=lambda denoise: guide_prediction(
                denoise, value, scale=options.guide_scale
            ),
        )

    def value(states, inputs, actions, options):
        del options
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
                supported(True),
                adam,
                temperature=config.backup_temperature,
                discount=config.discount,
                target_rate=config.target_rate,
            ),
            "energy": energy_learner(
                energy, q, supported(False), adam, temperature=config.temperature
            ),
        },
        act=best_of_n(sample, value, statistics, acting),
    )


def support_learner(
    q: Any,
    prepare: Callable[..., Supported],
    optimizer: optax.GradientTransformation,
    *,
    temperature: float,
    discount: float,
    target_rate: float,
) -> Learner:
    """Build the learner of equation (1).

    Its parameters are `{"q"}`; the targets are `slow["target"]`.

    Args:
      q: `(inputs [..., S], actions [..., A]) -> [2, ...]`, such as `TwinQ`.
      prepare: as in a `Learner`; returns draws in the next states.
      optimizer: of both critics.
      temperature: of the weights w; 0 looks ahead to the mean value of the behaviour.
      discount: weight of a reward relative to a reward one step earlier.
      target_rate: share of the way that targets move to the critics in an update.
    """

    def loss(params, context: Context):
        values = values_of_drawn(
            q, context.slow["target"], context.batch.next_inputs, context.batch.drawn
        )
        ahead = (jax.nn.softmax(temperature * values) * values).sum(-1)
        error, value = bellman_error(q, params, context.batch, ahead, discount)
        return error, {"q": value}

    return joint_learner(
        prepare,
        lambda key, batch: {"q": q.init(key, *zeros(batch))},
        {"q": loss},
        {"q": optimizer},
        averages={"target": Averaging(1 - target_rate, part="q")},
    )


ENTRY = offline_entry(
    name="qgpo",
    summary="a diffusion model of the behaviour, guided by a contrastive energy",
    config=QGPOConfig,
    acting=QGPOActing,
    build=qgpo,
    learners=("behaviour", "critic", "energy"),
    laptop={
        "score_width": 128,
        "score_blocks": 2,
        "energy_width": 128,
        "support_actions": 8,
        "support_steps": 10,
    },
)
