"""Closed-loop play: policies act in simulators, many episodes side by side.

An episode that goes wrong is lost alone: its environment raises, sends numbers that are
not finite or arrays of another shape, or never ends. The others go on.
"""

import contextlib
import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from jaxdiff.episode_log import EpisodeLog
from jaxdiff.errors import UserError, reason, require_at_least
from jaxdiff.policy import ActingPolicy, MakePolicy
from jaxdiff.progress import progress

# Steps after which an episode never ends, unless its environment has a longer limit.
MOST_STEPS = 100_000


class Episode(NamedTuple):
    """An episode that was played to its end.

    Attributes:
      seed: of its reset.
      total: float, sum of its rewards.
      peak: float, its largest reward.
      success: bool, whether success was reported, or None if nothing was said of it.
      observations: float32 `[T + 1, O]`.
      goal: `[G]`, the first one, or None without goals.
      plan: `[H, A + O]`, the first one, or None.
    """

    seed: int
    total: float
    peak: float
    success: bool | None
    observations: np.ndarray
    goal: np.ndarray | None
    plan: np.ndarray | None


class Failure(NamedTuple):
    """An episode that went wrong.

    Attributes:
      seed: of its reset.
      reason: what happened, for a message.
    """

    seed: int
    reason: str


@dataclasses.dataclass(frozen=True)
class Session:
    """Which episodes are played, and how.

    Attributes:
      make_policy: `(number of environments, their seeds) -> ActingPolicy`.
      episodes: how many; a task may count something else, such as minutes.
      num_envs: environments side by side; a wave plays one episode in each.
      seed: of the first episode.
      label: shown beside the progress bar.
      timeout: seconds that an environment may take for one episode, see `play_wave`.
      log: keeps finished episodes; those that it has are not played again.
    """

    make_policy: MakePolicy
    episodes: int
    num_envs: int = 50
    seed: int = 0
    label: str = "evaluate"
    timeout: float | None = None
    log: EpisodeLog | None = None


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """Episodes that were played to their end, in the order of their seeds.

    Attributes:
      returns: `[N]`, sum of the environment's rewards.
      peaks: `[N]`, the largest reward.
      successes: `[N]` bool, whether the environment ever reported success, or None if
        it never said whether.
      lengths: `[N]`, steps until the episode ended.
      observations: `[N, T + 1, O]`; after an episode's end its last one is repeated.
      goals: `[N, G]`, the first goal of each episode, or None without goals.
      plans: `[N, H, A + O]`, the first plan of each episode, or None.
      seeds: `[N]`, of their resets, or None if unknown.
      failed: the episodes that went wrong, which are in no array.
    """

    returns: np.ndarray
    peaks: np.ndarray
    successes: np.ndarray | None
    lengths: np.ndarray
    observations: np.ndarray
    goals: np.ndarray | None
    plans: np.ndarray | None
    seeds: np.ndarray | None = dataclasses.field(default=None, kw_only=True)
    failed: tuple[Failure, ...] = dataclasses.field(default=(), kw_only=True)


class RandomPolicy:
    """Draws uniform actions.

    Args:
      action_space: of one environment.
      seed: of the actions.
    """

    def __init__(self, action_space: gymnasium.spaces.Box, *, seed: int = 0) -> None:
        self._space, self._rng = action_space, np.random.default_rng(seed)

    def __call__(self, observation: np.ndarray, goal: Any = None) -> np.ndarray:
        """Return actions `[B, A]`, whatever is observed."""
        shape = (len(observation), *self._space.shape)
        return self._rng.uniform(self._space.low, self._space.high, shape)

    def reset(self, mask: Any = None, seeds: Any = None) -> None:
        """Do nothing: nothing is remembered."""


def rollout(
    session: Session,
    make_env: Callable[[], gymnasium.Env],
    *,
    options: dict[str, Any] | None = None,
) -> Rollouts:
    """Play episodes to their end, many side by side.

    Episode `i` is reset with seed `seed + i`, and so is the noise of the policy in it.
    All policies meet the same starts and goals, and one policy draws the same noise,
    whatever `num_envs` is.

    Args:
      session: which episodes, and how.
      make_env: makes one environment, with Box or goal-dictionary observations.
      options: passed to every reset.

    Raises:
      UserError: a count is too small, or every episode went wrong.
    """
    require_at_least(1, episodes=session.episodes, num_envs=session.num_envs)
    seeds = range(session.seed, session.seed + session.episodes)
    stored = session.log.read() if session.log else {}
    kept = [_episode_of(stored[seed]) for seed in seeds if seed in stored]
    return joined([*kept, *_played(session, make_env, seeds, stored, options)])


def _episode_of(values: Mapping[str, np.ndarray]) -> Episode:
    """Read an episode of a log, where numbers are arrays and None is missing."""
    read = {
        name: value if value.ndim else value.item() for name, value in values.items()
    }
    return Episode(**{**dict.fromkeys(Episode._fields), **read})


