"""The PyTorch side of `benchmarks.offline_updates`: IQL and TD3+BC.

Networks are named as Flax names them, see `benchmarks.pytorch`. An update does the same
as jaxdiff's, in the same order.
"""

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from jaxdiff.algorithms.offline.iql import IQLConfig
from jaxdiff.algorithms.offline.td3_bc import TD3BCConfig
from jaxdiff.data.transitions import Transitions

Batch = Mapping[str, torch.Tensor]


class Layers(nn.Module):
    """Dense layers with ReLU between them."""

    def __init__(self, inputs: int, features: int, widths: Sequence[int]) -> None:
        super().__init__()
        pairs = itertools.pairwise([inputs, *widths, features])
        self.Linear = nn.ModuleList([nn.Linear(*pair) for pair in pairs])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, inputs] to [B, features]."""
        for layer in self.Linear[:-1]:
            x = F.relu(layer(x))
        return self.Linear[-1](x)


class Nets(nn.Module):
    """Some of the above, one beside the other."""

    def __init__(
        self, count: int, inputs: int, features: int, widths: Sequence[int]
    ) -> None:
        super().__init__()
        self.ReLUNet = nn.ModuleList(
            [Layers(inputs, features, widths) for _ in range(count)]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, inputs] to [count, B, features]."""
        return torch.stack([net(x) for net in self.ReLUNet])


def table(data: Transitions) -> dict[str, torch.Tensor]:
    """Copy transitions, leaves `[N, ...]`."""
    names = Transitions.__annotations__
    return {name: torch.tensor(_array(getattr(data, name))) for name in names}


def _array(leaf: Any) -> Any:
    return leaf.tolist() if leaf.dtype == bool else leaf.__array__()


def draw(data: Batch, size: int) -> dict[str, torch.Tensor]:
    """Draw rows with replacement."""
    rows = torch.randint(len(data["rewards"]), (size,))
    return {name: leaf[rows] for name, leaf in data.items()}


def _adam(module: nn.Module, rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(module.parameters(), lr=rate, fused=True)


def _descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@torch.no_grad()
def _follow(slow: nn.Module, module: nn.Module, rate: float) -> None:
    torch._foreach_lerp_(list(slow.parameters()), list(module.parameters()), rate)


def _values(q: Nets, inputs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    return q(torch.cat([inputs, actions], dim=1))[..., 0]


class IQL:
    """IQL whose policy is one action: critic and policy in one update."""

    def __init__(self, config: IQLConfig, inputs: int, actions: int) -> None:
        self.config = config
        self.q = Nets(2, inputs + actions, 1, config.widths)
        self.v = Nets(1, inputs, 1, config.widths)
        self.actor = Nets(1, inputs, actions, config.widths)
        self.target = copy.deepcopy(self.q)
        self.optimizers = {
            name: _adam(module, config.learning_rate)
            for name, module in (("q", self.q), ("v", self.v), ("actor", self.actor))
        }

    def sync(self) -> None:
        """Copy the critics to their targets."""
        self.target.load_state_dict(self.q.state_dict())

    def update(self, batch: Batch) -> float:
        """Make one update; give the loss of the critic."""
        config, inputs, actions = self.config, batch["inputs"], batch["actions"]
        with torch.no_grad():
            ahead = self.v(batch["next_inputs"])[0, :, 0]
            ahead = torch.where(batch["terminals"], 0.0, ahead)
            wanted = batch["rewards"] + config.discount * ahead
            best = _values(self.target, inputs, actions).min(0).values
        error = best - self.v(inputs)[0, :, 0]
        weight = (config.expectile - (error.detach() < 0).float()).abs()
        value_loss = (weight * error.square()).mean()
        _descend(self.optimizers["v"], value_loss)
        q_loss = (_values(self.q, inputs, actions) - wanted).square().mean()
        _descend(self.optimizers["q"], q_loss)
        _follow(self.target, self.q, config.target_rate)
        with torch.no_grad():
            best = _values(self.target, inputs, actions).min(0).values
            advantage = best - self.v(inputs)[0, :, 0]
            weight = (config.temperature * advantage).exp()
            weight = weight.clamp(max=config.max_weight)
        square = (self.actor(inputs)[0].tanh() - actions).square().sum(1)
        _descend(self.optimizers["actor"], (weight * square).mean())
        return (value_loss + q_loss).item()


class TD3BC:
    """TD3+BC."""

    def __init__(self, config: TD3BCConfig, inputs: int, actions: int) -> None:
        self.config, self.step = config, 0
        self.q = Nets(2, inputs + actions, 1, config.widths)
        self.actor = Nets(1, inputs, actions, config.widths)
        self.slow = {
            name: copy.deepcopy(getattr(self, name)) for name in ("q", "actor")
        }
        self.optimizers = {
            name: _adam(module, config.learning_rate)
            for name, module in (("q", self.q), ("actor", self.actor))
        }

    def sync(self) -> None:
        """Copy critics and policy to what follows them."""
        for name, slow in self.slow.items():
            slow.load_state_dict(getattr(self, name).state_dict())

    def update(self, batch: Batch) -> float:
        """Make one update; give the loss of the critics."""
        config, inputs = self.config, batch["inputs"]
        with torch.no_grad():
            ahead = self.slow["actor"](batch["next_inputs"])[0].tanh()
            bound = config.smoothing_bound
            noise = (config.smoothing * torch.randn_like(ahead)).clamp(-bound, bound)
            ahead = (ahead + noise).clamp(-1, 1)
            beyond = _values(self.slow["q"], batch["next_inputs"], ahead).min(0).values
            beyond = torch.where(batch["terminals"], 0.0, beyond)
            wanted = batch["rewards"] + config.discount * beyond
        loss = (_values(self.q, inputs, batch["actions"]) - wanted).square().mean()
        _descend(self.optimizers["q"], loss)
        self.step += 1
        if self.step % config.policy_delay == 0:
            actions = self.actor(inputs)[0].tanh()
            values = _values(self.q, inputs, actions)[0]
            size = values.detach().abs().mean().clamp(min=1e-8)
            cloning = (actions - batch["actions"]).square().mean()
            gain = config.temperature * values.mean() / size
            _descend(self.optimizers["actor"], cloning - gain)
            for name, slow in self.slow.items():
                _follow(slow, getattr(self, name), config.target_rate)
        return loss.item()
