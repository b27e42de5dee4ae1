"""What all policies that imitate share: histories, networks, and how they act.

A policy sees the last k observations, the newest first, of which those before the first
of the episode are that first one again, in training and in acting alike. A network
(`jaxdiff.networks.imitation`) makes of them an embedding e, once; what is then done
with e, and with the network's other half, is the policy's `Head`:

(1) loss = mean of head.loss(denoise, e, a),   a ~ data,
(2) a = head.act(denoise, e),

`denoise(e, a, tau)` being that other half. Actions are scaled to [-1, 1] throughout.
In acting each observation is encoded when it comes and never again: the history that is
carried from step to step is one of embeddings, but for stacked images, which are one
image of several to the encoder.

Where a network normalises by statistics of the batch, what it acts by are their running
averages: they stand beside the parameters, and are moved and averaged along with them.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdiff.algorithms.base import (
    ActOutput,
    Algorithm,
    Averaging,
    decaying,
    descent,
    over_devices,
)
from jaxdiff.algorithms.offline.joint import by_part
from jaxdiff.data.episodes import Episodes, acted_rows, goals_beside
from jaxdiff.data.host import HostRows
from jaxdiff.data.normalizer import (
    Normalizer,
    fit_limits,
    fit_normalizer,
    fit_pixels,
    normalize,
    unnormalize,
)
from jaxdiff.data.transitions import beside
from jaxdiff.errors import UserError
from jaxdiff.networks import (
    BasicMLP,
    EncoderKind,
    ImageEncoder,
    Norm,
    NormKind,
    Sieve,
    Transformer,
)
from jaxdiff.options import check_options
from jaxdiff.pytree import pytree_dataclass

# (embedding [B, k, E], action [B, A], time [B]) -> output [B, F]
DenoiseHalf = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class CloningConfig:
    """Options of every policy that imitates.

    Attributes:
      network: "mlp", "sieve" or "transformer", see `jaxdiff.networks.imitation`.
      hidden: width of the hidden layers of "mlp" and "sieve".
      embed: width of the embeddings of "sieve" and "transformer".
      norm: "layer", "batch" (the paper's) or "none".
      lean: leave out the second projection of the transformer's attention, which the
        released network has.
      image_shape: height, width and channels of observations that are images; none for
        vectors.
      encoder: of images, "residual", "strided" or "patches", see
        `jaxdiff.networks.images`.
      places: that it averages images to, along each side at most; 0 for its own.
      stacked: encode the images of a history together, as one of k times the channels,
        so that the first layer sees what moves.
      host_memory: leave images in the memory of the host, from where those of a batch
        are fetched, if the device has too little for them.
      history: k, observations that the policy sees.
      relative: learn actions as offsets from the observation's first entries, where an
        action is a place to go to and these are where one is.
      normalizer: of observations that are vectors, and of goals.
      learning_rate: of Adam.
      learning_rate_decay: cosine decay to 0 over this many updates, 0 for constant.
      ema_decay: of the averaged parameters, which act; 0 for no average.
    """

    network: Literal["mlp", "sieve", "transformer"] = "sieve"
    hidden: int = 512
    embed: int = 128
    norm: NormKind = "layer"
    lean: bool = True
    image_shape: tuple[int, ...] = ()
    encoder: EncoderKind = "residual"
    places: int = 0
    stacked: bool = False
    host_memory: bool = False
    history: int = 1
    relative: bool = False
    normalizer: Literal["limits", "gaussian", "cdf"] = "gaussian"
    learning_rate: float = 1e-3
    learning_rate_decay: int = 0
    ema_decay: float = 0.995

    def __post_init__(self) -> None:
        check_options(
            self,
            **dict.fromkeys(("hidden", "embed", "image_shape", "history"), 1),
            **dict.fromkeys(("learning_rate", "learning_rate_decay", "ema_decay"), 0),
            places=0,
        )
        if self.ema_decay > 1:
            raise UserError(f"--ema-decay is {self.ema_decay}; it must be at most 1")
        if len(self.image_shape) not in (0, 3):
            raise UserError(
                f"--image-shape is {' '.join(map(str, self.image_shape))}; it must be "
                "a height, a width and a number of channels, such as 32 32 3"
            )
        if self.stacked and not self.image_shape:
            raise UserError(
                "--stacked is for images; give their --image-shape, or leave it out"
            )


@pytree_dataclass
class Statistics:
    """What acting must know of the dataset, beside the network.

    Attributes:
      inputs: normalizer of `[observation | goal]`, or of observations alone.
      actions: normalizer of actions, or of their offsets, to [-1, 1].
    """

    inputs: Normalizer
    actions: Normalizer


@pytree_dataclass
class Decisions:
    """N decisions on the device, and the rows that were seen before them.

    Attributes:
      inputs: `[M, O + G]`, every row of the dataset, in its own units; perhaps on the
        host.
      rows: int32 `[N]`, the row in which each decision was made.
      firsts: int32 `[N]`, the first row of its episode.
      actions: `[N, A]`, what was decided, normalised.
    """

    inputs: jax.Array | HostRows
    rows: jax.Array
    firsts: jax.Array
    actions: jax.Array


class Head(NamedTuple):
    """What a policy makes of embeddings; both functions are pure.

    Attributes:
      features: F, outputs that the network needs.
      loss: `(keys [B], denoise, embedding [B, k, E], actions [B, A]) -> [B]`.
      act: `(key, denoise, embedding [B, k, E]) -> [B, A]`.
    """

    features: int
    loss: Callable[..., jax.Array]
    act: Callable[..., jax.Array]


def measure(config: CloningConfig, train: Episodes) -> Statistics:
    """Measure a dataset: its normalizers.

    Raises:
      UserError: images of another size or with goals beside them, or actions that
        cannot be offsets from the observation.
    """
    size = train.observations.shape[1]
    if config.relative and (config.image_shape or train.actions.shape[1] > size):
        raise UserError(
            "--relative needs actions that are places and observations that begin with "
            f"one; here actions are {train.actions.shape[1]} numbers and observations "
            f"{'pixels' if config.image_shape else size}; choose --no-relative"
        )
    if config.image_shape and math.prod(config.image_shape) != size:
        raise UserError(
            f"an image of --image-shape {' '.join(map(str, config.image_shape))} has "
            f"{math.prod(config.image_shape)} numbers and an observation of the "
            f"dataset {size}; they must agree"
        )
    if config.image_shape and train.goals is not None:
        raise UserError(
            "the dataset has goals, which cannot stand beside an image; leave out "
            "--image-shape or take a dataset without goals"
        )
    inputs, rows = goals_beside(train), acted_rows(train)
    return Statistics(
        inputs=fit_pixels(inputs)
        if config.image_shape
        else fit_normalizer(config.normalizer, inputs[rows]),
        actions=fit_limits(decided(config, train)),
    )


def cloning(config: CloningConfig, statistics: Statistics, head: Head) -> Algorithm:
    """Build a policy that imitates.

    Args:
      config: options.
      statistics: of the dataset, from `measure`.
      head: what is learned, and how it acts.

    Returns:
      An algorithm with the learner "policy".
    """
    network: Any = _network(config, head.features)
    input_dim = statistics.inputs.low.shape[-1]
    action_dim = statistics.actions.low.shape[-1]

    def halves(params):
        def encode(inputs):
            seen = normalize(statistics.inputs, inputs)
            return network.apply(params, seen, method="encode")

        return encode, functools.partial(network.apply, params, method="denoise")

    def init_params(key, batch):
        inputs = normalize(statistics.inputs, batch[0][:1])
        return network.init(key, inputs, batch[1][:1], jnp.zeros(1))

    def learner(axis_name):
        trained: Any = _network(config, head.features, axis_name)

        def gradient(state, keys, batch, frozen, hyper):
            del frozen, hyper
            inputs, actions = normalize(statistics.inputs, batch[0]), batch[1]

            def losses(module):
                return head.loss(keys, module.denoise, module.encode(inputs), actions)

            def loss(params):
                found, moved = trained.apply(
                    params, method=losses, mutable=["batch_stats"]
                )
                return found.mean(), ({"loss": found.mean()}, moved)

            grads, (metrics, moved) = jax.grad(loss, has_aux=True)(state.params)
            # Running averages have no gradient. A step of 1 takes them where they go.
            away = {
                name: jax.tree.map(jnp.subtract, state.params[name], moved[name])
                for name in moved
            }
            return {**grads, **away}, metrics

        return descent(
            functools.partial(_prepare, config, statistics, action_dim),
            functools.partial(_draw, config.history),
            init_params,
            gradient,
            _optimizer(config),
            averages={"ema": Averaging(config.ema_decay)},
        )

    def act(states, carry, key, observation, reset, goal=None):
        inputs = beside(observation, goal, input_dim)[:, None]
        encode, denoise = halves(states["policy"].slow["ema"])
        newest = inputs if config.stacked else encode(inputs)
        older = jnp.concatenate([newest, carry[:, :-1]], axis=1)
        seen = jnp.where(reset[:, None, None], newest, older)
        found = head.act(key, denoise, encode(seen) if config.stacked else seen)
        action = unnormalize(statistics.actions, found)
        if config.relative:
            action = action + observation[:, :action_dim]
        return ActOutput(action=action), seen

    def init_carry(batch):
        if config.stacked:
            return jnp.zeros((batch, config.history, input_dim))
        inputs = jax.ShapeDtypeStruct((1, 1, input_dim), jnp.float32)
        encoded, _ = jax.eval_shape(
            functools.partial(network.init_with_output, method="encode"),
            jax.random.key(0),
            inputs,
        )
        return jnp.zeros((batch, config.history, encoded.shape[-1]))

    policy = over_devices(learner)
    return Algorithm(learners={"policy": policy}, act=act, init_carry=init_carry)


def _optimizer(config: CloningConfig) -> optax.GradientTransformation:
    adam = optax.adam(decaying(config.learning_rate, config.learning_rate_decay))
    # The layers of "mlp" have no norm, only an encoder of images before them does.
    plain = config.network == "mlp" and not config.image_shape
    if config.norm != "batch" or plain:
        return adam
    return by_part({"params": adam, "batch_stats": optax.sgd(1.0)})


def _network(config: CloningConfig, features: int, axis_name: str | None = None) -> Any:
    norm = functools.partial(Norm, config.norm, axis_name)
    images = None
    if config.image_shape:
        images = ImageEncoder(
            config.image_shape,
            kind=config.encoder,
            places=config.places,
            stacked=config.stacked,
            norm=norm,
        )
    if config.network == "mlp":
        return BasicMLP(features, hidden=config.hidden, images=images)
    shared = {"embed": config.embed, "norm": norm, "images": images}
    if config.network == "sieve":
        return Sieve(features, hidden=config.hidden, **shared)
    return Transformer(features, lean=config.lean, **shared)


def _prepare(config, statistics, action_dim, data, frozen, key) -> Decisions:
    del frozen, key
    rows, inputs = acted_rows(data), goals_beside(data)
    # A quarter of the memory, where pixels are whole numbers.
    if (
        config.image_shape
        and inputs.dtype != np.uint8
        and np.array_equal(inputs, inputs.astype(np.uint8))
    ):
        inputs = inputs.astype(np.uint8)
    return Decisions(
        inputs=HostRows(inputs) if config.host_memory else jnp.asarray(inputs),
        rows=jnp.asarray(rows, jnp.int32),
        firsts=jnp.asarray(np.repeat(data.starts, data.lengths), jnp.int32),
        actions=normalize(statistics.actions, decided(config, data)),
    )


def decided(config: CloningConfig, data: Episodes) -> np.ndarray:
    """Give what was decided, `[N, A]`: actions, or their offsets from observations."""
    rows = acted_rows(data)
    actions = data.actions[rows]
    if config.relative:
        actions = actions - data.observations[rows, : actions.shape[1]]
    return actions


def _draw(history: int, data: Decisions, key: jax.Array) -> Any:
    """Draw one decision: its history `[k, O + G]`, newest first, and action `[A]`."""
    index = jax.random.randint(key, (), 0, data.rows.shape[0])
    rows = jnp.maximum(data.rows[index] - jnp.arange(history), data.firsts[index])
    return data.inputs[rows], data.actions[index]
