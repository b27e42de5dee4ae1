"""Which network denoises trajectories: one choice for all planners.

"unet" is the temporal U-Net of Diffuser, "dit" the transformer of
`jaxdiff.networks.dit`. Each reads its own options and passes over those of the other.
"""

from typing import Any

from jaxdiff.errors import UserError
from jaxdiff.networks import DiT, TemporalUNet, horizon_multiple

_HEAD = 32  # channels of a head of attention


def trajectory_network(config: Any) -> TemporalUNet | DiT:
    """Build the network of a planner's options `backbone`, `dim`, `dit_width`, ..."""
    if config.backbone == "dit":
        return DiT(
            dim=config.dim,
            width=config.dit_width,
            depth=config.dit_depth,
            heads=config.dit_width // _HEAD,
            patch=config.patch,
        )
    return TemporalUNet(
        dim=config.dim,
        dim_mults=config.dim_mults,
        attention=config.attention,
        show_ends=config.show_ends,
        patch=config.patch,
        norm_by_row=config.norm_by_row,
    )


def check_width(config: Any) -> None:
    """Check that the transformer's channels make whole heads.

    Raises:
      UserError: they do not.
    """
    if config.dit_width % _HEAD:
        raise UserError(
            f"--dit-width is {config.dit_width}; it must be a multiple of {_HEAD}, the "
            "channels of a head"
        )


def require_horizons(config: Any, horizons: list[int]) -> list[int]:
    """Return horizons that the network can take, as they are.

    Raises:
      UserError: one that the U-Net cannot halve often enough, or of no whole patches.
    """
    if config.backbone == "dit":
        multiple, needs = config.patch, f"a transformer of patches of {config.patch}"
    else:
        multiple = horizon_multiple(config.dim_mults, config.patch)
        needs = f"a U-Net of {len(config.dim_mults)} levels"
    for horizon in horizons:
        if horizon % multiple or horizon < 2:
            raise UserError(
                f"the horizon {horizon} is not a positive multiple of {multiple}, as "
                f"{needs} needs; choose {max(1, round(horizon / multiple)) * multiple}"
            )
    return horizons
