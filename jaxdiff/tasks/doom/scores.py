"""Scores at Doom: kills, and how often a policy decides while the game goes on.

Ten minutes are ten games of a minute, each from a full room. Who dies begins again in
a full room, and the minute goes on: that is counted as a death and costs nothing else.
The pistol never runs out. A decision that takes L seconds costs tics of the game, 35 a
second, in one of two ways:

(1) in turn: the game waits, and the action of a decision comes n = ceil(35 L) tics
    after the picture that it was made from, at least one; until then nothing is done.
    L is given, or the median of what is measured beforehand, so that two computers of
    one L play the same games;
(2) live: the game does not wait. What is missed is missed, and nothing can be repeated.

In turn there are 35 / n decisions a second; live they are counted by the clock.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np

from jaxdiff.devices import Device
from jaxdiff.errors import UserError
from jaxdiff.progress import progress
from jaxdiff.rollouts import Policy, agent
from jaxdiff.run import Run
from jaxdiff.scoring import bootstrap, reference_scores
from jaxdiff.tasks.doom import world as doom
from jaxdiff.tasks.metrics import matched_wasserstein, window_sums

_MOST_ENVS = 8
_TIMED = 30  # decisions that L is the median of

# (games, seed) -> acts in all of them
MakePolicy = Callable[[list[gymnasium.Env], int], Policy]


@dataclasses.dataclass(frozen=True)
class Minutes:
    """N minutes of play.

    Attributes:
      kills: `[N]`.
      deaths: `[N]`.
      decisions: `[N]`.
      tics: `[N]`, of the game.
      seconds: `[N]`, by the clock; minutes that are played side by side share theirs.
      turned: float32 `[N, T, 2]`, degrees to the right and down in each tic.
      thinking: seconds that a decision took, on average.
    """

    kills: np.ndarray
    deaths: np.ndarray
    decisions: np.ndarray
    tics: np.ndarray
    seconds: np.ndarray
    turned: np.ndarray
    thinking: float


def is_doom(run: Run) -> bool:
    """Tell whether a run's dataset is of Doom."""
    return _block(run) is not None


def evaluate_doom(
    run: Run,
    *,
    episodes: int = 10,
    seed: int = 0,
    num_envs: int = 8,
    devices: Sequence[Device] | None = None,
    latency: float | None = None,
    live: bool = False,
) -> tuple[dict[str, Any], Minutes]:
    """Play minutes of Doom with a run and count kills.

    Args:
      run: a trained policy.
      episodes: minutes.
      seed: of the first.
      num_envs: games side by side, at most 8, each a process; live there is one.
      devices: the batch of games is split over them.
      latency: L of equation (1), seconds; measured by default.
      live: play as in (2) instead.

    Returns:
      A record of the scores, and the minutes. Its score is 0 for acting at random and
      100 for the demonstrator, who both have all the time in the world.

    Raises:
      UserError: the run's dataset is not of Doom, ViZDoom is not installed, a latency
        for live play, or numbers below their least.
    """
    block = _block(run)
    if block is None:
        raise UserError(
            f"{run.path} was trained on {run.document['dataset']['name']}, which is "
            "not Doom; give this command a run of the recipe doom"
        )

    def policy(envs: list[gymnasium.Env], seed: int) -> Policy:
        return agent(
            run.algorithm, run.states, num_envs=len(envs), seed=seed, devices=devices
        )

    started = time.monotonic()
    if latency is None and not live:
        latency = measure_latency(policy, block)
    played = play_minutes(
        policy, block, minutes=episodes, seed=seed, num_envs=num_envs, live=live,
        latency=latency, label=run.name,
    )  # fmt: skip
    references = run.document["dataset"]["references"]
    record = {
        "setting": run.document["dataset"]["name"],
        "episodes": episodes,
        "live": live,
        **_score(played, references),
        **rates(played, latency),
        "seconds": time.monotonic() - started,
    }
    return record, played


def rates(played: Minutes, latency: float | None) -> dict[str, Any]:
    """Give kills and deaths in ten minutes, and what decisions took.

    Args:
      played: N minutes.
      latency: of equation (1); None if they were played live.
    """
    low, high = bootstrap(10 * played.kills)
    a_second = played.decisions / played.seconds
    if latency is not None:
        a_second = doom.TICS * played.decisions / played.tics
    return {
        "kills_per_10min": 10 * float(played.kills.mean()),
        "kills_interval": (low, high),
        "deaths_per_10min": 10 * float(played.deaths.mean()),
        "decisions_per_second": float(a_second.mean()),
        "tics_per_decision": float(played.tics.sum() / played.decisions.sum()),
        "latency": played.thinking if latency is None else latency,
    }


