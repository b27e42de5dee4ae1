"""Options of imitation, and how they fit the observations of a dataset."""

import dataclasses
from collections.abc import Iterator
from typing import Literal

from jaxdiff.data.spec import Spec
from jaxdiff.networks import EncoderKind, NormKind
from jaxdiff.options import Options, above, at_least, at_most, refuse


@dataclasses.dataclass(frozen=True)
class ImitationConfig(Options):
    """Options of every policy that imitates.

    Attributes:
      network: "mlp", "sieve" or "transformer", see `jaxdiff.networks.imitation`.
      hidden: width of the hidden layers of "mlp" and "sieve".
      embed: width of the embeddings of "sieve" and "transformer".
      norm: normalization of hidden layers: "layer", "batch" (the paper's) or "none".
      lean: leave out the second projection of the transformer's attention, which the
        released network has.
      encoder: network that reads pictures, "residual", "strided" or "patches", see
        `jaxdiff.networks.images`; not used where observations are vectors.
      places: largest number of places along each side that the encoder of pictures
        averages to; 0 for its own.
      stacked: encode the pictures of a history together, as one picture of k times the
        channels, so that the first layer sees motion.
      host_memory: keep observations in the memory of the host and fetch those of each
        batch, for data that do not fit the device.
      history: number k of observations that the policy sees.
      relative: learn actions as offsets from the position, for actions that are target
        positions.
      normalizer: scaling of vector observations and goals.
      learning_rate: learning rate of Adam.
      learning_rate_decay: share of the updates over which the learning rate falls to 0
        along a cosine; 0 keeps it.
      ema_decay: decay of the averaged parameters, which act; 0 acts with the trained
        ones.
    """

    network: Literal["mlp", "sieve", "transformer"] = "sieve"
    hidden: int = 512
    embed: int = 128
    norm: NormKind = "layer"
    lean: bool = True
    encoder: EncoderKind = "residual"
    places: int = 0
    stacked: bool = False
    host_memory: bool = False
    history: int = 1
    relative: bool = False
    normalizer: Literal["limits", "gaussian", "cdf"] = "gaussian"
    learning_rate: float = 1e-3
    learning_rate_decay: float = 0.0
    ema_decay: float = 0.995

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 1, "hidden", "embed", "history")
        shares = ("learning_rate_decay", "ema_decay")
        yield from at_least(self, 0, "places", *shares)
        yield from above(self, 0, "learning_rate")
        yield from at_most(self, 1, *shares)


def is_picture(spec: Spec) -> bool:
    """Return whether observations are pictures: height, width and channels."""
    return len(spec.observation_shape) == 3


def check_observations(config: ImitationConfig, spec: Spec) -> None:
    """Check that options fit the observations.

    Raises:
      UserError: offsets from a position that observations do not have, `stacked`
        without pictures, or goals beside pictures.
    """
    faults = []
    picture = is_picture(spec)
    if config.relative and (picture or not reference_entries(config, spec)):
        seen = "pictures" if picture else f"{spec.observation_dim} numbers"
        faults.append(
            f"`relative` needs a position in the observation for each of the "
            f"{spec.action_dim} entries of an action, and observations are {seen}; "
            "choose `relative=False`"
        )
    if config.stacked and not picture:
        faults.append(
            "`stacked` joins pictures, and observations are vectors; choose "
            "`stacked=False`"
        )
    if picture and spec.goal_dim:
        faults.append(
            "the dataset has goals beside pictures, which imitation cannot read; use a "
            "dataset without goals"
        )
    refuse(faults)


def reference_entries(config: ImitationConfig, spec: Spec) -> tuple[int, ...]:
    """Return the entries of an observation that actions are offsets from.

    Returns:
      A entries: those of the position, or the leading ones where the layout is not
      known. Empty where actions are absolute or the observation is too short.
    """
    entries = spec.layout.position or tuple(range(spec.observation_dim))
    if not config.relative or len(entries) < spec.action_dim:
        return ()
    return entries[: spec.action_dim]
