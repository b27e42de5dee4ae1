"""The PyTorch side of `benchmarks.planning`: plans and actions, step by step.

Everything runs in eager mode, as one writes PyTorch: a Python loop over denoising
steps, gradients of the value by autograd, `inference_mode` where there are none. Tables
of coefficients are those of jaxdiff. Arrays are channels first, [B, D, H].
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.pytorch_offline import Nets
from jaxdiff.algorithms.planning.trajectories import Statistics
from jaxdiff.data.normalizer import Normalizer
from jaxdiff.data.spec import Spec
from jaxdiff.diffusion import Steps


def _tensor(x: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(x, np.float32))


class Affine:
    """A normalizer of two knots, of the last axis."""

    def __init__(self, normalizer: Normalizer) -> None:
        knots, units = _tensor(normalizer.knots), _tensor(normalizer.units)
        self.low, self.high = _tensor(normalizer.low), _tensor(normalizer.high)
        self.slope = (units[1] - units[0]) / (knots[1] - knots[0])
        self.offset = units[0] - self.slope * knots[0]

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        """Map data units to unit scale."""
        return x * self.slope + self.offset

    def unnormalize(self, u: torch.Tensor) -> torch.Tensor:
        """Map unit scale to data units, within the bounds."""
        return ((u - self.offset) / self.slope).clamp(self.low, self.high)


class Planner:
    """Diffuser whose network predicts x0 or v.

    Args:
      network: `(x [B, D, H], time [B]) -> [B, D, H]`.
      steps: table of the sampler.
      statistics: of the data.
      spec: of the data.
      prediction: "x0" or "v".
      goal_dim: entries of the last observation that are known.
      temperature: of all noise.
      value: `(x [B, D, H], time [B]) -> [B]`, which guides plans, or None.
      guide_scale: strength of the guidance.
      guide_steps: gradients in a denoising step.
    """

    def __init__(
        self,
        network: nn.Module,
        steps: Steps,
        statistics: Statistics,
        spec: Spec,
        *,
        prediction: str = "x0",
        goal_dim: int = 0,
        temperature: float = 1.0,
        value: nn.Module | None = None,
        guide_scale: float = 0.0,
        guide_steps: int = 0,
    ) -> None:
        self.network, self.value, self.spec = network, value, spec
        self.prediction, self.goal_dim = prediction, goal_dim
        self.temperature = temperature
        self.guide_scale, self.guide_steps = guide_scale, guide_steps
        self.affine = Affine(statistics.normalizer)
        self.states = _tensor(statistics.support.states)
        self.limit = float(statistics.support.limit)
        self.weights = _tensor(statistics.dynamics.weights)
        self.scale = _tensor(statistics.dynamics.scale)
        names = ("x", "x0", "x0_prev", "noise", "variance")
        columns = [getattr(steps, name).tolist() for name in names]
        level = steps.level
        columns += [
            np.asarray(each).tolist() for each in (level.time, level.alpha, level.sigma)
        ]
        self.rows = list(zip(*columns, strict=True))

    @torch.no_grad()
    def plan(
        self, observation: torch.Tensor, goal: torch.Tensor | None, horizon: int
    ) -> torch.Tensor:
        """Map [B, O] and [B, G] to normalised plans [B, D, H]."""
        actions, width = self.spec.action_dim, len(self.affine.slope)
        batch = len(observation)
        known = torch.zeros(batch, horizon, width)
        mask = torch.zeros(horizon, width, dtype=torch.bool)
        known[:, 0, actions:], mask[0, actions:] = observation, True
        if goal is not None:
            entries = slice(actions, actions + self.goal_dim)
            known[:, -1, entries], mask[-1, entries] = goal, True
        known = self.affine.normalize(known).mT.contiguous()
        mask = mask.mT
        x = torch.where(mask, known, self.temperature * torch.randn_like(known))
        before = torch.zeros_like(x)
        for c_x, c_x0, c_prev, c_noise, variance, time, alpha, sigma in self.rows:
            times = torch.full((batch,), time)
            for _ in range(self.guide_steps):
                slope = self._slope(x, times)
                x = torch.where(mask, known, x + self.guide_scale * variance * slope)
            x0 = self.network(x, times)
            if self.prediction == "v":
                x0 = alpha * x - sigma * x0
            x0 = x0.clamp(-1.0, 1.0)
            x, before = c_x * x + c_x0 * x0 + c_prev * before, x0
            x = x + self.temperature * c_noise * torch.randn_like(x)
            x = torch.where(mask, known, x)
        return x

    def _slope(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        assert self.value is not None
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.value(x, time).sum(), x)[0]

    def finished(self, x: torch.Tensor) -> torch.Tensor:
        """Map normalised plans [B, D, H] to data units [B, H, D]."""
        return self.affine.unnormalize(x.mT)

    @torch.no_grad()
    def expected_return(self, x: torch.Tensor, time: float) -> torch.Tensor:
        """Map normalised plans to returns [B], told the least noise."""
        assert self.value is not None
        return self.value(x, torch.full((len(x),), time))

    @torch.no_grad()
    def strain(self, plans: torch.Tensor) -> torch.Tensor:
        """Map plans [B, H, D] in data units to how far they cannot be followed [B]."""
        x = self.affine.normalize(plans)
        after = x[:, 1:, self.spec.action_dim :]
        expected = x[:, :-1] @ self.weights[:-1] + self.weights[-1]
        residual = ((after - expected).abs() / self.scale).amax(-1)
        worst = residual.topk(max(1, residual.shape[1] // 10)).values.mean(-1)
        places = self.states.shape[1]
        if not places:
            return worst  # without goals there is nowhere to lead away
        seen = x[..., self.spec.action_dim : self.spec.action_dim + places]
        squares = (
            seen.square().sum(-1, keepdim=True)
            - 2 * seen @ self.states.T
            + self.states.square().sum(-1)
        )
        away = squares.amin(-1).clamp(min=0).sqrt().amax(-1) / self.limit
        return worst * torch.where(away > 1, 1e3 * away, 1.0)


def earliest(
    planner: Planner,
    observation: torch.Tensor,
    goal: torch.Tensor,
    *,
    horizons: Sequence[int],
    candidates: int,
    slack: float,
) -> torch.Tensor:
    """Plan for all horizons, the longest first, until an early plan is feasible.

    Args:
      planner: makes the plans.
      observation: [1, O].
      goal: [1, G].
      horizons: in increasing order.
      candidates: plans of each horizon, the best of which counts.
      slack: factor by which the strain of an earlier plan may exceed the longest one's.

    Returns:
      The plan to follow, [H, D].
    """

    def best(horizon: int) -> tuple[torch.Tensor, torch.Tensor]:
        many = observation.repeat(candidates, 1), goal.repeat(candidates, 1)
        plans = planner.finished(planner.plan(*many, horizon))
        strain = planner.strain(plans)
        chosen = int(strain.argmin())
        return plans[chosen], strain[chosen]

    found, reference = best(horizons[-1])
    for horizon in horizons[:-1]:
        plan, strain = best(horizon)
        if strain <= slack * reference:
            return plan
    return found


class Embedding(nn.Module):
    """Linear, leaky ReLU, linear."""

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        # Flax counts the outer layer, which is written first, as 0.
        linear = [nn.Linear(features, features), nn.Linear(inputs, features)]
        self.Linear = nn.ModuleList(linear)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, inputs] to [B, features]."""
        return self.Linear[0](F.leaky_relu(self.Linear[1](x)))


