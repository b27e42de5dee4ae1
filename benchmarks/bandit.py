"""SRPO in the plane: one state, and two numbers for an action.

    python -m benchmarks.bandit

Six behaviours in the plane (`benchmarks.shapes`) are the six states of one dataset, so
that one diffusion model, trained by the library's own learner, knows them all. For each
of 7 x 7 targets the critic is known, Q(a) = -|a - target|^2, and a policy is one free
action that starts at its target. SRPO's own learner moves all of them at once, for all
temperatures beta side by side; a program for each omega, with and without baseline.

Rows of benchmarks/results/bandit.json, means over policies: `q` is the value that they
reach, `distance` their distance from the nearest action of the data, `inside` the share
that is no further from it than 999 of 1000 other actions of the data are.
`gradient_variance` is the variance of an entry of the gradient that pulls towards the
data, over noise and its level, where policies of omega = sigma^2 rest at beta = 0.1.
"regression" is the mean of the data weighted by exp(beta Q). A policy of one peak that
is fitted to the weighted data, such as that of IQL, ends there.

It takes about a minute on two cores. Pictures: bandit.png, bandit-noise.png.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import offline_figures
from benchmarks.command import command_of, run_command
from benchmarks.rows import RESULTS, measured, write_rows
from benchmarks.shapes import SHAPES
from jaxdiff import figures
from jaxdiff.algorithms.base import Algorithm, Averaging, TrainConfig, TrainState
from jaxdiff.algorithms.offline.behaviour import behaviour_learner
from jaxdiff.algorithms.offline.srpo import (
    FIRST_TIME,
    LAST_TIME,
    regularised_learner,
)
from jaxdiff.algorithms.planning.support import fit_support, ood_distance
from jaxdiff.data.transitions import Transitions
from jaxdiff.diffusion import NoiseLevels, Omega, score_gradient, uniform_time, vp_level
from jaxdiff.networks import ScoreMLP
from jaxdiff.networks.layers import fourier_features
from jaxdiff.train import train_learners

# Of the shapes: most noise levels then hide some of their gaps and not all.
SCALE = 4.0
BETAS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
MIDDLE = BETAS.index(0.1)
OMEGAS: tuple[Omega, ...] = ("variance", "one", "ratio", "variance-squared")
# Rows of the picture: omega, None for the regression, and beta.
DRAWN = (
    ("variance", 0.1),
    ("ratio", 0.01),
    ("ratio", 0.1),
    ("ratio", 1.0),
    (None, 0.1),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Extract policies from a diffusion model of the plane."""

    points: int = 4_096
    """Actions of each shape."""
    updates: int = 3_000
    """Updates of the diffusion model."""
    steps: int = 300
    """Updates of the policies."""
    seed: int = 0
    """Seed of everything random."""


class PlaneScore:
    """A score network that also sees its action as waves, for edges to be sharp.

    Attributes:
      inner: a small `ScoreMLP`.
    """

    waves = (1 / 16, 1 / 8, 1 / 4, 1 / 2)  # periods of 16 to 2, in units of actions

    def __init__(self) -> None:
        slow = (0.125, 0.25, 0.5, 1.0, 2.0)
        self.inner: Any = ScoreMLP(
            2, width=64, blocks=1, time_width=64, dropout=0.0, frequencies=slow
        )

    def _beside(self, x: jax.Array, inputs: jax.Array) -> jax.Array:
        seen = fourier_features(x, self.waves).reshape(len(x), -1)
        return jnp.concatenate([inputs[:, : len(SHAPES)], seen], axis=-1)

    def init(self, key: Any, x: Any, time: Any, inputs: Any) -> Any:
        """Make parameters."""
        return self.inner.init(key, x, time, self._beside(x, inputs))

    def apply(self, params: Any, x: Any, time: Any, inputs: Any, keys: Any = None):
        """Predict the noise `[B, 2]` in x `[B, 2]`."""
        return self.inner.apply(params, x, time, self._beside(x, inputs), keys)


class Free:
    """A policy that is one action for each target, the target itself at first."""

    def __init__(self, targets: np.ndarray) -> None:
        self.targets = jnp.asarray(targets, jnp.float32)

    def init(self, key: Any, inputs: Any) -> jax.Array:
        """Start at the targets `[R, 2]`."""
        return self.targets

    def apply(self, params: jax.Array, inputs: jax.Array) -> tuple[jax.Array, None]:
        """Look up the action of each row, whose number is its last input."""
        return params[inputs[:, -1].astype(int)], None


