"""Play minutes of Doom, a game that goes on while a policy decides.

Ten minutes are ten games of a minute, each from a full room. A player that dies begins
again in a full room, and the minute goes on: a death is counted and costs nothing else.
The pistol never runs out. A decision that takes L seconds costs tics of the game, 35 a
second, in one of two ways:

(1) in turn: the game waits, and the action comes n = ceil(35 L) tics, at least one,
    after the picture that it was made from; until then the player does nothing. L is
    given, or the median of what is measured beforehand, so that two computers with the
    same L play the same games;
(2) live: the game does not wait. What is missed is missed, and nothing can be repeated.

In turn there are 35 / n decisions a second; live they are counted by the clock.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np

from jaxdiff.data.spec import Environment
from jaxdiff.errors import require_at_least
from jaxdiff.options import Options, at_least
from jaxdiff.policy import ActingPolicy
from jaxdiff.progress import progress
from jaxdiff.rollouts import RandomPolicy, Session, refuse_timeout
from jaxdiff.tasks.base import Task
from jaxdiff.tasks.doom import environment
from jaxdiff.tasks.doom import world as doom

_MOST_ENVS = 8  # games side by side; each is a process
_TIMED = 30  # decisions that are timed

# (games, their seeds) -> what acts in them
MakePlayer = Callable[[Sequence[gymnasium.Env], Sequence[int]], ActingPolicy]


@dataclasses.dataclass(frozen=True)
class DoomOptions(Options):
    """How time passes while a policy decides.

    Attributes:
      latency: seconds that a decision takes while the game waits; left out, the time
        that it takes on this machine.
      live: do not let the game wait for decisions.
    """

    latency: float | None = None
    live: bool = False

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used."""
        yield from super().faults()
        yield from at_least(self, 0, "latency")
        if self.latency is not None and self.latency >= doom.HORIZON / doom.TICS:
            yield f"`latency` is {self.latency}; it must be below a minute"
        if self.live and self.latency is not None:
            yield (
                "`live` play takes the time that it takes; leave out `latency`, or "
                "choose `live=False`"
            )


@dataclasses.dataclass(frozen=True)
class Minutes:
    """N minutes of play.

    Attributes:
      kills: `[N]`.
      deaths: `[N]`.
      decisions: `[N]`.
      tics: `[N]`, tics of the game.
      seconds: `[N]`, by the clock; minutes played side by side share theirs.
      turned: float32 `[N, T, 2]`, degrees to the right and down in each tic.
      thinking: mean time of a decision by the clock, seconds.
      latency: L of equation (1), seconds; None if they were played live.
    """

    kills: np.ndarray
    deaths: np.ndarray
    decisions: np.ndarray
    tics: np.ndarray
    seconds: np.ndarray
    turned: np.ndarray
    thinking: float
    latency: float | None


class Demonstrator:
    """Acts as the scripted demonstrator in games with labels.

    Args:
      games: B games from `jaxdiff.tasks.doom.environment.make_env`.
      seeds: `[B]` seeds of its choices.
    """

    def __init__(self, games: Sequence[gymnasium.Env], seeds: Sequence[int]) -> None:
        self._games: list[Any] = [game.unwrapped for game in games]
        self._states = [doom.DemonstratorState()] * len(games)
        self._rngs = [np.random.default_rng(seed) for seed in seeds]

    def __call__(self, observation: Any, goal: Any = None) -> np.ndarray:
        """Return actions `[B, 3]`; the games tell where monsters are."""
        actions = []
        for i, game in enumerate(self._games):
            action, self._states[i] = doom.demonstrate(
                self._states[i], game.monsters(), game.pitch(), self._rngs[i]
            )
            actions.append(action)
        return np.stack(actions)

    def reset(self, mask: Any = None, seeds: Any = None) -> None:
        """Begin new lives where `mask [B]` is true, by default everywhere."""
        mask = np.ones(len(self._games), bool) if mask is None else mask
        for i in np.flatnonzero(mask):
            self._states[i] = doom.DemonstratorState()
            if seeds is not None:
                self._rngs[i] = np.random.default_rng(seeds[i])


def random_player(games: Sequence[gymnasium.Env], seeds: Sequence[int]) -> RandomPolicy:
    """Return a player whose actions are uniform."""
    return RandomPolicy(games[0].action_space, seed=seeds[0])  # type: ignore


def play(
    task: Task, environment: Environment, options: DoomOptions, session: Session
) -> Minutes:
    """Play `episodes` minutes; see `play_minutes`."""
    refuse_timeout(session)
    return play_minutes(
        lambda games, seeds: session.make_policy(len(games), seeds),
        doom.block_of(environment),
        options,
        minutes=session.episodes,
        seed=session.seed,
        num_envs=session.num_envs,
        label=session.label,
    )


