"""The PyTorch side of `benchmarks.updates`: networks, losses, updates.

Written as one writes PyTorch, channels first, and named as Flax names things, so that
weights are copied by name: `ResidualBlock.3` is `ResidualBlock_3`.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from jaxdiff.diffusion import NoiseLevels


class ConvBlock(nn.Module):
    """Convolution over time, GroupNorm, Mish; arrays are [B, C, H]."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.TemporalConv_0 = nn.Conv1d(channels, features, 5, padding=2)
        self.GroupNorm_0 = nn.GroupNorm(8, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, C, H] to [B, features, H]."""
        return F.mish(self.GroupNorm_0(self.TemporalConv_0(x)))


class ResidualBlock(nn.Module):
    """The residual temporal block."""

    def __init__(self, channels: int, features: int, dim: int) -> None:
        super().__init__()
        self.Linear_0 = nn.Linear(dim, features)
        self.ConvBlock = nn.ModuleList(
            [ConvBlock(channels, features), ConvBlock(features, features)]
        )
        same = channels == features
        self.Linear_1 = nn.Identity() if same else nn.Conv1d(channels, features, 1)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Map x [B, C, H] and an embedding [B, dim] to [B, features, H]."""
        shift = self.Linear_0(F.mish(embedding))
        h = self.ConvBlock[0](x) + shift[:, :, None]
        return self.ConvBlock[1](h) + self.Linear_1(x)


class TimeEmbedding(nn.Module):
    """Embed the noise level."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.Linear = nn.ModuleList([nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)])
        frequencies = torch.logspace(0.0, -4.0, dim // 2)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, time: torch.Tensor) -> torch.Tensor:
        """Map times [B] to [B, dim]."""
        angles = time[:, None] * self.frequencies
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)
        return self.Linear[1](F.mish(self.Linear[0](waves)))


class TemporalUNet(nn.Module):
    """The network of `jaxdiff.networks.TemporalUNet`, its condition left out."""

    def __init__(self, width: int, *, dim: int, dim_mults: Sequence[int]) -> None:
        super().__init__()
        widths = [dim * mult for mult in dim_mults]
        pairs = []
        for before, after in itertools.pairwise([width, *widths, widths[-1]]):
            pairs += [(before, after), (after, after)]
        for wide, narrow in itertools.pairwise(reversed(widths)):
            pairs += [(2 * wide, narrow), (narrow, narrow)]
        self.TimeEmbedding_0 = TimeEmbedding(dim)
        self.ResidualBlock = nn.ModuleList([ResidualBlock(*p, dim) for p in pairs])
        downs = [nn.Conv1d(w, w, 3, stride=2, padding=1) for w in widths[:-1]]
        ups = [nn.ConvTranspose1d(w, w, 4, stride=2, padding=1) for w in widths[-2::-1]]
        self.TemporalConv = nn.ModuleList(downs)
        self.TemporalUpConv = nn.ModuleList(ups)
        self.ConvBlock_0 = ConvBlock(dim, dim)
        self.Linear_0 = nn.Conv1d(dim, width, 1)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Map x [B, D, H] and times [B] to [B, D, H]."""
        embedding = self.TimeEmbedding_0(time)
        blocks = iter(self.ResidualBlock)

        def level(x: torch.Tensor) -> torch.Tensor:
            for block in itertools.islice(blocks, 2):
                x = block(x, embedding)
            return x

        skips = []
        for down in self.TemporalConv:
            skips.append(level(x))
            x = down(skips[-1])
        skips.append(level(x))
        x = level(skips[-1])
        for up in self.TemporalUpConv:
            x = up(level(torch.cat([x, skips.pop()], dim=1)))
        return self.Linear_0(self.ConvBlock_0(x))


