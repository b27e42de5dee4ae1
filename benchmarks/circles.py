"""Two circles: constraints seen one at a time, asked for together (Ajay et al. 2023).

    python -m benchmarks.circles

Paths of 50 points begin between two circles, of radius 0.7 and 1, go half way round
their centre, and drift inwards, outwards, or so little that they keep between the
circles. Each path has one label: it keeps inside the large circle, or outside the small
one. A path that keeps to both has either label, by chance
(`jaxdiff.diffusion.guide` says why). A small Decision Diffuser trains with the label as
its condition (`condition="goal"`, one-hot) and then plans:

- `single`: inside the large circle, or outside the small one;
- `and`: both at once, which keeps a path between the two;
- `not`: the negation of either: a path that does leave the large circle, or does enter
  the small one.

Success is to obey at each of the 50 points, with no tolerance; under negation, to
disobey at one of them. `nothing asked` is the share of unconditional plans from the
same points that would have passed, and `the data` the share of the paths. Rows go to
benchmarks/results/circles.json, a picture to benchmarks/results/figures/circles.png.
"""

import dataclasses
import time
from pathlib import Path

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from benchmarks.command import command_of, run_command
from benchmarks.rows import RESULTS, measured, write_rows
from jaxdiff import figures
from jaxdiff.algorithms.base import TrainConfig
from jaxdiff.algorithms.planning.conditions import Conditions
from jaxdiff.algorithms.planning.decision_diffuser import (
    DecisionDiffuserActing,
    DecisionDiffuserConfig,
    decision_diffuser,
    measure,
)
from jaxdiff.algorithms.planning.planner import Problem
from jaxdiff.data.episodes import Episodes
from jaxdiff.data.spec import Spec
from jaxdiff.errors import UserError
from jaxdiff.train import train_learners

LARGE, SMALL = 1.0, 0.7
# Distances from the centre: where paths begin, and where they may drift to.
BETWEEN, INNER, OUTER = (0.73, 0.97), (0.2, 0.6), (1.1, 1.5)
LENGTH = 50
INSIDE, OUTSIDE = 0, 1
# Label -> 1 to ask for it, -1 to rule it out.
QUESTIONS: dict[str, dict[str, dict[int, float]]] = {
    "single": {"inside": {INSIDE: 1.0}, "outside": {OUTSIDE: 1.0}},
    "and": {"inside and outside": {INSIDE: 1.0, OUTSIDE: 1.0}},
    "not": {"not inside": {INSIDE: -1.0}, "not outside": {OUTSIDE: -1.0}},
}


SPEC = Spec((2,), action_dim=2, goal_dim=2)
CONFIG = DecisionDiffuserConfig(
    condition="goal",
    horizon=LENGTH,
    diffusion_steps=100,
    # All of a path is one token: dense layers, each of them steered by the label.
    network="dit",
    dit_width=256,
    dit_depth=3,
    patch=LENGTH,
    dim=64,
    normalizer="limits",
    padding=False,
    learning_rate_decay=1.0,
    inverse_depth=0,
)
ACTING = DecisionDiffuserActing(sampling_steps=50)


@dataclasses.dataclass(frozen=True)
class Options:
    """Train on two circles and ask for one, both and neither."""

    updates: int = 12_000
    """Updates of training."""
    paths: int = 20_000
    """Paths of the data."""
    count: int = 500
    """Plans for each question."""
    weights: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)
    """Weights of every condition, one after another; negation changes their sign."""
    seed: int = 0
    """Seed of data, training and plans."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Train, plan, write the rows and draw.

    Raises:
      UserError: there is no weight, or one that asks for nothing.
    """
    if not options.weights or min(options.weights) <= 0:
        raise UserError(
            f"`weights` is {options.weights}; give one or more, all above 0"
        )
    started = time.monotonic()
    rng = np.random.default_rng(options.seed)
    episodes = make_paths(options.paths, rng)
    plans, unasked = make_plans(options, episodes)
    seconds = round(time.monotonic() - started, 1)
    data = episodes.observations.reshape(-1, LENGTH + 1, 2)[:, :LENGTH]
    rows = []
    for setting, questions in QUESTIONS.items():
        asked = {method: found[setting] for method, found in plans.items()}
        asked["nothing asked"] = dict.fromkeys(questions, unasked)
        asked["the data"] = dict.fromkeys(questions, data)
        for method, paths in asked.items():
            found = [obeys(paths[name], name) for name in questions]
            rows.append(
                {
                    "setting": setting,
                    "method": method,
                    "metric": "success",
                    **measured(np.concatenate(found)),
                    "seeds": 1,
                    "seconds": seconds,
                }
            )
            shares = ", ".join(
                f"{name} {one.mean():.3f}"
                for name, one in zip(questions, found, strict=True)
            )
            print(f"{setting}, {method}: {shares}", flush=True)
    command = command_of("circles", options)
    write_rows("circles", rows, command=command, directory=directory)
    # The picture is of the condition as it is, if that is among the weights.
    drawn = plans.get("decision-diffuser, w=1", next(iter(plans.values())))
    assert episodes.goals is not None
    told = episodes.goals[:: LENGTH + 1].argmax(-1)
    shown = {
        f"told {name}": data[told == label]
        for name, (label,) in QUESTIONS["single"].items()
    }
    for questions in drawn.values():
        shown |= questions
    figures.save(draw(shown), directory / "figures" / "circles.png")


