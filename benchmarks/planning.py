"""Time plans, actions and updates beside PyTorch, and plans as work grows.

    pip install -e ".[bench]"
    python -m benchmarks.planning [--devices 2] [--budget 60] [--resume]
    python -m benchmarks.planning --growth --budget 10 [--resume]

`jaxdiff` makes plans and actions as users make them: `jaxdiff.plan` for one problem,
the planner of the algorithm over all devices for a batch, and `run.policy` for actions.
`torch` is the same network and sampler in eager PyTorch, one Python loop over denoising
steps. Both start from the same weights, and the build of a setting compares what they
make without noise. Blocks, rows and cautions are those of `benchmarks.turns`.

Diffuser has the sizes of its authors: T denoising steps of plans of H steps; guided
plans take two gradients of a model of returns in each. The demo's planner makes plans
of nine horizons and chooses among them; here none of the early ones is feasible, which
is the most that a decision can cost.

With `--growth` one size grows at a time: problems in a batch, candidates of a problem,
the horizon, the width of the network. Rows go to `planning-growth`, and the picture to
benchmarks/results/figures/planning-growth.png.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from matplotlib.figure import Figure

import jaxdiff
from benchmarks import pytorch, pytorch_planning, turns, updates
from benchmarks.command import as_command
from benchmarks.pytorch_offline import Nets
from benchmarks.rows import RESULTS, read_rows
from benchmarks.turns import Advance, Setting
from jaxdiff import figures
from jaxdiff.algorithms.base import TrainConfig
from jaxdiff.algorithms.imitation.diffusion_bc import (
    DiffusionBCActing,
    DiffusionBCConfig,
)
from jaxdiff.algorithms.offline.iql import IQLConfig
from jaxdiff.algorithms.offline.srpo import SRPOConfig
from jaxdiff.algorithms.planning.diffuser import DiffuserActing, DiffuserConfig
from jaxdiff.algorithms.planning.planner import Problem
from jaxdiff.bench.subjects import anew, fill_states, made_up
from jaxdiff.data.spec import Layout, Spec
from jaxdiff.devices import Device, share, split_batch
from jaxdiff.diffusion import SAMPLERS, SCHEDULES, ddpm, subgrid
from jaxdiff.figures.style import INK, PALETTE, RULE, SMALL, TEXT, plain_grid
from jaxdiff.options import NoOptions, Options
from jaxdiff.run import Run

TOLERANCE = 1e-3  # of plans and actions whose entries are about 1

HOPPER = Spec((11,), action_dim=3)
MAZE = Spec(
    (4,), action_dim=2, goal_dim=2,
    layout=Layout(position=(0, 1), velocity=(2, 3), goal=(0, 1, 2, 3)),
)  # fmt: skip
CHEETAH = Spec((17,), action_dim=6)

# As in Diffuser's released code, where the network predicts x0.
RELEASED = DiffuserConfig(prediction="x0", action_weight=1.0)
LOCOMOTION = dataclasses.replace(
    RELEASED, horizon=32, diffusion_steps=20, dim_mults=(1, 2, 4, 8)
)
LARGE_MAZE = dataclasses.replace(
    RELEASED, horizon=128, diffusion_steps=64, dim_mults=(1, 4, 8), goal_dim=2
)
GUIDED = dataclasses.replace(LOCOMOTION, return_model=True)
PLAIN = DiffuserActing()
GUIDANCE = DiffuserActing(guide_scale=0.1, guide_steps=2)
DEMO = DiffuserConfig(
    horizon=128,
    horizons=(24, 40, 56, 72, 96, 112, 136, 160),
    diffusion_steps=64,
    dim_mults=(1, 2, 4),
    goal_dim=2,
)
# No plan is within a slack of 0. Small gains keep actions within their bounds, where a
# difference shows.
DEMO_ACTING = DiffuserActing(
    sampling_steps=32, candidates=2, choose="earliest", controller="track", slack=0.0,
    kp=0.1, kd=0.1,
)  # fmt: skip


def run_of(name: str, spec: Spec, config: Any, acting: Any) -> Run:
    """Build a run whose parameters are made up."""
    subject = made_up(name, spec, config, acting, TrainConfig())
    fill_states(subject)
    return subject.run


def observations(run: Run, batch: int) -> np.ndarray:
    """Draw observations [B, O] in the middle of the data."""
    rng = np.random.default_rng(1)
    shape = (batch, run.spec.observation_dim)
    return rng.uniform(-1, 1, shape).astype(np.float32)


def goals(run: Run, batch: int) -> np.ndarray | None:
    """Draw goals [B, G] in the middle of the data, if plans have any."""
    size = run.config.goal_dim
    rng = np.random.default_rng(2)
    return rng.uniform(-1, 1, (batch, size)).astype(np.float32) if size else None


def torch_planner(run: Run) -> pytorch_planning.Planner:
    """Build Diffuser in PyTorch with the parameters and options of a run."""
    config, acting, spec = run.config, run.acting, run.spec
    width = spec.action_dim + spec.observation_dim
    size = {"dim": config.dim, "dim_mults": config.dim_mults}
    network = pytorch.TemporalUNet(width, **size)
    pytorch.copy_weights(run.states["denoiser"].slow["ema"], network)
    value = None
    if config.return_model:
        value = pytorch.TemporalValue(width, config.horizon, **size)
        pytorch.copy_weights(run.states["returns"].slow["ema"], value)
    levels = SCHEDULES[config.schedule](config.diffusion_steps)
    if acting.sampling_steps is not None:
        levels = subgrid(levels, acting.sampling_steps)
    return pytorch_planning.Planner(
        network,
        SAMPLERS[acting.sampler](levels),
        run.statistics,
        spec,
        prediction=config.prediction,
        goal_dim=config.goal_dim,
        temperature=acting.temperature,
        value=value,
        guide_scale=acting.guide_scale,
        guide_steps=acting.guide_steps if acting.guide_scale else 0,
    )


# A call: the number of the call, which is its seed -> arrays.
Call = Callable[[int], dict[str, np.ndarray]]


def batch_of_plans(run: Run, batch: int, devices: list[Device]) -> Call:
    """Plan for a batch of problems, split over the devices."""
    used = devices[: math.gcd(len(devices), batch)]
    planner = run.algorithm.plan
    assert planner is not None
    program = jax.jit(planner)
    states = share(dict(run.states), used)
    seen, goal = observations(run, batch)[:, None], goals(run, batch)

    def call(seed: int) -> dict[str, np.ndarray]:
        keys = jax.random.split(jax.random.key(seed), batch)
        problem = Problem(history=seen, goal=goal)
        plans = program(states, *split_batch((keys, problem), used))
        return _found(plans.trajectories[:, 0], plans.expected_return)

    return call


def plans_of_one(run: Run, candidates: int) -> Call:
    """Plan for one problem by `jaxdiff.plan`."""
    start, goal = observations(run, 1)[0], goals(run, 1)

    def call(seed: int) -> dict[str, np.ndarray]:
        ranked = jaxdiff.plan(
            run, start, None if goal is None else goal[0], candidates=candidates,
            seed=seed,
        )  # fmt: skip
        rows = np.concatenate([ranked.actions, ranked.observations], axis=-1)
        return _found(rows, ranked.expected_return)

    return call


def torch_plans(run: Run, batch: int, candidates: int = 1) -> Call:
    """Plan in PyTorch, with a measure of every plan as jaxdiff's planner gives it."""
    planner = torch_planner(run)
    seen, goal = observations(run, batch), goals(run, batch)
    least = float(SCHEDULES[run.config.schedule](run.config.diffusion_steps).time[1])

    def call(seed: int) -> dict[str, np.ndarray]:
        torch.manual_seed(seed)
        x = planner.plan(
            torch.from_numpy(seen.repeat(candidates, 0)),
            None if goal is None else torch.from_numpy(goal.repeat(candidates, 0)),
            run.config.horizon,
        )
        expected = planner.expected_return(x, least) if planner.value else None
        plans = planner.finished(x)
        planner.strain(plans)
        return _found(plans, expected)

    return call