def play_minutes(
    make_player: MakePlayer,
    block: doom.Block,
    options: DoomOptions,
    *,
    minutes: int,
    seed: int = 0,
    num_envs: int = _MOST_ENVS,
    labels: bool = False,
    tics: int = doom.HORIZON,
    label: str = "evaluate",
) -> Minutes:
    """Play minutes of Doom, equation (1), or (2) if `options.live`.

    Minute i begins with seed `seed + i`, so all players meet the same rooms.

    Args:
      make_player: `(games, seeds) -> ActingPolicy`.
      block: block size of the pictures, see `jaxdiff.tasks.doom.world.shrink`.
      options: how time passes.
      minutes: N.
      seed: seed of the first minute.
      num_envs: games side by side, at most 8; a live game is alone.
      labels: find monsters in the pictures, which the demonstrator needs.
      tics: length of a minute, for shorter ones.
      label: shown beside the progress bar.

    Raises:
      UserError: ViZDoom is not installed, or no minutes or games are asked for.
    """
    require_at_least(1, episodes=minutes, num_envs=num_envs)
    latency = options.latency
    if latency is None and not options.live:
        latency = measure_latency(make_player, block, labels=labels)
    cost = 1 if latency is None else delay(latency)
    count = 1 if options.live else min(num_envs, minutes, _MOST_ENVS)
    games = [
        environment.make_env(block, asynchronous=options.live, labels=labels)
        for _ in range(count)
    ]
    player = make_player(games, [seed + i for i in range(count)])
    player(_nothing(games))  # compiles before the clock runs
    waves = []
    with progress(minutes, label, unit="minute") as bar:
        for first in range(0, minutes, count):
            seeds = [seed + first + i for i in range(count)]
            left = min(count, minutes - first)
            wave = _wave(player, games, seeds, cost, tics)
            waves.append([row[:left] for row in wave])
            bar(left)
    for game in games:
        game.close()
    *counts, thinking = map(np.concatenate, zip(*waves, strict=True))
    spent = float(thinking.sum() / counts[2].sum())
    return Minutes(*counts, thinking=spent, latency=latency)


def measure_latency(
    make_player: MakePlayer, block: doom.Block, *, labels: bool = False
) -> float:
    """Return the median time of a decision in one game, seconds; see `play_minutes`."""
    game = environment.make_env(block, labels=labels)
    shown = game.reset(seed=0)[0].reshape(1, -1)
    player, seconds = make_player([game], [0]), []
    player(shown)  # compiles
    for _ in range(_TIMED):
        started = time.perf_counter()
        player(shown)
        seconds.append(time.perf_counter() - started)
    game.close()
    return float(np.median(seconds))


def delay(latency: float) -> int:
    """Return n of equation (1), the tics that a decision costs."""
    # Floating point may lift a whole number of tics by a rounding error.
    return max(1, math.ceil(doom.TICS * latency - 1e-9))


def first_turns(
    make_player: MakePlayer,
    block: doom.Block,
    *,
    repeats: int,
    seed: int,
    tics: int = doom.TICS,
    labels: bool = False,
) -> np.ndarray:
    """Begin the same game again and again, and measure the first turns.

    Args:
      make_player: as in `play_minutes`.
      block: block size of the pictures, see `jaxdiff.tasks.doom.world.shrink`.
      repeats: N.
      seed: seed of the game, the same in all repeats, and of the first player.
      tics: how long turns are added up.
      labels: find monsters in the pictures, which the demonstrator needs.

    Returns:
      `[N]`, degrees to the right.
    """
    count = min(repeats, _MOST_ENVS)
    games = [environment.make_env(block, labels=labels) for _ in range(count)]
    player = make_player(games, [seed + i for i in range(count)])
    found = []
    for first in range(0, repeats, count):
        shown = np.stack([game.reset(seed=seed)[0].ravel() for game in games])
        player.reset(seeds=[seed + first + i for i in range(count)])
        turned = np.zeros(count)
        for _ in range(tics):
            actions = player(shown)
            turned += doom.STEP * actions[:, 0]
            pairs = zip(games, actions, strict=True)
            shown = np.stack([game.step(action)[0].ravel() for game, action in pairs])
        found.append(turned)
    for game in games:
        game.close()
    return np.concatenate(found)[:repeats]


def _nothing(games: Sequence[gymnasium.Env]) -> np.ndarray:
    """Return black pictures, flat."""
    shape = games[0].observation_space.shape or ()
    return np.zeros((len(games), math.prod(shape)), np.uint8)


def _wave(
    player: ActingPolicy,
    games: Sequence[gymnasium.Env],
    seeds: Sequence[int],
    cost: int,
    minute: int,
) -> tuple[np.ndarray, ...]:
    """Play one minute in every game, in lock-step.

    Returns:
      The fields of `Minutes` down to `turned`, and the seconds spent on decisions, all
      with a leading axis `[B]`.
    """
    count = len(games)
    shown = [game.reset(seed=s)[0] for game, s in zip(games, seeds, strict=True)]
    player.reset(seeds=seeds)
    kills, deaths, decisions, tics = np.zeros((4, count), int)
    turned = np.zeros((count, minute, 2), np.float32)
    thinking = 0.0
    began = time.perf_counter()
    while tics.min() < minute:
        asked = time.perf_counter()
        actions = player(np.stack(shown).reshape(count, -1))
        thinking += time.perf_counter() - asked
        decisions += 1
        died = np.zeros(count, bool)
        for i, game in enumerate(games):
            for late in range(cost, 0, -1):
                # In turn all games of a wave have the same number of tics.
                if tics[i] >= minute:
                    break
                action = actions[i] if late == 1 and not died[i] else doom.IDLE
                shown[i], reward, dead, _, info = game.step(action)
                kills[i] += round(float(reward))
                # An action moves the mouse in one tic, however many pass live.
                turned[i, tics[i]] = doom.STEP * action[:2]
                tics[i] += info["tics"]
                if dead:
                    shown[i], died[i] = game.reset()[0], True
                    deaths[i] += 1
        if died.any():
            player.reset(died)
    seconds = np.full(count, time.perf_counter() - began)
    return kills, deaths, decisions, tics, seconds, turned, np.full(count, thinking)