class TemporalValue(nn.Module):
    """The network of `jaxdiff.networks.TemporalValue`, its condition left out."""

    def __init__(
        self, width: int, horizon: int, *, dim: int, dim_mults: Sequence[int]
    ) -> None:
        super().__init__()
        widths = [dim * mult for mult in dim_mults]
        blocks = [(each, 2) for each in widths]
        blocks += [(widths[-1] // 2, 1), (widths[-1] // 4, 1)]
        self.counts = [count for _, count in blocks]
        before, residual, downs = width, [], []
        for features, count in blocks:
            for _ in range(count):
                residual.append(ResidualBlock(before, features, dim))
                before = features
            downs.append(nn.Conv1d(features, features, 3, stride=2, padding=1))
            horizon = (horizon + 1) // 2
        flat = before * horizon
        self.TimeEmbedding_0 = TimeEmbedding(dim)
        self.ResidualBlock = nn.ModuleList(residual)
        self.TemporalConv = nn.ModuleList(downs)
        linear = [nn.Linear(flat + dim, flat // 2), nn.Linear(flat // 2, 1)]
        self.Linear = nn.ModuleList(linear)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Map x [B, D, H] and times [B] to [B]."""
        embedding = self.TimeEmbedding_0(time)
        blocks = iter(self.ResidualBlock)
        for count, down in zip(self.counts, self.TemporalConv, strict=True):
            for block in itertools.islice(blocks, count):
                x = block(x, embedding)
            x = down(x)
        flat = x.mT.flatten(1)  # step by step, as jaxdiff's rows lie
        hidden = self.Linear[0](torch.cat([flat, embedding], dim=1))
        return self.Linear[1](F.mish(hidden))[:, 0]


_AXES = {  # from the layout of our kernels to that of torch's weights
    nn.Linear: (1, 0),
    nn.Conv1d: (2, 1, 0),
    nn.ConvTranspose1d: (1, 2, 0),
    nn.GroupNorm: (0,),
    nn.LayerNorm: (0,),
}


@torch.no_grad()
def copy_weights(params: Mapping[str, Any], network: nn.Module) -> None:
    """Copy Flax parameters into the modules of the same names.

    Equation (2) of `jaxdiff.networks.temporal_conv` counts the taps of a transposed
    convolution as torch does, so no kernel is turned around.
    """
    modules: Iterator[tuple[str, Any]] = network.named_modules()
    for name, module in modules:
        if type(module) in _AXES:
            leaf = params["params"]
            for key in re.sub(r"\.(\d+)", r"_\1", name).split("."):
                leaf = leaf[key]
            kernel = np.array(leaf["kernel" if "kernel" in leaf else "scale"])
            axes = _AXES[type(module)]
            if kernel.ndim < len(axes):  # ours is a map of each step: one tap
                kernel = kernel[None]
            module.weight.copy_(torch.from_numpy(kernel.transpose(axes)))
            if module.bias is not None:
                module.bias.copy_(torch.from_numpy(np.array(leaf["bias"])))


def denoising_loss(
    network: nn.Module,
    x0: torch.Tensor,
    level: torch.Tensor,
    noise: torch.Tensor,
    *,
    tables: Mapping[str, torch.Tensor],
    mask: torch.Tensor,
) -> torch.Tensor:
    """Score the network's x0, [B, D, H] noised to rows `level` [B] of the tables."""
    alpha, sigma = (tables[name][level, None, None] for name in ("alpha", "sigma"))
    x_t = torch.where(mask, x0, alpha * x0 + sigma * noise)
    error = network(x_t, tables["time"][level]) - x0
    return error.square().masked_fill(mask, 0.0).mean()


def level_tables(levels: NoiseLevels) -> dict[str, torch.Tensor]:
    """Copy stacked noise levels."""
    return {
        name: torch.tensor(getattr(levels, name), dtype=torch.float32)
        for name in ("time", "alpha", "sigma")
    }


def clamp_mask(
    width: int, horizon: int, *, action_dim: int, goal_dim: int
) -> torch.Tensor:
    """Mark the entries [D, H] shown clean: first observation, goal at the end."""
    mask = torch.zeros(width, horizon, dtype=torch.bool)
    mask[action_dim:, 0] = True
    mask[action_dim : action_dim + goal_dim, -1] = True
    return mask


def updates(
    network: nn.Module,
    loss: Callable[[], torch.Tensor],
    *,
    learning_rate: float,
    ema_decay: float,
) -> tuple[Callable[[int], float], list[torch.Tensor]]:
    """Build updates of a network, and the averaged parameters that they move."""
    params: list[torch.Tensor] = list(network.parameters())
    slow = [param.detach().clone() for param in params]
    # One kernel for all of Adam, one call for the average: the fastest of torch's ways.
    optimizer = torch.optim.Adam(params, lr=learning_rate, fused=True)

    def advance(count: int) -> float:
        for _ in range(count):
            optimizer.zero_grad()
            value = loss()
            value.backward()
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(slow, params, 1.0 - ema_decay)
        return value.item()

    return advance, slow
