"""Scores in any Gymnasium environment of continuous control.

The two references of a score (equation 1 of `jaxdiff.scoring`) are those that
come with the dataset, such as Minari's `ref_min_score` and `ref_max_score`. A dataset
without them has returns and no score: constants of another version of an environment
would say nothing. In PushT, whose returns are smaller the sooner it is done, the score
is the share of episodes that succeed, in percent.
"""

import contextlib
import io
import time
from collections.abc import Sequence
from typing import Any

import gymnasium

from jaxdiff.devices import Device
from jaxdiff.errors import UserError, reason
from jaxdiff.rollouts import Rollouts, play
from jaxdiff.run import Run
from jaxdiff.scoring import bootstrap, reference_scores
from jaxdiff.tasks.kitchen import world as kitchen
from jaxdiff.tasks.pusht import world as pusht


def evaluate_control(
    run: Run,
    *,
    episodes: int = 100,
    seed: int = 0,
    num_envs: int = 100,
    devices: Sequence[Device] | None = None,
) -> tuple[dict[str, Any], Rollouts]:
    """Score a run in the environment that its dataset was recorded in.

    Args:
      run: a trained planner or policy.
      episodes: N, each to its end or time limit.
      seed: of the first episode.
      num_envs: environments side by side; one program acts in all of them.
      devices: the batch of environments is split over them.

    Returns:
      A record of the scores, and the run's episodes.

    Raises:
      UserError: the environment is unknown, is not installed, or takes other actions.
    """
    started = time.monotonic()
    own = play(
        run,
        lambda: make_env(run),
        episodes=episodes,
        num_envs=num_envs,
        seed=seed,
        devices=devices,
    )
    dataset = run.document["dataset"]
    mean, interval = float(own.returns.mean()), bootstrap(own.returns)
    record = {
        "setting": dataset["name"],
        "environment": dataset["environment"],
        "episodes": episodes,
        **(
            _successes(own)
            if dataset["environment"] == pusht.ENVIRONMENT
            else _scores(dataset["references"], mean, interval)
        ),
        "mean_return": mean,
        "return_interval": interval,
        "mean_length": float(own.lengths.mean()),
        "seconds": time.monotonic() - started,
    }
    return record, own


def make_env(run: Run) -> gymnasium.Env:
    """Make the environment of a run's dataset; actions are clipped to its bounds.

    Raises:
      UserError: as in `evaluate_control`.
    """
    dataset = run.document["dataset"]
    name = dataset["environment"]
    if name is None:
        raise UserError(
            f"{run.path} was trained on {dataset['name']}, which does not say the "
            "environment it was recorded in; train on a dataset that does"
        )
    # Some environments are made known by this package; others do not need it.
    with contextlib.suppress(ImportError), contextlib.redirect_stderr(io.StringIO()):
        import gymnasium_robotics

        gymnasium.register_envs(gymnasium_robotics)
    import jaxdiff.tasks.claw.environment
    import jaxdiff.tasks.kitchen.toy_environment  # noqa: F401

    if name == pusht.ENVIRONMENT:
        return gymnasium.wrappers.ClipAction(pusht.make_env())
    try:
        # A kitchen's observations share their goals, which are not seen.
        checked = name not in kitchen.ENVIRONMENTS
        env = gymnasium.make(name, disable_env_checker=not checked)
    except (gymnasium.error.Error, ImportError) as error:
        raise UserError(
            f"the environment {name} cannot be made ({reason(error)}); install what "
            'it needs, for MuJoCo `pip install "jaxdiff[mujoco]"`'
        ) from error
    space, size = env.action_space, dataset["action_dim"]
    if not isinstance(space, gymnasium.spaces.Box) or space.shape != (size,):
        raise UserError(
            f"the environment {name} takes actions of {space}, and {run.path} gives "
            f"{size} real numbers; evaluate it in an environment of such actions"
        )
    if name in kitchen.ENVIRONMENTS:
        env = kitchen.as_seen(env)
    if len(env.observation_space.shape or ()) > 1:
        env = gymnasium.wrappers.FlattenObservation(env)
    return gymnasium.wrappers.ClipAction(env)


def _successes(own: Rollouts) -> dict[str, Any]:
    """Score by success, with its interval."""
    rate, (low, high) = float(own.successes.mean()), bootstrap(own.successes)
    return {
        "score": 100 * rate,
        "score_low": 100 * low,
        "score_high": 100 * high,
        "success_rate": rate,
        "scale": "percent of episodes that succeed",
    }


def _scores(
    references: dict[str, float], mean: float, interval: tuple[float, float]
) -> dict[str, Any]:
    """Put a mean return and its interval on the scale of the dataset, if it has one."""
    scores = reference_scores(references, mean, interval)
    if not scores:
        return {}
    chance, expert = references["random"], references["expert"]
    return {
        **scores,
        "scale": f"0 is a return of {chance:g} and 100 of {expert:g}, the dataset's "
        "references",
    }
