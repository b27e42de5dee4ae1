"""What is measured: runs, trained or made up, and data of their shapes."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdiff import run as runs
from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.base import Learner, TrainConfig
from jaxdiff.algorithms.planning.trajectories import goal_entries
from jaxdiff.data.episodes import Dataset, Episodes, starts_of
from jaxdiff.data.normalizer import unnormalize
from jaxdiff.data.spec import Spec
from jaxdiff.run import Run

MADE_UP = Spec((17,), action_dim=6)
EPISODES, STEPS = 4, 1_000
# Options of smaller networks, of those algorithms that have them.
SMALL = {"horizon": 8, "dim_mults": (1,), "guide_steps": 1}


class Subject(NamedTuple):
    """A run, and data of the shapes of its own.

    Attributes:
      run: what acts. `fill_states` makes up the states that it lacks.
      data: to update on.
      trained: whether a score of the run means anything.
    """

    run: Run
    data: Episodes
    trained: bool


def made_up_episodes(spec: Spec, *, steps: int = STEPS) -> Episodes:
    """Draw episodes of some shapes from a normal distribution; pictures are bytes."""
    rng, lengths = np.random.default_rng(0), np.full(EPISODES, steps)
    rows = int(lengths.sum()) + len(lengths)
    acted = np.ones(rows, bool)
    acted[np.cumsum(lengths + 1) - 1] = False

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal((rows, *shape), np.float32)

    seen = draw(spec.observation_dim)
    if len(spec.observation_shape) == 3:
        seen = rng.integers(0, 256, seen.shape, np.uint8)
    return Episodes(
        observations=seen,
        actions=draw(spec.action_dim) * acted[:, None],
        rewards=draw() * acted,
        starts=starts_of(lengths),
        lengths=lengths,
        terminated=np.zeros(len(lengths), bool),
        goals=draw(spec.goal_dim) if spec.goal_dim else None,
    )


def untrained(name: str, *, small: bool) -> Subject:
    """Build a registered algorithm with its generic preset, for made-up data.

    Args:
      name: of `ALGORITHMS`.
      small: replace options by those of `SMALL`.
    """
    entry, spec, episodes = ALGORITHMS.find(name), MADE_UP, made_up_episodes(MADE_UP)
    dataset = Dataset("made up", episodes, spec.observation_shape, "")
    preset = entry.generic(dataset, spec)
    config, acting = preset.config, preset.acting
    if small:
        config, acting = (_smaller(options) for options in (config, acting))
    return made_up(name, spec, config, acting, preset.training)


def made_up(
    name: str,
    spec: Spec,
    config: Any,
    acting: Any,
    training: TrainConfig | Mapping[str, TrainConfig],
) -> Subject:
    """Build an algorithm of given options for made-up data.

    Args:
      name: of `ALGORITHMS`.
      spec: shapes of the data.
      config: options of training.
      acting: options of acting.
      training: of its learners.
    """
    entry, episodes = ALGORITHMS.find(name), made_up_episodes(spec)
    statistics = entry.measure(config, episodes, spec)
    built = entry.build(config, acting, statistics, spec)
    training = runs.by_learner(training, built)
    run = Run(
        Path("made up"), name, config, acting, statistics, spec, built, {}, {}, training
    )
    return Subject(run, episodes, trained=False)


def _smaller(options: Any) -> Any:
    known = {field.name for field in dataclasses.fields(options)}
    fitting = {name: value for name, value in SMALL.items() if name in known}
    return dataclasses.replace(options, **fitting)


def subject_of(run: Run) -> Subject:
    """Take a trained run, and make up data to update it on."""
    longest = max(
        (getattr(run.config, "horizon", 0), *getattr(run.config, "train_horizons", ()))
    )
    episodes = made_up_episodes(run.spec, steps=max(STEPS, 2 * longest))
    return Subject(run, episodes, trained=True)


def anew(run: Run, **acting: Any) -> Run:
    """Build the algorithm of a run again, so that nothing of it is compiled yet.

    Args:
      run: the run.
      **acting: acting options to replace.

    Raises:
      UserError: acting options that do not fit.
    """
    options = dataclasses.replace(run.acting, **acting)
    build = ALGORITHMS.find(run.name).build
    built = build(run.config, options, run.statistics, run.spec)
    return run._replace(acting=options, algorithm=built)


def fill_states(subject: Subject) -> None:
    """Make up the states that the run lacks, of the shapes of real ones.

    Drawing the real ones takes as long to compile as what is measured.
    """
    run, states = subject.run, subject.run.states
    for name, learner in run.algorithm.learners.items():
        if name not in states:
            states[name] = _made_up_state(  # type: ignore[index]
                learner, subject.data, run.training[name].batch_size, states
            )


def _made_up_state(
    learner: Learner, data: Episodes, batch_size: int, finished: Any
) -> Any:
    key = jax.random.key(0)
    prepared = learner.prepare(data, dict(finished), key)

    def init(prepared):
        keys = jax.random.split(key, batch_size)
        batch = jax.vmap(learner.draw, (None, 0))(prepared, keys)
        return learner.init(key, batch, dict(finished))

    rng = np.random.default_rng(0)

    def fill(path: Any, leaf: Any) -> np.ndarray:
        if len(leaf.shape) > 1:  # a kernel, whose products stay of the size of inputs
            drawn = rng.standard_normal(leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
            return drawn.astype(leaf.dtype)
        factor = jax.tree_util.keystr(path[-1:], simple=True) in ("scale", "var")
        return np.full(leaf.shape, float(factor), leaf.dtype)

    shapes = jax.eval_shape(init, prepared)
    return jax.tree_util.tree_map_with_path(fill, shapes)


def middle(run: Run) -> tuple[np.ndarray, np.ndarray | None]:
    """Return a start in the middle of a planner's data, and the goal to stay there."""
    spec, config = run.spec, run.config
    row = np.zeros(spec.action_dim + spec.observation_dim, np.float32)
    start = np.asarray(unnormalize(run.statistics.normalizer, row))[spec.action_dim :]
    if getattr(config, "condition", None) == "goal":
        return start, np.zeros(spec.goal_dim, np.float32)
    if not config.goal_dim:
        return start, None
    return start, start[goal_entries(spec, config.goal_dim)]