def turn_distances(
    played: Minutes, reference: Minutes, lengths: Sequence[int] = (2, 35, 70)
) -> dict[str, float]:
    """Compare turns within windows of time with another player's.

    Args:
      played: of a policy.
      reference: of the demonstrator.
      lengths: of the windows, tics; these are a moment, one and two seconds.

    Returns:
      "action_w_N" for each N of `lengths`: the distance W1 of the sums of turns in all
      windows of N tics, degrees; see `jaxdiff.tasks.metrics.matched_wasserstein`.
    """
    return {
        f"action_w_{length}": matched_wasserstein(
            window_sums(played.turned, length), window_sums(reference.turned, length)
        )
        for length in lengths
    }


def measure_latency(make_policy: MakePolicy, block: doom.Block) -> float:
    """Time decisions of one game, compiled beforehand: the median, seconds."""
    env = doom.make_env(block)
    shown = env.reset(seed=0)[0].reshape(1, -1)
    policy, seconds = make_policy([env], 0), []
    policy(shown, None, np.ones(1, bool))
    for _ in range(_TIMED):
        started = time.perf_counter()
        policy(shown, None, np.zeros(1, bool))
        seconds.append(time.perf_counter() - started)
    env.close()
    return float(np.median(seconds))


def delay(latency: float) -> int:
    """Give n of equation (1), the tics that a decision costs."""
    # What floating point makes of a whole number of tics is no more than that.
    return max(1, math.ceil(doom.TICS * latency - 1e-9))


def play_minutes(
    make_policy: MakePolicy,
    block: doom.Block,
    *,
    minutes: int,
    seed: int = 0,
    num_envs: int = 8,
    latency: float | None = 0.0,
    live: bool = False,
    labels: bool = False,
    tics: int = doom.HORIZON,
    label: str = "evaluate",
) -> Minutes:
    """Play minutes of Doom, equation (1), or (2) if `live`.

    Minute i begins with seed `seed + i`, so that all policies meet the same rooms.

    Args:
      make_policy: called once a wave of games, with the seed of its first.
      block: of the pictures, see `jaxdiff.tasks.doom.world.shrink`.
      minutes: N.
      seed: of the first.
      num_envs: games side by side, at most 8; live there is one.
      latency: L, seconds; None if live.
      live: whether the game waits for nobody.
      labels: of the environments, for the demonstrator.
      tics: of a minute, if it is to be a shorter one.
      label: shown beside the progress bar.
    """
    for flag, count in (("--episodes", minutes), ("--num-envs", num_envs)):
        if count < 1:
            raise UserError(f"{flag} is {count}; it must be at least 1")
    if live and latency is not None:
        raise UserError(
            "live play takes as long as it takes; leave out --latency, or play in turn"
        )
    if latency is not None and not 0 <= latency < tics / doom.TICS:
        raise UserError(
            f"--latency is {latency}; it must be a number of seconds, at least 0"
        )
    count = 1 if live else min(num_envs, minutes, _MOST_ENVS)
    envs = [
        doom.make_env(block, asynchronous=live, labels=labels) for _ in range(count)
    ]
    cost = 1 if latency is None else delay(latency)
    waves = []
    with progress(minutes, label, unit="minute") as bar:
        for first in range(0, minutes, count):
            seeds = [seed + first + i for i in range(count)]
            policy = make_policy(envs, seeds[0])
            _warm_up(policy, envs)
            left = min(count, minutes - first)
            waves.append([row[:left] for row in _wave(policy, envs, seeds, cost, tics)])
            bar(left)
    for env in envs:
        env.close()
    kills, deaths, decisions, passed, seconds, turned, thinking = map(
        np.concatenate, zip(*waves, strict=True)
    )
    spent = float(thinking.sum() / decisions.sum())
    return Minutes(kills, deaths, decisions, passed, seconds, turned, spent)


def _warm_up(policy: Policy, envs: list[gymnasium.Env]) -> None:
    """Let a policy compile before the clock runs; a reset makes it forget this."""
    shape = envs[0].observation_space.shape or ()
    nothing = np.zeros((len(envs), math.prod(shape)), np.uint8)
    policy(nothing, None, np.ones(len(envs), bool))