def _found(plans: Any, expected_return: Any) -> dict[str, np.ndarray]:
    found = {"plans": np.asarray(plans)}
    if expected_return is not None:
        found["returns"] = np.asarray(expected_return).reshape(-1)
    return found


def beside(
    ours: Callable[[Run], Call], theirs: Callable[[Run], Call], run: Run
) -> dict[str, Advance]:
    """Build both methods, after they agreed without noise.

    Raises:
      SystemExit: they do not make the same.
    """
    still = anew(run, temperature=0.0) if hasattr(run.acting, "temperature") else run
    difference = check_same(ours(still)(0), theirs(still)(0))
    print(f"the two agree to {difference:.1e}", flush=True)
    return {"jaxdiff": advance_of(ours(run)), "torch": advance_of(theirs(run))}


def check_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """Return the largest difference, relative to the size of the entries or 1.

    Raises:
      SystemExit: they are not the same.
    """
    worst = 0.0
    for name, mine in ours.items():
        other = np.asarray(theirs[name])
        if mine.shape != other.shape:
            raise SystemExit(f"{name} have shapes {mine.shape} and {other.shape}")
        size = max(1.0, float(np.abs(mine).max()))
        error = float(np.abs(mine - other).max()) / size
        if not error < TOLERANCE:
            raise SystemExit(f"the {name} differ by {error:.1e}: nothing to compare")
        worst = max(worst, error)
    return worst


