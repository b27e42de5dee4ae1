"""What all imitation policies share: options, networks, learner and acting.

A policy sees the last k observations (`jaxdiff.algorithms.imitation.decisions`). A
network (`jaxdiff.networks.imitation`) encodes them to an embedding e. The `Head` of the
policy says what the rest of the network learns and how it acts:

(1) loss = mean of head.loss(prepare, e, a),   a ~ data,
(2) a = head.act(prepare, e).

Actions are scaled to [-1, 1] throughout. Acting encodes each observation once, when it
arrives, and carries the embeddings of the history. Stacked pictures are the exception:
the encoder needs all of them at once, so the carry holds the pictures.

Running averages of batch norm stand beside the parameters, and the averaged copy of the
parameters contains them.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.base import (
    ActOutput,
    Algorithm,
    Averaging,
    Learner,
    TrainConfig,
    by_part,
    descent,
    over_devices,
)
from jaxdiff.algorithms.imitation.decisions import (
    action_targets,
    draw_decision,
    prepare_decisions,
)
from jaxdiff.algorithms.imitation.options import (
    ImitationConfig,
    check_observations,
    is_picture,
    reference_entries,
)
from jaxdiff.data.episodes import Dataset, Episodes, acted_rows, goals_beside
from jaxdiff.data.normalizer import (
    Normalizer,
    fit_limits,
    fit_normalizer,
    fit_pixels,
    normalize,
    unnormalize,
)
from jaxdiff.data.spec import Spec
from jaxdiff.data.transitions import beside
from jaxdiff.networks import (
    BasicMLP,
    ImageEncoder,
    Norm,
    Sieve,
    Transformer,
)
from jaxdiff.pytree import pytree_dataclass

C = TypeVar("C", bound=ImitationConfig)

# Pictures that take more bytes than this stay on the host.
_MANY_BYTES = 2_000_000_000

# (embedding [B, k, E], times [S]) -> (action [B, A], told of B) -> output [B, F], and
# what the S times tell, with leaves [S, ...]
Prepare = Callable[[jax.Array, jax.Array], tuple[Callable[..., jax.Array], Any]]


@pytree_dataclass
class Statistics:
    """What acting reads of the dataset, beside the parameters.

    Attributes:
      inputs: normalizer of `[observation | goal]`, or of observations alone.
      actions: normalizer of actions, or of their offsets, to [-1, 1].
    """

    inputs: Normalizer
    actions: Normalizer


class Head(NamedTuple):
    """What a policy learns and how it acts; both functions are pure.

    Attributes:
      features: F, outputs of the network.
      loss: `(keys [B], prepare, embedding [B, k, E], actions [B, A]) -> [B]`.
      act: `(keys [B], prepare, embedding [B, k, E]) -> [B, A]`.
    """

    features: int
    loss: Callable[..., jax.Array]
    act: Callable[..., jax.Array]


def measure(config: ImitationConfig, episodes: Episodes, spec: Spec) -> Statistics:
    """Measure the normalizers of a dataset.

    Raises:
      UserError: options that do not fit the observations, see `check_observations`.
    """
    check_observations(config, spec)
    inputs = goals_beside(episodes)
    return Statistics(
        inputs=fit_pixels(inputs)
        if is_picture(spec)
        else fit_normalizer(config.normalizer, inputs[acted_rows(episodes)]),
        actions=fit_limits(action_targets(episodes, reference_entries(config, spec))),
    )


def imitation(
    config: ImitationConfig, statistics: Statistics, spec: Spec, head: Head
) -> Algorithm:
    """Build a policy that imitates.

    Args:
      config: options.
      statistics: of the dataset, from `measure`.
      spec: of the dataset.
      head: what the policy learns and how it acts.

    Returns:
      An algorithm with the learner "policy".

    Raises:
      UserError: see `check_observations`.
    """
    check_observations(config, spec)
    network = _network(config, spec, head.features)
    entries = reference_entries(config, spec)
    input_dim = spec.observation_dim + spec.goal_dim

    def act(states, carry, keys, observation, reset, goal=None, guidance=None):
        del guidance
        params = states["policy"].slow["ema"]

        def encode(inputs):
            seen = normalize(statistics.inputs, inputs)
            return network.apply(params, seen, method="encode")

        inputs = beside(observation, goal, input_dim)[:, None]
        newest = inputs if config.stacked else encode(inputs)
        older = jnp.concatenate([newest, carry[:, :-1]], axis=1)
        seen = jnp.where(reset[:, None, None], newest, older)
        prepare = preparing(
            *(
                functools.partial(network.apply, params, method=name)
                for name in ("prepare", "denoise")
            )
        )
        found = head.act(keys, prepare, encode(seen) if config.stacked else seen)
        action = unnormalize(statistics.actions, found)
        if entries:
            action = action + observation[:, list(entries)]
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

    learner = over_devices(
        functools.partial(_learner, config, statistics, spec, entries, head)
    )
    return Algorithm(learners={"policy": learner}, act=act, init_carry=init_carry)


def preparing(prepare: Callable[..., Any], denoise: Callable[..., Any]) -> Prepare:
    """Join two parts of a network of `jaxdiff.networks.imitation`.

    Args:
      prepare: `(embedding [B, k, E], times [S]) -> decision, told`.
      denoise: `(decision, action [B, A], told of B) -> [B, F]`.
    """

    def prepared(embedding, times):
        decision, told = prepare(embedding, times)
        return functools.partial(denoise, decision), told

    return prepared


def generic_config(config: C, dataset: Dataset, spec: Spec) -> C:
    """Adapt options to data that no task has presets for.

    Pictures are read by the encoder that a CPU can train, and stay on the host where
    they are many.
    """
    config = dataclasses.replace(config, learning_rate_decay=1.0)
    if not is_picture(spec):
        return config
    many = dataset.episodes.observations.size > _MANY_BYTES
    return dataclasses.replace(config, encoder="strided", host_memory=many)


def generic_training(spec: Spec) -> dict[str, TrainConfig]:
    """Return training that takes minutes on a laptop."""
    updates, batch = (3_000, 64) if is_picture(spec) else (10_000, 256)
    return {"policy": TrainConfig(num_steps=updates, batch_size=batch, log_every=100)}


def _learner(
    config: ImitationConfig,
    statistics: Statistics,
    spec: Spec,
    entries: tuple[int, ...],
    head: Head,
    axis_name: str | None,
) -> Learner:
    """Build the learner of equation (1) for a batch split over `axis_name`."""
    network = _network(config, spec, head.features, axis_name)

    def prepare(data, frozen, key):
        del frozen, key
        return prepare_decisions(
            data,
            statistics.actions,
            entries,
            pictures=is_picture(spec),
            host_memory=config.host_memory,
        )

    def init_params(key, batch):
        inputs = normalize(statistics.inputs, batch[0][:1])
        return network.init(key, inputs, batch[1][:1], jnp.zeros(1))

    def gradient(state, keys, batch, frozen, hyper):
        del frozen
        inputs, actions = normalize(statistics.inputs, batch[0]), batch[1]

        def losses(module):
            prepare = preparing(module.prepare, module.denoise)
            return head.loss(keys, prepare, module.encode(inputs), actions)

        def loss(params):
            found, moved = network.apply(params, method=losses, mutable=["batch_stats"])
            return found.mean(), ({"loss": found.mean()}, moved)

        grads, (metrics, moved) = jax.grad(loss, has_aux=True)(state.params)
        # Running averages have no gradient: a step of 1 along these differences sets
        # them.
        steps = {
            name: jax.tree.map(jnp.subtract, state.params[name], moved[name])
            for name in moved
        }
        return {**grads, **steps}, metrics

    return descent(
        prepare,
        functools.partial(draw_decision, config.history),
        init_params,
        gradient,
        _optimizer(config, spec),
        averages={"ema": Averaging(config.ema_decay)},
        learning_rate_decay=config.learning_rate_decay,
        undecayed=("batch_stats",) if _has_batch_norm(config, spec) else (),
    )


def _has_batch_norm(config: ImitationConfig, spec: Spec) -> bool:
    # The layers of "mlp" have no norm; only an encoder of pictures before them does.
    return config.norm == "batch" and (config.network != "mlp" or is_picture(spec))


def _optimizer(config: ImitationConfig, spec: Spec) -> optax.GradientTransformation:
    adam = optax.adam(config.learning_rate)
    if not _has_batch_norm(config, spec):
        return adam
    return by_part({"params": adam, "batch_stats": optax.sgd(1.0)})


def _network(
    config: ImitationConfig, spec: Spec, features: int, axis_name: str | None = None
) -> Any:
    norm = functools.partial(Norm, config.norm, axis_name)
    images = None
    if is_picture(spec):
        images = ImageEncoder(
            spec.observation_shape,
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