def _played(
    session: Session,
    make_env: Callable[[], gymnasium.Env],
    seeds: Sequence[int],
    stored: Mapping[int, Any],
    options: dict[str, Any] | None,
) -> Iterator[Episode | Failure]:
    """Play the episodes that are not stored, in waves."""
    left = [seed for seed in seeds if seed not in stored]
    if not left:
        return
    # Plain environments in lock-step: Gymnasium's vector environments either restart
    # by themselves, adding steps of the next episode, or refuse to step past an end.
    count = min(session.num_envs, session.episodes)
    envs = [make_env() for _ in range(count)]
    policy = session.make_policy(count, list(seeds[:count]))
    bar_of = progress(
        len(seeds), session.label, unit="episode", initial=len(seeds) - len(left)
    )
    with contextlib.ExitStack() as closing, bar_of as bar:
        closing.callback(lambda: [_close(env) for env in envs])
        for first in range(0, len(left), count):
            wave = left[first : first + count]
            # An environment without an episode of its own repeats a seed in vain.
            policy.reset(seeds=wave + wave[-1:] * (count - len(wave)))
            for i, episode in play_wave(
                policy, envs, wave, options=options, timeout=session.timeout
            ):
                if isinstance(episode, Failure):
                    _close(envs[i])  # what it would do next is unknown
                    envs[i] = make_env()
                elif session.log:
                    session.log.write(episode.seed, episode._asdict())
                bar(1)
                yield episode


def _close(env: gymnasium.Env) -> None:
    """Close an environment, which may be broken."""
    with contextlib.suppress(Exception):
        env.close()


def play_wave(
    policy: ActingPolicy,
    envs: Sequence[gymnasium.Env],
    seeds: Sequence[int],
    *,
    options: dict[str, Any] | None = None,
    timeout: float | None = None,
) -> Iterator[tuple[int, Episode | Failure]]:
    """Play one episode in each of the first environments, in lock-step.

    Args:
      policy: acts in all environments, also in those without a running episode. It was
        reset.
      envs: B environments.
      seeds: at most B, of their resets.
      options: passed to every reset.
      timeout: seconds that the reset and the steps of an environment may take in one
        episode. Time of the policy does not count. A step that takes longer is
        interrupted, in the main thread and unless it waits in compiled code.

    Yields:
      the index of an environment and its episode, as episodes end.
    """
    games = [_Game(env, timeout) for env in envs]
    running = dict(enumerate(games[: len(seeds)]))
    with _alarms(timeout):
        for i, game in list(running.items()):
            try:
                game.begin(seeds[i], options)
            except _Failed as error:
                yield i, running.pop(i).failure(error)
        plans, acted = None, False
        while running:
            # Rows without an episode show what another one sees; nothing reads them.
            other = next(iter(running.values()))
            shown = [other if game.seen is None else game for game in games]
            observation = np.stack([game.seen for game in shown])
            goals = [game.goal for game in shown]
            goal = None if goals[0] is None else np.stack(goals)
            action = policy(observation, goal)
            if not acted:
                plans = getattr(getattr(policy, "last", None), "plan", None)
                acted = True
            for i, game in list(running.items()):
                try:
                    over = game.step(action[i])
                except _Failed as error:
                    yield i, running.pop(i).failure(error)
                    continue
                if over:
                    plan = None if plans is None else np.asarray(plans[i])
                    yield i, running.pop(i).episode(plan)


class _Failed(Exception):
    """An episode went wrong; its message says how."""


class _Late(BaseException):
    """Interrupts an environment, also one that catches every `Exception`."""