def advance_of(call: Call) -> Advance:
    """Make calls one after another; a sum over all that the last one gave."""
    seed = 0

    def advance(count: int) -> float:
        nonlocal seed
        found: dict[str, np.ndarray] = {}
        for _ in range(count):
            seed += 1
            found = call(seed)
        return float(sum(each.sum() for each in found.values()))

    return advance


def plans(
    spec: Spec,
    config: DiffuserConfig,
    acting: DiffuserActing = PLAIN,
    *,
    batch: int = 1,
    candidates: int = 1,
) -> Setting:
    """Set up plans: of one problem by `jaxdiff.plan`, of more by the planner."""

    def build(devices: list[Device]) -> dict[str, Advance]:
        run = run_of("diffuser", spec, config, acting)

        def ours(run: Run) -> Call:
            if batch == 1:
                return plans_of_one(run, candidates)
            return batch_of_plans(run, batch, devices)

        return beside(ours, lambda run: torch_plans(run, batch, candidates), run)

    return Setting(build, "plans_per_second", batch * candidates)


def actions(
    name: str, spec: Spec, config: Any, acting: Options, theirs: Callable[[Run], Any]
) -> Setting:
    """Set up decisions of a policy in one environment.

    Args:
      name: of the algorithm.
      spec: of made-up data.
      config: options of training.
      acting: options of acting.
      theirs: `run -> (observation [1, O], goal [1, G] or None) -> action [1, A]`.
    """

    def build(devices: list[Device]) -> dict[str, Advance]:
        run = run_of(name, spec, config, acting)
        seen = observations(run, 1)
        goal = goals(run, 1) if hasattr(config, "goal_dim") else None

        def by_policy(run: Run) -> Call:
            policy = run.policy(1, devices=devices)

            def call(seed: int) -> dict[str, np.ndarray]:
                if run.algorithm.plan is not None:
                    policy.reset(seeds=[seed])  # so that every call plans
                return {"actions": policy(seen, goal)}

            return call

        def by_torch(run: Run) -> Call:
            act = theirs(run)
            return lambda seed: {"actions": np.asarray(act(seen, goal))}

        return beside(by_policy, by_torch, run)

    return Setting(build, "decisions_per_second")


def torch_sieve(run: Run) -> Callable[..., np.ndarray]:
    """Build Diffusion BC in PyTorch."""
    config, spec, acting = run.config, run.spec, run.acting
    network = pytorch_planning.Sieve(
        spec.observation_dim, spec.action_dim, config.hidden, config.embed
    )
    pytorch.copy_weights(run.states["policy"].slow["ema"], network)
    levels = SCHEDULES[config.schedule](config.diffusion_steps, time="fraction")
    act = pytorch_planning.diffusion_policy(
        network,
        ddpm(levels, variance=acting.variance),
        run.statistics.inputs,
        run.statistics.actions,
        temperature=acting.temperature,
    )
    return lambda seen, goal: act(seen)


def torch_actor(run: Run) -> Callable[..., np.ndarray]:
    """Build a policy of one network in PyTorch."""
    spec = run.spec
    actor = Nets(1, spec.observation_dim, spec.action_dim, run.config.widths)
    pytorch.copy_weights(run.states["policy"].params, actor)
    statistics = run.statistics
    act = pytorch_planning.actor_policy(actor, statistics.inputs, statistics.actions)
    return lambda seen, goal: act(seen)


def torch_demo(run: Run) -> Callable[..., np.ndarray]:
    """Build the demo's planner in PyTorch: earliest arrival, and tracking its plan."""
    planner, config, acting = torch_planner(run), run.config, run.acting
    horizons = sorted({*config.horizons, config.horizon})
    size = run.spec.action_dim
    position, velocity = (
        list(entries)
        for entries in (run.spec.layout.position, run.spec.layout.velocity)
    )

    def act(seen: np.ndarray, goal: np.ndarray) -> np.ndarray:
        state = torch.from_numpy(seen)
        plan = pytorch_planning.earliest(
            planner, state, torch.from_numpy(goal), horizons=horizons,
            candidates=acting.candidates, slack=acting.slack,
        )  # fmt: skip
        error = plan[1, size:] - state[0]
        push = acting.kp * error[position] + acting.kd * error[velocity]
        return push.clamp(-1.0, 1.0).numpy()[None]

    return act


