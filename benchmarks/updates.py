"""Time training updates beside PyTorch.

    pip install -e ".[bench]"
    python -m benchmarks.updates [--devices 2] [--budget 60]

An update is noise, loss, gradient, Adam and the averaged copy. `jaxdiff` is the real
learner in the program that `jaxdiff train` runs, which also draws each batch from the
dataset; `torch` is the same network, loss and optimizer in eager PyTorch, on a batch
that lies ready. Both start from the same weights and must compute the same function.
Blocks, rows and cautions are those of `benchmarks.turns`.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import pytorch, turns
from benchmarks.command import as_command
from benchmarks.turns import Advance, Setting
from jaxdiff.algorithms.base import Learner, TrainConfig, TrainState
from jaxdiff.algorithms.planning.diffuser import (
    DiffuserActing,
    DiffuserConfig,
    diffuser,
    measure,
)
from jaxdiff.data.episodes import Episodes, starts_of
from jaxdiff.data.spec import Spec
from jaxdiff.devices import Device
from jaxdiff.diffusion import cosine_schedule
from jaxdiff.networks import TemporalUNet
from jaxdiff.train import updates_of

BATCH_SIZE = 32
TOLERANCE = 1e-4


def jaxdiff_updates(
    learner: Learner, data: Any, *, batch_size: int, devices: list[Device]
) -> tuple[Advance, TrainState]:
    """Build the program of `train_learners`, and the state that it starts from."""
    config = TrainConfig(batch_size=batch_size)
    program = updates_of(learner, data, config=config, devices=devices, donate=False)
    return lambda count: program.advance(count)["loss"], program.state


def random_episodes(action_dim: int, observation_dim: int) -> Episodes:
    """Draw 20 episodes of 1000 steps from a normal distribution."""
    lengths = np.full(20, 1_000)
    rng, rows = np.random.default_rng(0), int(lengths.sum()) + len(lengths)
    return Episodes(
        observations=rng.normal(size=(rows, observation_dim)).astype(np.float32),
        actions=rng.normal(size=(rows, action_dim)).astype(np.float32),
        rewards=np.zeros(rows, np.float32),
        starts=starts_of(lengths),
        lengths=lengths,
        terminated=np.zeros(len(lengths), bool),
    )


def diffuser_methods(
    config: DiffuserConfig, dims: tuple[int, int], devices: list[Device]
) -> dict[str, Advance]:
    """Build Diffuser twice, for `dims` of actions and observations."""
    episodes, shape = random_episodes(*dims), (BATCH_SIZE, sum(dims), config.horizon)
    spec = Spec((dims[1],), action_dim=dims[0])
    statistics = measure(config, episodes, spec)
    built = diffuser(config, DiffuserActing(), statistics, spec)
    ours, state = jaxdiff_updates(
        built.learners["denoiser"], episodes, batch_size=BATCH_SIZE, devices=devices
    )
    size = {"dim": config.dim, "dim_mults": config.dim_mults}
    network = pytorch.TemporalUNet(sum(dims), **size)
    pytorch.copy_weights(state.params, network)
    x0 = 2.0 * torch.rand(shape) - 1.0
    apply = functools.partial(TemporalUNet(**size).apply, state.params)
    print(f"the networks agree to {check_same(apply, network, x0):.1e}", flush=True)

    tables = pytorch.level_tables(cosine_schedule(config.diffusion_steps))
    mask = pytorch.clamp_mask(*shape[1:], action_dim=dims[0], goal_dim=config.goal_dim)

    def loss() -> torch.Tensor:
        level = torch.randint(1, config.diffusion_steps + 1, (BATCH_SIZE,))
        noise = torch.randn(shape)
        return pytorch.denoising_loss(
            network, x0, level, noise, tables=tables, mask=mask
        )

    theirs, _ = pytorch.updates(
        network,
        loss,
        learning_rate=config.learning_rate,
        ema_decay=config.ema_decay,
    )
    return {"jaxdiff": ours, "torch": theirs}


@torch.no_grad()
def check_same(
    ours: Callable[..., Any], theirs: Callable[..., torch.Tensor], x: torch.Tensor
) -> float:
    """Return the largest difference of two denoisers' outputs, on x [B, D, H].

    Raises:
      SystemExit: they are not the same function.
    """
    time_ = torch.linspace(0.0, 50.0, len(x))
    expected = jax.jit(ours)(np.asarray(x.mT), np.asarray(time_))
    error = float(np.abs(expected - theirs(x, time_).mT.numpy()).max())
    if not error < TOLERANCE:
        raise SystemExit(f"the networks differ by {error:.1e}: nothing to compare")
    return error


def _diffuser(
    dims: tuple[int, int], horizon: int, dim_mults: tuple[int, ...], **options: Any
) -> Setting:
    config = DiffuserConfig(
        horizon=horizon,
        dim_mults=dim_mults,
        prediction="x0",
        action_weight=1.0,
        **options,
    )
    return Setting(functools.partial(diffuser_methods, config, dims))


SETTINGS: dict[str, Setting] = {
    "diffuser-maze-1-4-8-H128": _diffuser((2, 4), 128, (1, 4, 8), goal_dim=4),
    "diffuser-hopper-1-2-4-8-H32": _diffuser(
        (3, 11), 32, (1, 2, 4, 8), diffusion_steps=20
    ),
    "diffuser-maze-1-2-4-H128": _diffuser((2, 4), 128, (1, 2, 4), goal_dim=2),
}


if __name__ == "__main__":
    with as_command():
        turns.main(sys.argv[1:], experiment="updates", settings=SETTINGS)