class _Game:
    """One environment, and the episode that is played in it.

    Its methods raise `_Failed` if the environment goes wrong.
    """

    def __init__(self, env: gymnasium.Env, timeout: float | None) -> None:
        self._env, self._timeout, self._spent = env, timeout, 0.0
        stated = getattr(getattr(env, "spec", None), "max_episode_steps", None)
        self._longest = max(MOST_STEPS, stated or 0)
        self._shapes: dict[str, Any] = {"observation": _shape_seen(env), "goal": None}
        self._total, self._peak, self._success = 0.0, -math.inf, None
        self._path: list[np.ndarray] = []
        self._seed, self._steps, self._first_goal = 0, 0, None
        self.seen: Any = None
        self.goal: Any = None

    def begin(self, seed: int, options: dict[str, Any] | None) -> None:
        """Reset the environment."""
        self._seed = seed
        with self._guarded():
            self._see(self._env.reset(seed=seed, options=options)[0])
        self._first_goal = None if self.goal is None else self.goal.copy()

    def step(self, action: np.ndarray) -> bool:
        """Act once, and return whether the episode is over."""
        self._steps += 1
        with self._guarded():
            if not np.isfinite(action).all():
                raise _Failed("the action was not finite")
            seen, reward, terminated, truncated, info = self._env.step(action)
            if not math.isfinite(reward := float(reward)):
                raise _Failed(f"the reward was {reward}")
            self._see(seen)
        self._total += reward
        self._peak = max(self._peak, reward)
        if "success" in info or "is_success" in info:
            now = bool(info.get("success", info.get("is_success")))
            self._success = bool(self._success) or now
        over = bool(terminated or truncated)
        if not over and self._steps >= self._longest:
            raise _Failed("the episode was still not over")
        return over

    def episode(self, plan: np.ndarray | None) -> Episode:
        """Return the episode that is over."""
        path = np.stack(self._path).astype(np.float32)
        return Episode(
            self._seed, self._total, self._peak, self._success, path,
            self._first_goal, plan,
        )  # fmt: skip

    def failure(self, error: _Failed) -> Failure:
        """Return the episode that went wrong."""
        when = f"step {self._steps}" if self._steps else "reset"
        return Failure(self._seed, f"{when}: {error}")

    def _see(self, seen: Any) -> None:
        """Keep what the environment shows, if it can be acted on."""
        goal = None
        if isinstance(seen, dict):
            seen, goal = seen["observation"], seen["desired_goal"]
        self.seen = self._checked("observation", seen)
        self.goal = None if goal is None else self._checked("goal", goal)
        self._path.append(self.seen)

    def _checked(self, name: str, value: Any) -> np.ndarray:
        value = np.array(value)  # a copy: an environment may write over its own array
        if self._shapes[name] is None:
            self._shapes[name] = value.shape
        if value.shape != self._shapes[name]:
            raise _Failed(
                f"the {name} had shape {list(value.shape)} in place of "
                f"{list(self._shapes[name])}"
            )
        if not np.isfinite(value).all():
            raise _Failed(f"the {name} was not finite")
        return value

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turn what an environment raises, and a time that is over, into `_Failed`."""
        began = time.monotonic()
        try:
            if self._timeout is not None:
                _set_alarm(max(self._timeout - self._spent, 1e-6))
            yield
        except _Failed:
            raise
        except _Late as error:
            raise self._late() from error
        except Exception as error:
            raise _Failed(f"{type(error).__name__}: {reason(error)}") from error
        finally:
            if self._timeout is not None:
                _set_alarm(0)
                self._spent += time.monotonic() - began
        if self._timeout is not None and self._spent > self._timeout:
            raise self._late()

    def _late(self) -> _Failed:
        return _Failed(f"the episode took longer than {self._timeout} s")


def _shape_seen(env: Any) -> tuple[int, ...] | None:
    """Return the shape of an environment's observations, or None if it states none."""
    space = getattr(env, "observation_space", None)
    if isinstance(space, gymnasium.spaces.Dict):
        space = space["observation"]
    return getattr(space, "shape", None)


def _can_interrupt() -> bool:
    return threading.current_thread() is threading.main_thread()


def _set_alarm(seconds: float) -> None:
    if _can_interrupt():
        signal.setitimer(signal.ITIMER_REAL, seconds)


@contextlib.contextmanager
def _alarms(timeout: float | None) -> Iterator[None]:
    """Let an alarm interrupt what runs, if there is a timeout."""
    if timeout is None or not _can_interrupt():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


def joined(played: Sequence[Episode | Failure]) -> Rollouts:
    """Put episodes together, in the order of their seeds.

    Observations wait for the longest episode: the last one is repeated.

    Raises:
      UserError: every episode went wrong.
    """
    failed = sorted(each for each in played if isinstance(each, Failure))
    episodes = sorted(
        (each for each in played if isinstance(each, Episode)),
        key=lambda each: each.seed,
    )
    if not episodes:
        raise UserError(
            f"all {len(failed)} episodes went wrong; the first, of seed "
            f"{failed[0].seed}: {failed[0].reason}"
        )
    lengths = np.array([len(each.observations) - 1 for each in episodes])
    longest = lengths.max()

    def waiting(path: np.ndarray) -> np.ndarray:
        return np.pad(path, ((0, longest + 1 - len(path)), (0, 0)), mode="edge")

    def stacked(name: str) -> Any:
        values = [getattr(each, name) for each in episodes]
        return None if values[0] is None else np.stack(values)

    told = any(each.success is not None for each in episodes)
    return Rollouts(
        returns=stacked("total"),
        peaks=stacked("peak"),
        successes=np.array([bool(e.success) for e in episodes]) if told else None,
        lengths=lengths,
        observations=np.stack([waiting(each.observations) for each in episodes]),
        goals=stacked("goal"),
        plans=stacked("plan"),
        seeds=stacked("seed"),
        failed=tuple(failed),
    )


def refuse_timeout(session: Session) -> None:
    """Refuse a timeout where no environment is waited for.

    Raises:
      UserError: there is one.
    """
    if session.timeout is not None:
        raise UserError(
            "`timeout` has no effect in this task, whose episodes last equally long; "
            "leave it out"
        )


def select(played: Rollouts, rows: np.ndarray) -> Rollouts:
    """Return some of the episodes.

    Args:
      played: N episodes.
      rows: indices `[M]`, or `[N]` bool.
    """
    arrays: dict[str, Any] = {
        field.name: value[rows]
        for field in dataclasses.fields(Rollouts)
        if isinstance(value := getattr(played, field.name), np.ndarray)
    }
    return dataclasses.replace(played, **arrays)