class Nearness:
    """The known critic, twice: Q = -|a - target|^2; it has nothing to train."""

    def apply(self, targets: jax.Array, inputs: jax.Array, actions: jax.Array):
        """Value actions `[B, 2]` by the targets `[R, 2]` of their rows: `[2, B]`."""
        square = (actions - targets[inputs[:, -1].astype(int)]) ** 2
        return -jnp.stack([square.sum(-1)] * 2)


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Train, extract, measure, draw and write the rows."""
    started = time.monotonic()
    points = make_points(options.points, options.seed)
    behaviour = train_behaviour(points, options.updates, options.seed)
    targets = make_targets()
    actions = {
        (kind, baseline): extract(
            behaviour, targets, kind=kind, baseline=baseline, steps=options.steps
        )
        for kind in OMEGAS
        for baseline in (True, False)
    }
    regressed = np.stack([regression(points, targets, beta) for beta in BETAS])
    rows = _rows(points, targets, actions, regressed, behaviour)
    seconds = round(time.monotonic() - started, 1)
    write_rows(
        "bandit",
        [{**row, "seeds": 1, "seconds": seconds} for row in rows],
        command=command_of("bandit", options),
        directory=directory,
    )
    panels = {
        f"{kind or 'regression'}, {beta:g}": (
            actions[kind, True] if kind else regressed
        )[BETAS.index(beta)]
        for kind, beta in DRAWN
    }
    rest = actions["variance", True][MIDDLE]
    drawn = {
        "bandit": offline_figures.plot_extraction(points, targets, panels),
        "bandit-noise": offline_figures.plot_gradient_noise(
            *noise_over_time(behaviour, rest)
        ),
    }
    for name, figure in drawn.items():
        figures.save(figure, directory / "figures" / f"{name}.png")
    for row in rows:
        print(f"{row['setting']}, {row['method']}: {row['metric']} {row['value']:.3g}")
    print(f"it took {seconds:.0f} seconds")


def make_points(count: int, seed: int) -> dict[str, np.ndarray]:
    """Draw the actions of each shape, `[count, 2]`."""
    rng = np.random.default_rng(seed)
    return {
        name: (SCALE * draw(count, rng)).astype(np.float32)
        for name, draw in SHAPES.items()
    }


def make_targets(side: int = 7) -> np.ndarray:
    """Lay a grid over the plane: `[side^2, 2]`, to SCALE on either side."""
    axis = np.linspace(-SCALE, SCALE, side)
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


def train_behaviour(
    points: dict[str, np.ndarray], updates: int, seed: int
) -> TrainState:
    """Train one diffusion model of all shapes, by SRPO's own learner."""
    counts = [len(each) for each in points.values()]
    inputs = np.repeat(np.eye(len(points), dtype=np.float32), counts, axis=0)
    total = sum(counts)
    data = Transitions(
        inputs=inputs,
        actions=np.concatenate(list(points.values())),
        rewards=np.zeros(total, np.float32),
        next_inputs=inputs,
        terminals=np.ones(total, bool),
    )
    learner = behaviour_learner(
        PlaneScore(),
        lambda data, frozen, key: jax.tree.map(jnp.asarray, data),
        optax.adam(6e-3),
        averaging=Averaging(0.99),
        learning_rate_decay=1.0,
    )
    algorithm = Algorithm({"behaviour": learner}, lambda *_: None, lambda batch: None)  # pyright: ignore[reportArgumentType]
    training = TrainConfig(num_steps=updates, batch_size=1_024, log_every=250)
    return train_learners(algorithm, data, configs={"behaviour": training}, seed=seed)[
        "behaviour"
    ]


def extract(
    behaviour: TrainState,
    targets: np.ndarray,
    *,
    kind: Omega = "variance",
    baseline: bool = True,
    steps: int = 300,
    betas: tuple[float, ...] = BETAS,
) -> np.ndarray:
    """Move a policy for every temperature, shape and target: `[betas, S, T, 2]`."""
    batch, everywhere = _problems(targets)
    learner = regularised_learner(
        Free(everywhere),
        Nearness(),
        PlaneScore(),
        lambda data, frozen, key: data,
        optax.adam(0.1),
        temperature=0.0,
        kind=kind,
        baseline=baseline,
        learning_rate_decay=1.0,
    )
    known = jnp.asarray(everywhere, jnp.float32)
    critic = dataclasses.replace(behaviour, params={}, slow={"target": known})
    frozen = {"critic": critic, "behaviour": behaviour}

    def descend(beta: jax.Array) -> jax.Array:
        def update(state: TrainState, key: jax.Array) -> Any:
            keys = jax.random.split(key, len(everywhere))
            hyper = {"temperature": beta, "num_steps": steps}
            return learner.update(state, keys, batch, frozen, hyper)[0], None

        keys = jax.random.split(jax.random.key(0), steps)
        state = learner.init(keys[0], batch, frozen)
        return jax.lax.scan(update, state, keys)[0].params

    found = jax.jit(jax.vmap(descend))(jnp.asarray(betas, jnp.float32))
    return np.asarray(found).reshape(len(betas), len(SHAPES), len(targets), 2)


def regression(
    points: dict[str, np.ndarray], targets: np.ndarray, beta: float
) -> np.ndarray:
    """Weigh the data of each shape by exp(beta Q) and take their mean: `[S, T, 2]`."""
    means = []
    for data in points.values():
        squares = ((targets[:, None] - data) ** 2).sum(-1)
        # The best action's weight is 1, so that no sum of them is zero.
        weights = np.exp(beta * (squares.min(1, keepdims=True) - squares))
        means.append(weights @ data / weights.sum(1, keepdims=True))
    return np.stack(means)