def _wave(
    policy: Policy,
    envs: list[gymnasium.Env],
    seeds: Sequence[int],
    cost: int,
    minute: int,
) -> tuple[np.ndarray, ...]:
    """Play one minute in every game, in lock-step: the fields of `Minutes`, `[B]`."""
    count = len(envs)
    shown = [env.reset(seed=s)[0] for env, s in zip(envs, seeds, strict=True)]
    kills, deaths, decisions, tics = np.zeros((4, count), int)
    turned = np.zeros((count, minute, 2), np.float32)
    thinking, reset = 0.0, np.ones(count, bool)
    began = time.perf_counter()
    while tics.min() < minute:
        asked = time.perf_counter()
        seen = np.stack(shown).reshape(count, -1)
        actions, _ = policy(seen, None, reset)
        thinking += time.perf_counter() - asked
        decisions += 1
        reset = np.zeros(count, bool)
        for i, env in enumerate(envs):
            for late in range(cost, 0, -1):
                # Of the games of a wave all have as many tics, for none is live.
                if tics[i] >= minute:
                    break
                action = actions[i] if late == 1 and not reset[i] else doom.IDLE
                shown[i], reward, dead, _, info = env.step(action)
                kills[i] += round(float(reward))
                # An action moves the mouse in one tic, whatever others pass live.
                turned[i, tics[i]] = doom.STEP * action[:2]
                tics[i] += info["tics"]
                if dead:
                    shown[i], reset[i] = env.reset()[0], True
                    deaths[i] += 1
    seconds = np.full(count, time.perf_counter() - began)
    thought = np.full(count, thinking)
    return kills, deaths, decisions, tics, seconds, turned, thought


def demonstrator(envs: list[gymnasium.Env], seed: int) -> Policy:
    """Make the demonstrator act in environments with labels."""
    rng = np.random.default_rng(seed)
    states = [doom.DemonstratorState() for _ in envs]

    def policy(observation, goal, reset):
        actions = []
        for i, env in enumerate(envs):
            before = doom.DemonstratorState() if reset[i] else states[i]
            game: Any = env.unwrapped
            action, states[i] = doom.demonstrate(
                before, game.monsters(), game.pitch(), rng
            )
            actions.append(action)
        return np.stack(actions), None

    return policy


def at_random(envs: list[gymnasium.Env], seed: int) -> Policy:
    """Act at random: uniform actions."""
    rng = np.random.default_rng(seed)
    return lambda observation, goal, reset: (rng.uniform(-1, 1, (len(envs), 3)), None)


def first_turns(
    make_policy: MakePolicy,
    block: doom.Block,
    *,
    repeats: int,
    seed: int,
    tics: int = doom.TICS,
    labels: bool = False,
) -> np.ndarray:
    """Begin the same game again and again, and measure the first turns.

    Args:
      make_policy: as in `play_minutes`.
      block: of the pictures, see `jaxdiff.tasks.doom.world.shrink`.
      repeats: N.
      seed: of the game, the same for all.
      tics: how long.
      labels: of the environments, for the demonstrator.

    Returns:
      `[N]`, degrees to the right.
    """
    count = min(repeats, _MOST_ENVS)
    envs = [doom.make_env(block, labels=labels) for _ in range(count)]
    found = []
    for first in range(0, repeats, count):
        policy = make_policy(envs, seed + first)
        shown = np.stack([env.reset(seed=seed)[0].ravel() for env in envs])
        turned, reset = np.zeros(count), np.ones(count, bool)
        for _ in range(tics):
            actions, _ = policy(shown, None, reset)
            reset = np.zeros(count, bool)
            turned += doom.STEP * actions[:, 0]
            pairs = zip(envs, actions, strict=True)
            shown = np.stack([env.step(action)[0].ravel() for env, action in pairs])
        found.append(turned)
    for env in envs:
        env.close()
    return np.concatenate(found)[:repeats]


def _block(run: Run) -> doom.Block | None:
    return doom.block_of_environment(run.document["dataset"]["environment"])


def _score(played: Minutes, references: dict[str, float]) -> dict[str, Any]:
    """Put kills on the scale of the dataset's references, kills in a minute."""
    scores = reference_scores(
        references, float(played.kills.mean()), bootstrap(played.kills)
    )
    if not scores:
        return {}
    chance, expert = references["random"], references["expert"]
    return {
        **scores,
        "scale": f"0 is {10 * chance:.0f} kills in 10 minutes and 100 is "
        f"{10 * expert:.0f}, at random and of the demonstrator",
    }