class SineEmbedding(nn.Module):
    """Sines of learned frequencies, then a linear layer."""

    def __init__(self, features: int) -> None:
        super().__init__()
        waves = nn.Linear(1, features, bias=False)
        self.Linear = nn.ModuleList([waves, nn.Linear(features, features)])

    def forward(self, time: torch.Tensor) -> torch.Tensor:
        """Map [B] to [B, features]."""
        return self.Linear[1](self.Linear[0](time[:, None]).sin())


class Normed(nn.Module):
    """A layer norm, named as jaxdiff's."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.LayerNorm_0 = nn.LayerNorm(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, features] to the same shape."""
        return self.LayerNorm_0(x)


class Sieve(nn.Module):
    """The network of `jaxdiff.networks.Sieve` for one vector of observations."""

    def __init__(self, inputs: int, features: int, hidden: int, embed: int) -> None:
        super().__init__()
        self.observation_embedding = Embedding(inputs, embed)
        self.action_embedding = Embedding(features, embed)
        self.time_embedding = SineEmbedding(embed)
        sizes = [3 * embed, hidden + features + 1, hidden + features + 1]
        self.layers = nn.ModuleList([nn.Linear(size, hidden) for size in sizes])
        self.norms = nn.ModuleList([Normed(hidden) for _ in sizes])
        self.out = nn.Linear(hidden + features + 1, features)

    def forward(
        self, embedding: torch.Tensor, action: torch.Tensor, time: torch.Tensor
    ) -> torch.Tensor:
        """Map [B, embed], [B, A] and [B] to [B, A]."""
        raw = [action, time[:, None]]
        embedded = [self.action_embedding(action), self.time_embedding(time)]
        h = self._layer(0, torch.cat([embedding, *embedded], dim=1))
        for i in (1, 2):
            h = h * math.sqrt(0.5)
            h = self._layer(i, torch.cat([h, *raw], dim=1)) + h
        return self.out(torch.cat([h, *raw], dim=1))

    def _layer(self, i: int, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(self.norms[i](self.layers[i](x)))


def diffusion_policy(
    network: Sieve,
    steps: Steps,
    inputs: Normalizer,
    actions: Normalizer,
    *,
    temperature: float = 1.0,
) -> Callable[[np.ndarray], np.ndarray]:
    """Build `observations [B, O] -> actions [B, A]` that denoises actions."""
    level = steps.level
    columns = (steps.x, steps.x0, steps.noise, level.time, level.alpha, level.sigma)
    rows = list(zip(*(np.asarray(each).tolist() for each in columns), strict=True))
    seen, done = Affine(inputs), Affine(actions)

    @torch.inference_mode()
    def act(observation: np.ndarray) -> np.ndarray:
        shown = seen.normalize(torch.from_numpy(observation))
        embedding = network.observation_embedding(shown)
        a = temperature * torch.randn(len(shown), len(done.slope))
        for c_x, c_x0, c_noise, time, alpha, sigma in rows:
            noise = network(embedding, a, torch.full((len(a),), time))
            a = c_x * a + c_x0 * (a - sigma * noise) / alpha
            a = a + temperature * c_noise * torch.randn_like(a)
        return done.unnormalize(a).numpy()

    return act


def actor_policy(
    actor: Nets, inputs: Normalizer, actions: Normalizer
) -> Callable[[np.ndarray], np.ndarray]:
    """Build `observations [B, O] -> actions [B, A]` of one call of a network."""
    seen, done = Affine(inputs), Affine(actions)

    @torch.inference_mode()
    def act(observation: np.ndarray) -> np.ndarray:
        shown = seen.normalize(torch.from_numpy(observation))
        return done.unnormalize(actor(shown)[0].tanh()).numpy()

    return act