def make_plans(
    options: Options, episodes: Episodes
) -> tuple[dict[str, dict[str, dict[str, np.ndarray]]], np.ndarray]:
    """Train, and plan by each weight for each question, and for none.

    Returns:
      Method -> setting -> question -> paths `[count, 50, 2]`, and those of no question.
    """
    statistics = measure(CONFIG, episodes, SPEC)
    algorithm = decision_diffuser(CONFIG, ACTING, statistics, SPEC)
    training = TrainConfig(num_steps=options.updates, batch_size=64, log_every=200)
    states = train_learners(
        algorithm,
        episodes,
        configs={
            "denoiser": training,
            # Nobody acts here.
            "inverse": dataclasses.replace(training, num_steps=1),
        },
        seed=options.seed,
    )
    plan = jax.jit(algorithm.plan)
    rng = np.random.default_rng(options.seed + 1)
    starts = _on_circles(
        rng.uniform(*BETWEEN, options.count), _start_angles(rng, options.count)
    )

    def planned(asked: dict[int, float], weight: float) -> np.ndarray:
        guidance = Conditions(
            values=np.eye(2, dtype=np.float32)[list(asked)],
            weights=np.float32([weight * sign for sign in asked.values()]),
        )
        keys = jax.random.split(jax.random.key(options.seed), len(starts))
        problem = Problem(history=np.float32(starts)[:, None], guidance=guidance)
        out = plan(states, keys, problem)
        return np.asarray(out.trajectories[:, 0, :, 2:])

    found = {
        f"decision-diffuser, w={weight:g}": {
            setting: {name: planned(asked, weight) for name, asked in questions.items()}
            for setting, questions in QUESTIONS.items()
        }
        for weight in options.weights
    }
    return found, planned({INSIDE: 1.0}, 0.0)


def make_paths(count: int, rng: np.random.Generator) -> Episodes:
    """Make smooth paths of 51 points that drift in, keep between, or drift out.

    A path that keeps between the circles has one of the labels, by chance.
    """
    time_ = np.linspace(0, 1, LENGTH + 1)
    kind = rng.integers(0, 3, count)  # inwards, between, outwards
    low, high = np.array([INNER, BETWEEN, OUTER])[kind].T
    first, last = rng.uniform(*BETWEEN, count), rng.uniform(low, high)
    speed, turn = rng.uniform(0.6, 1.0, count), rng.uniform(0.4, 0.6, count)
    drift = (1 - np.cos(np.pi * speed[:, None] * time_)) / 2
    radius = first[:, None] + (last - first)[:, None] * drift
    angle = _start_angles(rng, count)[:, None] + 2 * np.pi * turn[:, None] * time_
    positions = _on_circles(radius, angle).astype(np.float32)
    moves = np.diff(positions, axis=1, append=positions[:, -1:])
    either = obeys(positions[:, :LENGTH], "inside and outside")
    made_for = np.where(kind == 2, OUTSIDE, INSIDE)
    label = np.where(either, rng.integers(0, 2, count), made_for)
    labels = np.eye(2, dtype=np.float32)[label]
    rows = count * (LENGTH + 1)
    return Episodes(
        observations=positions.reshape(rows, 2),
        actions=moves.reshape(rows, 2),
        rewards=np.zeros(rows, np.float32),
        starts=np.arange(count) * (LENGTH + 1),
        lengths=np.full(count, LENGTH),
        terminated=np.zeros(count, bool),
        goals=np.repeat(labels, LENGTH + 1, axis=0),
    )


def obeys(paths: np.ndarray, question: str) -> np.ndarray:
    """Tell which paths `[N, 50, 2]` obey a question of `QUESTIONS`."""
    radius = np.linalg.norm(paths, axis=-1)
    inside, outside = (radius <= LARGE).all(-1), (radius >= SMALL).all(-1)
    return {
        "inside": inside,
        "outside": outside,
        "inside and outside": inside & outside,
        "not inside": ~inside,
        "not outside": ~outside,
    }[question]


def draw(panels: dict[str, np.ndarray]) -> Figure:
    """Draw some paths of each panel, between the two circles."""
    figure = Figure(figsize=(9.0, 1.75), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for i, (title, paths) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), i + 1)
        for path in paths[:24]:
            axes.plot(*path.T, linewidth=0.7, alpha=0.6, color="#0072b2")
        for radius in (LARGE, SMALL):
            axes.add_patch(
                Circle((0, 0), radius, fill=False, edgecolor="#d55e00", linewidth=1.1)
            )
        axes.set(xlim=(-1.8, 1.8), ylim=(-1.8, 1.8), aspect="equal")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_title(title, fontsize=8.0, color="#24292f")
    return figure


def _start_angles(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw the angles `[N]` at which paths begin, to the right of the centre."""
    return rng.uniform(-0.3, 0.3, count)


def _on_circles(radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Give the points `[..., 2]` at distances and angles `[...]` about the centre."""
    return radius[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


if __name__ == "__main__":
    run_command(main, Options)