def gradient_variance(
    behaviour: TrainState,
    actions: np.ndarray,
    draw_level: Callable[[jax.Array], NoiseLevels],
    *,
    kind: Omega,
    baseline: bool,
    count: int = 128,
) -> jax.Array:
    """Measure the gradient towards the data at actions [S, T, 2]: its variance `[S T]`.

    The variance is over `count` draws of level and noise, and a mean over the entries.
    """
    batch, _ = _problems(actions[0])
    flat = jnp.asarray(actions.reshape(-1, 2))
    params = behaviour.slow["ema"]

    def draw(key: jax.Array) -> jax.Array:
        level_key, noise_key = jax.random.split(key)
        return score_gradient(
            lambda x, time: PlaneScore().apply(params, x, time, batch.inputs),
            jax.vmap(draw_level)(jax.random.split(level_key, len(flat))),
            jax.random.normal(noise_key, flat.shape),
            flat,
            kind=kind,
            baseline=baseline,
        )

    draws = jax.vmap(draw)(jax.random.split(jax.random.key(1), count))
    return draws.var(0).mean(-1)


def noise_over_time(
    behaviour: TrainState, actions: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Measure the variance of the gradient at times [L], by name `[L]`, omega = 1."""
    times = np.linspace(FIRST_TIME, LAST_TIME, 13)

    @functools.partial(jax.jit, static_argnames="baseline")
    def at_all(baseline: bool) -> jax.Array:
        def at(time: jax.Array) -> jax.Array:
            return gradient_variance(
                behaviour,
                actions,
                lambda key: vp_level(time),
                kind="one",
                baseline=baseline,
                count=32,
            ).mean()

        return jax.lax.map(at, jnp.asarray(times, jnp.float32))

    names = {"noise subtracted": True, "as predicted": False}
    return times, {name: np.asarray(at_all(flag)) for name, flag in names.items()}


def _problems(targets: np.ndarray) -> tuple[Transitions, np.ndarray]:
    """List every shape with every target: a batch, and the targets `[S T, 2]`."""
    everywhere = np.tile(targets, (len(SHAPES), 1))
    shape = np.repeat(np.eye(len(SHAPES)), len(targets), axis=0)
    inputs = np.concatenate([shape, np.arange(len(everywhere))[:, None]], axis=1)
    nothing = jnp.zeros(len(everywhere))
    batch = Transitions(
        inputs=jnp.asarray(inputs, jnp.float32),
        actions=jnp.asarray(everywhere, jnp.float32),
        rewards=nothing,
        next_inputs=jnp.asarray(inputs, jnp.float32),
        terminals=nothing > 0,
    )
    return batch, everywhere


def _rows(
    points: dict[str, np.ndarray],
    targets: np.ndarray,
    actions: dict[tuple[Omega, bool], np.ndarray],
    regressed: np.ndarray,
    behaviour: TrainState,
) -> list[dict[str, Any]]:
    measure = functools.partial(_measured, points, targets)
    sweeps = {
        "SRPO, omega variance": actions["variance", True],
        "SRPO, omega ratio": actions["ratio", True],
        "regression": regressed,
    }
    rows = []
    for name, each in sweeps.items():
        for beta, found in zip(BETAS, each, strict=True):
            rows += _named(name, f"beta {beta:g}", measure(found))
    rest = actions["variance", True][MIDDLE]
    draw_level = uniform_time(vp_level, FIRST_TIME, LAST_TIME)
    for (kind, baseline), found in actions.items():
        noise = functools.partial(
            gradient_variance, behaviour, rest, draw_level,
            kind=kind, baseline=baseline,
        )  # fmt: skip
        variance = jax.jit(noise)()
        values = measure(found[MIDDLE])
        values["gradient_variance"] = np.asarray(variance)
        method = f"{kind}, {'' if baseline else 'no '}baseline"
        rows += _named("omega, beta 0.1", method, values)
    found = measure(actions["ratio", True][MIDDLE])
    for i, name in enumerate(points):
        mine = {
            metric: values.reshape(len(points), -1)[i]
            for metric, values in found.items()
        }
        rows += _named("shape, omega ratio, beta 0.1", name, mine)
    return rows


def _measured(
    points: dict[str, np.ndarray], targets: np.ndarray, actions: np.ndarray
) -> dict[str, np.ndarray]:
    """Measure actions [S, T, 2]: each metric `[S T]`."""
    support = [fit_support(data) for data in points.values()]
    distances = np.stack(
        [
            ood_distance(mine, jnp.asarray(each)[:, None])
            for mine, each in zip(support, actions, strict=True)
        ]
    )
    limits = np.asarray([mine.limit for mine in support])[:, None]
    return {
        "q": -((actions - targets) ** 2).sum(-1).ravel(),
        "distance": (distances * limits).ravel(),
        "inside": (distances <= 1).astype(float).ravel(),
    }


def _named(
    setting: str, method: str, found: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    named = {"setting": setting, "method": method}
    return [
        {**named, "metric": metric, **measured(values)}
        for metric, values in found.items()
    ]


if __name__ == "__main__":
    run_command(main, Options)
