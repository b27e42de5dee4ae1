"""Networks that denoise trajectories, by the name that the option `network` gives.

To add one, assign it to `NETWORKS` in a module that `--import` names:

    class Mine(nn.Module):
        width: int

        @nn.compact
        def __call__(self, x, time, condition=None):  # [B, H, D], [B], [B, E]
            ...
            return y  # [B, H, D]

    NETWORKS["mine"] = TrajectoryNetwork(lambda config: Mine(width=config.dim))

A network that also takes `length` [B], the rows of x that count, may say so by
`takes_length=True`. Acting then compiles it once for all horizons; other networks are
compiled once for each. See `jaxdiff.networks.lengths`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxdiff.networks import DiT, TemporalUNet, horizon_multiple
from jaxdiff.registry import Registry

HEAD = 32  # channels of a head of attention


class TrajectoryNetwork(NamedTuple):
    """A network of trajectories, as a planner knows it.

    Attributes:
      build: `config -> module`, a Flax module `(x [B, H, D], time [B], condition [B, E]
        or None) -> [B, H, D]`. `config` holds the options of the planner; a network may
        give its own meaning to `dim`, `dim_mults` and `patch`.
      multiple: `config -> int`, the number that must divide every horizon.
      takes_length: whether the module has the keyword `length` [B].
    """

    build: Callable[[Any], Any]
    multiple: Callable[[Any], int] = lambda config: 1
    takes_length: bool = False


def _unet(config: Any) -> TemporalUNet:
    return TemporalUNet(
        dim=config.dim,
        dim_mults=config.dim_mults,
        attention=config.attention,
        show_ends=config.show_ends,
        patch=config.patch,
        norm_by_row=config.norm_by_row,
        precision=config.precision,
    )


def _dit(config: Any) -> DiT:
    return DiT(
        dim=config.dim,
        width=config.dit_width,
        depth=config.dit_depth,
        heads=config.dit_width // HEAD,
        patch=config.patch,
        precision=config.precision,
    )


NETWORKS: Registry[TrajectoryNetwork] = Registry(
    "network",
    {
        "unet": TrajectoryNetwork(
            _unet,
            lambda config: horizon_multiple(config.dim_mults, config.patch),
            takes_length=True,
        ),
        "dit": TrajectoryNetwork(_dit, lambda config: config.patch, takes_length=True),
    },
    group="jaxdiff.networks",
)
"""Name -> `TrajectoryNetwork`: the temporal U-Net of Diffuser and a transformer."""