_SIEVE = DiffusionBCConfig(diffusion_steps=50)
SETTINGS: dict[str, Setting] = {
    "plan B64 H32 T20": plans(HOPPER, LOCOMOTION, batch=64),
    "guided plan B64 H32 T20": plans(HOPPER, GUIDED, GUIDANCE, batch=64),
    "plan B1 H32 T20": plans(HOPPER, LOCOMOTION),
    "guided plan B1 H32 T20": plans(HOPPER, GUIDED, GUIDANCE),
    "maze plan B8 H128 T64": plans(MAZE, LARGE_MAZE, batch=8),
    "update B32 H32": updates.SETTINGS["diffuser-hopper-1-2-4-8-H32"],
    "update B32 H128": updates.SETTINGS["diffuser-maze-1-4-8-H128"],
    "Diffusion BC, sieve, B1 T50": actions(
        "diffusion-bc", CHEETAH, _SIEVE, DiffusionBCActing(), torch_sieve
    ),
    "SRPO actor B1": actions("srpo", CHEETAH, SRPOConfig(), NoOptions(), torch_actor),
    "IQL actor B1": actions("iql", CHEETAH, IQLConfig(), NoOptions(), torch_actor),
    "demo's planner B1": actions("diffuser", MAZE, DEMO, DEMO_ACTING, torch_demo),
}


def _growth() -> dict[str, Setting]:
    found = {}
    for batch in (1, 4, 16, 64, 256, 1_024, 4_096):
        found[f"batch {batch}"] = plans(HOPPER, LOCOMOTION, batch=batch)
    for candidates in (1, 4, 16, 64, 256, 1_024):
        setting = plans(HOPPER, LOCOMOTION, candidates=candidates)
        found[f"candidates {candidates}"] = setting
    for horizon in (16, 32, 64, 128, 256):
        config = dataclasses.replace(LOCOMOTION, horizon=horizon)
        found[f"horizon {horizon}"] = plans(HOPPER, config, batch=16)
    for dim in (16, 32, 64, 128):
        config = dataclasses.replace(LOCOMOTION, dim=dim)
        found[f"width {dim}"] = plans(HOPPER, config, batch=16)
    return found


GROWTH = _growth()
_AXES = {
    "batch": "problems in a batch",
    "candidates": "candidates of one problem",
    "horizon": "horizon, batch 16",
    "width": "width of the network, batch 16",
}


def plot_growth(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draw plans a second against each size, both methods, with 95% intervals."""
    figure, (panels,) = plain_grid(1, len(_AXES), (11.0, 2.9))
    rows = [row for row in rows if row["metric"] == "plans_per_second"]
    for axes, (size, label) in zip(panels, _AXES.items(), strict=True):
        for method, colour in zip(("jaxdiff", "torch"), PALETTE, strict=False):
            mine = [
                (int(row["setting"].split()[1]), row)
                for row in rows
                if row["setting"].split()[0] == size and row["method"] == method
            ]
            mine.sort(key=lambda pair: pair[0])
            x = [place for place, _ in mine]
            y = [row["value"] for _, row in mine]
            below = [row["value"] - row["low"] for _, row in mine]
            above = [row["high"] - row["value"] for _, row in mine]
            axes.errorbar(
                x, y, yerr=[below, above], marker="o", markersize=4, color=colour,
                label=method,
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.grid(color=RULE)
        axes.set_xlabel(label, fontsize=TEXT, color=INK)
    panels[0].set_ylabel("plans a second", fontsize=TEXT, color=INK)
    panels[0].legend(fontsize=SMALL, frameon=False)
    return figure


def main(arguments: Sequence[str], *, directory: Path = RESULTS) -> None:
    """Measure the settings, or with `--growth` plans as work grows."""
    words = list(arguments)
    if "--growth" not in words:
        turns.main(words, experiment="planning", settings=SETTINGS, directory=directory)
        return
    words.remove("--growth")
    experiment = "planning-growth"
    turns.main(
        words, experiment=experiment, settings=GROWTH, words="planning --growth",
        directory=directory,
    )  # fmt: skip
    path = directory / "figures" / f"{experiment}.png"
    figures.save(plot_growth(read_rows(experiment, directory)), path)
    print(f"drew {path.name}")


if __name__ == "__main__":
    with as_command():
        main(sys.argv[1:])
