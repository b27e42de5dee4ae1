"""Habits: what a planner does becomes data, from which a fast policy learns to do it.

A planner costs tens of milliseconds a plan, and a network that imitates its decisions
costs tens of microseconds. The run plays episodes in its environment, and what it saw
and did is kept in its folder as a dataset:

    RUN/habits/DIGEST.npz     fields of `Episodes`, and how they came

Every algorithm that learns from data then learns the habit.

An imitator may drift to states that the planner never visited, and know no way back.
Executed actions can therefore be disturbed, while the data hold what the planner wanted
(Laskey et al., "DART: Noise injection for robust imitation learning", 2017,
arXiv:1703.09327):

(1) executed = wanted + noise * scale * N(0, 1),   scale = half the range of an action.

So the planner shows how it finds back. In a small maze an imitator without noise scores
as its planner does (`benchmarks/habit.py`), so that none is the default.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from jaxdiff.data.episodes import (
    FIELDS,
    Dataset,
    Episodes,
    check_episodes,
    episodes_of,
    fingerprint,
)
from jaxdiff.data.readers import read
from jaxdiff.data.recording import Recording
from jaxdiff.data.spec import Environment
from jaxdiff.devices import Device
from jaxdiff.errors import writing
from jaxdiff.evaluation import check_fit, environment_of, options_of
from jaxdiff.files import refuse_link, write_whole
from jaxdiff.options import Options, at_least, at_most, to_plain
from jaxdiff.progress import note
from jaxdiff.rollouts import Session, rollout
from jaxdiff.run import Run
from jaxdiff.tasks.control import split
from jaxdiff.tasks.lookup import task_of


@dataclasses.dataclass(frozen=True)
class Habit(Options):
    """How a run is recorded.

    Attributes:
      habit_episodes: episodes that the planner plays.
      habit_noise: standard deviation of noise on its actions, in units of half their
        range. The data hold its actions without noise.
      habit_seed: seed of the first episode; evaluations have others.
    """

    habit_episodes: int = 200
    habit_noise: float = 0.0
    habit_seed: int = 10_000_000

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 1, "habit_episodes")
        yield from at_least(self, 0, "habit_noise", "habit_seed")
        yield from at_most(self, 2**31 - 1, "habit_seed")


def record_run(
    run: Run,
    habit: Habit = Habit(),
    *,
    num_envs: int = 100,
    devices: Sequence[Device] | None = None,
    environment: str | None = None,
    trust: bool = False,
) -> Dataset:
    """Record what a run sees and does in its environment, as data to learn from.

        planner = jaxdiff.load_run("runs/umaze")
        data = jaxdiff.record_run(planner)
        jaxdiff.train_run("bc", data, "runs/habit")

    What was recorded with the same parameters and options is read and not played again.

    Args:
      run: a planner, or anything else that was trained.
      habit: how it is recorded.
      num_envs: environments side by side; as many as in `evaluate` share its programs.
      devices: to act on, as in `evaluate`.
      environment: Gymnasium id to play instead of the run's own.
      trust: as in `evaluate`.

    Returns:
      The data. Its references and its environment are those of the run, so that its
      policies are scored as the run is.

    Raises:
      UserError: the run knows no environment, or one that asks for trust or does not
        fit it; every episode went wrong; or its folder cannot be written.
    """
    played_in = environment_of(run, environment, trust=trust)
    options = options_of(task_of(played_in), run)
    about = {
        "planner": str(run.path),
        "id": run.document["id"],
        "updates": {name: int(state.step) for name, state in run.states.items()},
        "acting": to_plain(run.acting),
        "environment": played_in._asdict(),
        "options": to_plain(options),
        **to_plain(habit),
    }
    path = run.path / "habits" / f"{_digest(about)}.npz"
    if path.exists():
        note(f"what {run.path} did was recorded before, in {path}")
    else:
        episodes = _played(run, habit, num_envs, devices, played_in, options)
        _write(path, episodes, about)
    recorded = episodes_of(read(path), split, str(path))
    check_episodes(recorded, str(path))
    return Dataset(
        name=str(path),
        episodes=recorded,
        observation_shape=run.spec.observation_shape,
        fingerprint=fingerprint(recorded),
        environment=Environment(**about["environment"]),
        evaluation=played_in,
        references=run.dataset["references"],
        metadata={**run.dataset["metadata"], "habit": about},
    )


def _digest(about: dict[str, Any]) -> str:
    """Name what is recorded, wherever the run lies."""
    asked = {name: value for name, value in about.items() if name != "planner"}
    text = json.dumps(asked, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _played(
    run: Run,
    habit: Habit,
    num_envs: int,
    devices: Sequence[Device] | None,
    environment: Environment,
    options: Any,
) -> Episodes:
    """Play episodes, and lay what was seen and wanted one after another."""
    note(
        f"{run.path} plays {habit.habit_episodes} episodes, with noise of "
        f"{habit.habit_noise:g} on its actions, to learn from"
    )
    task = task_of(environment)
    check_fit(run, task, environment, options)
    kept: dict[int, _Game] = {}
    session = Session(
        lambda count, seeds: run.policy(count, seeds=seeds, devices=devices),
        episodes=habit.habit_episodes,
        num_envs=num_envs,
        seed=habit.habit_seed,
        label=run.name,
    )

    def make_env() -> gymnasium.Env:
        env = task.make_env(environment, options)
        return _Recorder(env, kept, habit.habit_noise)

    failed = rollout(session, make_env).failed
    if failed:
        note(f"{len(failed)} episodes went wrong and are left out ({failed[0].reason})")
    games = [kept[seed] for seed in sorted(kept)]
    told = bool(run.spec.goal_dim) and games[0].goals[0] is not None
    return episodes_of(
        Recording(
            observations=[np.stack(game.observations) for game in games],
            actions=[np.stack(game.actions) for game in games],
            rewards=[np.array(game.rewards) for game in games],
            terminated=[game.terminated for game in games],
            goals=[np.stack(game.goals) for game in games] if told else (),
        ),
        split,
        str(run.path),
    )


def _write(path: Path, episodes: Episodes, about: dict[str, Any]) -> None:
    fields = {name: getattr(episodes, name) for name in FIELDS}
    arrays: dict[str, Any] = {k: v for k, v in fields.items() if v is not None}
    refuse_link(path.parent)
    with writing(path, "check the permissions of the run folder or free some space"):
        path.parent.mkdir(exist_ok=True)
        text = json.dumps(about)
        write_whole(path, lambda file: np.savez(file, jaxdiff=np.array(text), **arrays))


@dataclasses.dataclass
class _Game:
    """One episode while it is recorded: T + 1 observations and goals, T of the rest."""

    observations: list[np.ndarray] = dataclasses.field(default_factory=list)
    goals: list[Any] = dataclasses.field(default_factory=list)
    actions: list[np.ndarray] = dataclasses.field(default_factory=list)
    rewards: list[float] = dataclasses.field(default_factory=list)
    terminated: bool = False

    def see(self, seen: Any) -> None:
        """Keep a copy, because an environment may write over its own array."""
        both = isinstance(seen, dict)
        self.observations.append(np.array(seen["observation"] if both else seen))
        self.goals.append(np.array(seen["desired_goal"]) if both else None)


class _Recorder(gymnasium.Wrapper):
    """Keeps the actions that it is given, and executes them with noise, equation (1).

    Args:
      env: the environment, as policies see it.
      kept: receives whole episodes by the seed of their reset.
      noise: in units of half the range of an action, or of 1 where it is unbounded.
    """

    def __init__(
        self, env: gymnasium.Env, kept: dict[int, _Game], noise: float
    ) -> None:
        super().__init__(env)
        space: Any = env.unwrapped.action_space  # clipping hides the bounds
        half = (space.high - space.low) / 2
        self._scale = noise * np.where(np.isfinite(half), half, 1.0)
        self._kept = kept

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Begin an episode; its noise comes from its seed."""
        seen, info = self.env.reset(seed=seed, options=options)
        self._seed = 0 if seed is None else seed
        self._rng = np.random.default_rng(self._seed)
        self._game = _Game()
        self._game.see(seen)
        return seen, info

    def step(self, action: Any) -> Any:
        """Act, and keep what was wanted and what came of it."""
        noise = self._scale * self._rng.standard_normal(len(action))
        found = self.env.step(action + np.float32(noise))
        seen, reward, terminated, truncated, _ = found
        game = self._game
        game.actions.append(np.array(action, np.float32))
        game.rewards.append(float(reward))
        game.see(seen)
        if terminated or truncated:
            game.terminated = bool(terminated)
            self._kept[self._seed] = game
        return found
