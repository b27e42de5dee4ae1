"""The contract of a task: all that the library knows of one kind of environment.

A `Task` is one value. It says how its environments are made and what policies see of
them, how episodes are played and scored, how data are recorded, which options suit an
algorithm there, what `jaxdiff plan` takes, and what is drawn. Every field but the name
has a default that serves any Gymnasium environment, so a task states only what is
special. Tasks are found by the exact Gymnasium id that a dataset was recorded in.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from jaxdiff.algorithms.base import Preset
from jaxdiff.data.episodes import Dataset
from jaxdiff.data.spec import Environment, Layout, Spec
from jaxdiff.options import NoOptions
from jaxdiff.rollouts import Rollouts
from jaxdiff.run import Run
from jaxdiff.simulation import Simulator

# What policies see of raw observations with a leading axis: flat observations `[N, O]`
# (uint8 pictures stay uint8), and goals `[N, G]` or None.
Split = Callable[[Any], tuple[np.ndarray, np.ndarray | None]]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One dataset that can be made locally.

    Attributes:
      dataset_id: Minari id that it is stored under.
      make: `make(*, steps, seed=0, root=None, **options) -> folder` records it. It
        writes what presets may read into the metadata, under "jaxdiff".
      steps: number of transitions by default.
      options: class of its further options, a frozen dataclass; they are flags of
        `jaxdiff data make`.
    """

    dataset_id: str
    make: Callable[..., pathlib.Path]
    steps: int
    options: type = NoOptions


class Request(NamedTuple):
    """What a user asks a planner for, in environment units.

    Attributes:
      start: `[O]` observation.
      goal: `[G]`, or None.
      options: further keyword arguments of `jaxdiff.plan`, such as `value`.
      draw: `(plans: RankedPlans) -> Figure`, a picture of the plans, or None.
    """

    start: np.ndarray
    goal: np.ndarray | None
    options: Mapping[str, Any] = {}
    draw: Callable[[Any], Any] | None = None


class Question(NamedTuple):
    """What `jaxdiff plan` asks of a user in a task.

    Attributes:
      options: class of its flags, a frozen dataclass.
      read: `(options, run) -> Request`.
    """

    options: type
    read: Callable[[Any, Run], Request]


@dataclasses.dataclass(frozen=True)
class Task:
    """All that is known of one kind of environment.

    Attributes:
      name: short name, such as "pusht".
      environments: Gymnasium ids that it is for.
      split: see `Split`; the one place that reads a stored or a live observation.
      make_env: `(environment, options) -> gymnasium.Env` as policies see it: flat
        observations, or a dictionary of `observation` and `desired_goal`; actions are
        clipped to their bounds.
      play: `(task, environment, options, session) -> Rollouts`, or a subclass with
        further fields, see `jaxdiff.rollouts.Session`.
      score: `(played, options, references) -> record`, JSON values; `score`,
        `score_low`, `score_high` and `scale` where there is a score.
      options: class of the options of `make_env`, `play` and `score`, a frozen
        dataclass whose fields are flags of `jaxdiff evaluate`. A field that is None by
        default may be filled in from the dataset by `settle`.
      settle: `(options, metadata of the dataset) -> options`.
      layout: `(dataset) -> Layout` of an observation that policies see.
      recipes: name -> `Recipe`.
      presets: (algorithm, name of the preset) -> `(dataset, spec) -> Preset`.
      question: what `jaxdiff plan` takes, or None if nothing can be planned there.
      draw: `(run, played) -> Figure` of some episodes, or None.
      simulate: `(environment, options) -> Simulator`, the environment as a pure JAX
        function, see `jaxdiff.simulation`, or None.
      stream: whether episodes that meet, one ending where the next begins, are parts
        of one stream, because data of this task are recorded so.
    """

    name: str
    environments: tuple[str, ...]
    split: Split
    make_env: Callable[[Environment, Any], gymnasium.Env]
    play: Callable[..., Rollouts]
    score: Callable[..., dict[str, Any]]
    options: type = NoOptions
    settle: Callable[[Any, Mapping[str, Any]], Any] = lambda options, metadata: options
    layout: Callable[[Dataset], Layout] = lambda dataset: Layout()
    recipes: Mapping[str, Recipe] = dataclasses.field(default_factory=dict)
    presets: Mapping[tuple[str, str], Callable[[Dataset, Spec], Preset]] = (
        dataclasses.field(default_factory=dict)
    )
    question: Question | None = None
    draw: Callable[[Run, Any], Any] | None = None
    simulate: Callable[[Environment, Any], Simulator] | None = None
    stream: bool = False
