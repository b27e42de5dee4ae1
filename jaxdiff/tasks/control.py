"""Control: the task of every Gymnasium environment that has no task of its own.

Observations are arrays, or dictionaries of `observation` and perhaps `desired_goal`.
Actions are real numbers in a box. The two references of a score (equation 1 of
`jaxdiff.scoring`) come with the dataset, such as Minari's `ref_min_score` and
`ref_max_score`. A dataset without them has returns and no score, because constants of
another version of an environment say nothing.

Other tasks replace the fields of `CONTROL` in which they differ.
"""

import contextlib
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from jaxdiff.data.spec import Environment
from jaxdiff.errors import UserError, reason
from jaxdiff.options import NoOptions, Options
from jaxdiff.rollouts import Rollouts, Session, rollout
from jaxdiff.run import Run
from jaxdiff.scoring import bootstrap, reference_scores
from jaxdiff.tasks.base import Question, Request, Split, Task


def split(raw: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Read observations: an array, or a dictionary with `observation`.

    Args:
      raw: as the environment gives or the dataset stores it, with a leading axis.

    Returns:
      Flat observations `[N, O]` and goals `[N, G]`, or None without `desired_goal`.

    Raises:
      UserError: a dictionary without `observation`, or with goals in a dictionary.
    """
    if not isinstance(raw, Mapping):
        return flat(raw), None
    if "observation" not in raw:
        raise UserError(
            "observations are a dictionary without the key 'observation' (its keys are "
            f"{', '.join(map(str, raw))}); wrap the environment so that it has one"
        )
    goal = raw.get("desired_goal")
    if isinstance(goal, Mapping):
        raise UserError(
            "the key 'desired_goal' of an observation is a dictionary; wrap the "
            "environment so that a goal is one array"
        )
    return flat(raw["observation"]), None if goal is None else flat(goal)


def flat(x: Any) -> np.ndarray:
    """Flatten all axes but the first: `[N, ...]` -> `[N, O]`."""
    x = np.asarray(x)
    return x.reshape(len(x), -1)


class AsSeen(gymnasium.ObservationWrapper):
    """Shows what policies see: a flat array, or `observation` and `desired_goal`.

    Args:
      env: the environment.
      split: reads its observations, see `jaxdiff.tasks.base.Split`.
    """

    def __init__(self, env: gymnasium.Env, split: Split) -> None:
        super().__init__(env)
        self._split = split
        seen = self.observation(env.observation_space.sample())
        self.observation_space = (
            gymnasium.spaces.Dict({name: _box(x) for name, x in seen.items()})
            if isinstance(seen, dict)
            else _box(seen)
        )

    def observation(self, observation: Any) -> Any:
        """Return what policies see of one observation."""
        seen, goal = self._split(_with_axis(observation))
        if goal is None:
            return seen[0]
        return {"observation": seen[0], "desired_goal": goal[0]}


def _with_axis(raw: Any) -> Any:
    if isinstance(raw, Mapping):
        return {name: _with_axis(value) for name, value in raw.items()}
    return np.asarray(raw)[None]


def _box(x: np.ndarray) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(-np.inf, np.inf, x.shape, np.float32)


def make_env(environment: Environment, options: Any = None) -> gymnasium.Env:
    """Make an environment as policies see it; actions are clipped to its bounds.

    Raises:
      UserError: it is unknown or not installed, or its actions are no box.
    """
    return as_seen(make_raw(environment), split)


def make_raw(environment: Environment, **options: Any) -> gymnasium.Env:
    """Make the Gymnasium environment itself.

    Only its id, its keyword arguments and its time limit are used. An id
    `module:Id` imports the module, so it must come from the user.

    Args:
      environment: what to make.
      **options: more keyword arguments of `gymnasium.make`.

    Raises:
      UserError: it is unknown or not installed.
    """
    # Some environments are made known by this package; others do not need it.
    with contextlib.suppress(ImportError), contextlib.redirect_stderr(io.StringIO()):
        import gymnasium_robotics

        gymnasium.register_envs(gymnasium_robotics)
    if environment.max_episode_steps is not None:
        options["max_episode_steps"] = environment.max_episode_steps
    try:
        return gymnasium.make(environment.id, **{**environment.kwargs, **options})
    except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:
        raise UserError(
            f"the environment {environment.id} cannot be made ({reason(error)}); "
            'install what it needs, for MuJoCo `pip install "jaxdiff[mujoco]"`, or '
            "name the module that registers it, as in `environment=module:Id`"
        ) from error


def as_seen(env: gymnasium.Env, split: Split) -> gymnasium.Env:
    """Wrap an environment so that it shows what policies see and clips actions.

    Raises:
      UserError: its actions are not real numbers in a box.
    """
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise UserError(
            f"the environment takes actions of {space}; jaxdiff acts with a vector of "
            "real numbers"
        )
    return gymnasium.wrappers.ClipAction(AsSeen(env, split))


def play(
    task: Task, environment: Environment, options: Any, session: Session
) -> Rollouts:
    """Play episodes in lock-step, see `jaxdiff.rollouts.rollout`."""
    return rollout(session, lambda: task.make_env(environment, options))


def score(
    played: Rollouts, options: Any, references: Mapping[str, float]
) -> dict[str, Any]:
    """Score by returns, and by success where the environment reports it.

    Args:
      played: N episodes.
      options: of the task; not read.
      references: mean returns `random` and `expert`, if known.
    """
    mean, interval = float(played.returns.mean()), bootstrap(played.returns)
    record: dict[str, Any] = {}
    scores = reference_scores(references, mean, interval)
    if scores:
        chance, expert = references["random"], references["expert"]
        record = {
            **scores,
            "scale": f"0 is a return of {chance:g} and 100 of {expert:g}, the "
            "references of the dataset",
        }
    return {
        **record,
        **successes(played),
        "mean_return": mean,
        "return_interval": interval,
        "mean_length": float(played.lengths.mean()),
    }


def successes(played: Rollouts) -> dict[str, Any]:
    """Give the rate of success and its interval, if the environment reports it."""
    if played.successes is None:
        return {}
    return {
        "success_rate": float(played.successes.mean()),
        "success_interval": bootstrap(played.successes),
    }


@dataclasses.dataclass(frozen=True)
class Ends(Options):
    """What a plan is made for.

    Attributes:
      start: the observation to plan from, numbers separated by commas.
      goal: the goal, numbers separated by commas; left out, plans have no goal.
    """

    start: str
    goal: str | None = None


def read_ends(options: Ends, run: Run) -> Request:
    """Read a start and a goal from text.

    Raises:
      UserError: text that is not a list of numbers.
    """
    goal = None if options.goal is None else numbers("goal", options.goal)
    return Request(start=numbers("start", options.start), goal=goal)


def numbers(name: str, text: str) -> np.ndarray:
    """Read numbers that are separated by commas: float32 `[N]`.

    Raises:
      UserError: something else; the message names the option `name`.
    """
    try:
        return np.array([float(part) for part in text.split(",")], np.float32)
    except ValueError:
        raise UserError(
            f"`{name}` is {text!r}; write numbers separated by commas, such as 0,0.5"
        ) from None


def paths_of(played: Rollouts) -> Sequence[np.ndarray]:
    """Cut observations where each episode ended: N arrays `[T + 1, O]`."""
    pairs = zip(played.observations, played.lengths, strict=True)
    return [path[: length + 1] for path, length in pairs]


CONTROL = Task(
    name="control",
    environments=(),
    split=split,
    make_env=make_env,
    play=play,
    score=score,
    options=NoOptions,
    question=Question(Ends, read_ends),
)
