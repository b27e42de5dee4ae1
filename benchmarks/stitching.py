"""Stitching: plans that the data hold only in pieces (Janner et al. 2022, section 4).

Two families of paths share their middle: from A to C', and from A' to C. A small model
is trained on these two alone and plans from A to C and from A' to C', although no path
of the data does. A plan succeeds if each of its points lies within the tube of the data
and it begins and ends at the right places. A straight line from start to goal
leaves the tube, and so does an average of the two families.

A model stitches if it decides each row of a plan by its neighbours and not by the whole
plan. So the U-Net here has a single level, whose convolutions see less than half of the
shared middle, and normalises each row alone. Statistics over the whole plan, as the
paper's GroupNorm takes them, tell all rows to which family a plan belongs.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.rows import measured
from jaxdiff import figures
from jaxdiff.algorithms.base import TrainConfig
from jaxdiff.algorithms.planning.diffuser import (
    DiffuserActing,
    DiffuserConfig,
    diffuser,
    measure,
)
from jaxdiff.algorithms.planning.planner import Problem
from jaxdiff.data.episodes import Episodes
from jaxdiff.data.spec import Spec
from jaxdiff.train import train_learners

ENDS = {"A": (-1.5, 0.8), "A'": (-1.5, -0.8), "C": (1.5, -0.8), "C'": (1.5, 0.8)}
MIDDLE = ((-1.0, 0.0), (1.0, 0.0))
SEEN = (("A", "C'"), ("A'", "C"))
NEW = (("A", "C"), ("A'", "C'"))
HORIZON, TUBE, SPREAD = 128, 0.2, 0.04

UPDATES = 8_000
SPEC = Spec((2,), action_dim=2)
CONFIG = DiffuserConfig(
    horizon=HORIZON,
    goal_dim=2,
    learning_rate_decay=1.0,
    dim_mults=(1,),
    norm_by_row=True,
    action_weight=1.0,
)
ACTING = DiffuserActing(sampling_steps=32)


def stitch(
    seed: int, path: Path, *, updates: int = UPDATES, count: int = 100
) -> list[dict[str, Any]]:
    """Train, plan `count` times for each pair of ends, draw, and return the rows."""
    started = time.monotonic()
    episodes = make_paths(500, np.random.default_rng(seed))
    rows = []
    for config, suffix in (
        (CONFIG, ""),
        (dataclasses.replace(CONFIG, norm_by_row=False), ", GroupNorm"),
    ):
        plans = _plans(config, episodes, seed=seed, updates=updates, count=count)
        for method, pairs in (("seen in the data", SEEN), ("stitched", NEW)):
            found = [succeeds(plans[pair], *pair) for pair in pairs]
            rows.append(_row(method + suffix, found))
        if not suffix:
            _draw(episodes, plans, path)
    share = np.linspace(0, 1, HORIZON)[:, None]
    lines = [
        (1 - share) * ENDS[start] + share * np.array(ENDS[goal]) for start, goal in NEW
    ]
    straight = [
        succeeds(line[None], *pair) for line, pair in zip(lines, NEW, strict=True)
    ]
    rows.append(_row("straight line", straight))
    seconds = round(time.monotonic() - started, 1)
    return [{**row, "seconds": seconds} for row in rows]


def _plans(
    config: DiffuserConfig, episodes: Episodes, *, seed: int, updates: int, count: int
) -> dict[tuple[str, str], np.ndarray]:
    """Train and plan: positions `[count, H, 2]` by pair of ends."""
    statistics = measure(config, episodes, SPEC)
    algorithm = diffuser(config, ACTING, statistics, SPEC)
    training = TrainConfig(num_steps=updates, batch_size=32)
    states = train_learners(
        algorithm, episodes, configs={"denoiser": training}, seed=seed
    )
    plan = jax.jit(algorithm.plan, static_argnames=("candidates",))
    plans = {}
    for start, goal in (*SEEN, *NEW):
        problem = Problem(
            history=np.float32([[ENDS[start]]]), goal=np.float32([ENDS[goal]])
        )
        keys = jax.random.key(seed)[None]
        out = plan(states, keys, problem, candidates=count)
        plans[start, goal] = np.asarray(out.trajectories[0, :, :, 2:])
    return plans


def make_paths(count: int, rng: np.random.Generator) -> Episodes:
    """Make `count` paths, half of each family, of `HORIZON` moves in uneven time."""
    rows = []
    for i in range(count):
        start, goal = SEEN[i % 2]
        corners = np.array([ENDS[start], *MIDDLE, ENDS[goal]])
        along = np.concatenate([[0], np.cumsum(_lengths(corners))])
        pace = np.exp(0.3 * np.cumsum(rng.normal(size=HORIZON)) / np.sqrt(HORIZON))
        when = np.concatenate([[0], np.cumsum(pace)])
        when = when / when[-1] * along[-1]
        path = np.stack([np.interp(when, along, axis) for axis in corners.T], axis=-1)
        rows.append(path + SPREAD / 2 * rng.normal(size=2))
    paths = np.stack(rows).astype(np.float32)
    moves = np.diff(paths, axis=1, append=paths[:, -1:])
    total = count * (HORIZON + 1)
    return Episodes(
        observations=paths.reshape(total, 2),
        actions=moves.reshape(total, 2),
        rewards=np.zeros(total, np.float32),
        starts=np.arange(count) * (HORIZON + 1),
        lengths=np.full(count, HORIZON),
        terminated=np.zeros(count, bool),
        goals=None,
    )


def succeeds(paths: np.ndarray, start: str, goal: str) -> np.ndarray:
    """Tell which paths `[N, H, 2]` keep to the tube and join start and goal."""
    inside = (_distance(paths) < TUBE).all(-1)
    ends = np.stack([paths[:, 0], paths[:, -1]], axis=1)
    wanted = np.array([ENDS[start], ENDS[goal]])
    joined = (np.linalg.norm(ends - wanted, axis=-1) < TUBE).all(-1)
    # A jump from leg to leg would be in the tube at each of its rows.
    whole = (np.linalg.norm(np.diff(paths, axis=1), axis=-1) < TUBE).all(-1)
    return inside & joined & whole


def _distance(points: np.ndarray) -> np.ndarray:
    """Distance `[...]` of points `[..., 2]` from the nearest leg of the data."""
    legs = [(ENDS["A"], MIDDLE[0]), (ENDS["A'"], MIDDLE[0]), MIDDLE]
    legs += [(MIDDLE[1], ENDS["C"]), (MIDDLE[1], ENDS["C'"])]
    found = []
    for one, other in np.array(legs):
        leg = other - one
        share = np.clip((points - one) @ leg / (leg @ leg), 0, 1)[..., None]
        found.append(np.linalg.norm(points - one - share * leg, axis=-1))
    return np.min(found, axis=0)


def _lengths(corners: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.diff(corners, axis=0), axis=-1)


def _row(method: str, successes: list[np.ndarray]) -> dict[str, Any]:
    found = measured(np.concatenate(successes))
    return {"method": method, "metric": "success", **found, "seeds": 1}


def _draw(episodes: Episodes, plans: dict[Any, np.ndarray], path: Path) -> None:
    """Draw the data, then the plans of each pair of ends."""
    figure = Figure(figsize=(9.0, 1.7), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    data = episodes.observations.reshape(-1, HORIZON + 1, 2)
    panels = {"the data": data[:40]} | {
        f"{'new' if pair in NEW else 'seen'}: {pair[0]} to {pair[1]}": paths[:40]
        for pair, paths in plans.items()
    }
    for i, (title, paths) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), i + 1)
        _draw_paths(axes, paths)
        axes.set_title(title, fontsize=9.0, color="#24292f")
    figures.save(figure, path)


def _draw_paths(axes: Axes, paths: np.ndarray) -> None:
    time_ = np.tile(np.linspace(0, 1, paths.shape[1]), len(paths))
    viridis = matplotlib.colormaps["viridis"]
    axes.scatter(*paths.reshape(-1, 2).T, c=time_, s=1.2, cmap=viridis, vmax=1.08)
    for name, (x, y) in ENDS.items():
        axes.annotate(
            name, (x, y), (0, -9 if y < 0 else 5), textcoords="offset points",
            ha="center", fontsize=8.0, color="#24292f",
        )  # fmt: skip
    axes.set(xlim=(-1.8, 1.8), ylim=(-1.2, 1.2), aspect="equal")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
