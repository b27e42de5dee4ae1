"""Closed-loop play in one program: the policy and what it acts in, on one device.

A task that knows its environment as a pure function (`Task.simulate`) lets a policy act
and the world answer inside one `lax.scan`, without a step on the host. Starts and goals
are those of the environment itself, and noise comes from the same keys as in
`jaxdiff.policy`. Episode by episode it is therefore what `jaxdiff.rollouts` plays, as
far as the simulator agrees with the environment.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.compilation import compiling
from jaxdiff.devices import Device, share, split_batch
from jaxdiff.errors import require_at_least
from jaxdiff.policy import noise_keys
from jaxdiff.progress import progress
from jaxdiff.rollouts import Episode, Failure, Rollouts, joined
from jaxdiff.run import Run


class Simulator(NamedTuple):
    """An environment as a pure function, whose states are what policies see.

    Attributes:
      reset: `(seeds of B episodes) -> (states [B, O], goals [B, G] or None)`, float32,
        called on the host. They are those that the environment draws.
      step: `(world, state [O], goal [G], action [A]) -> (state, reward [], success [])`
        of one episode, in JAX. It bounds actions as the environment does. One function
        of a module for all worlds, so that another world compiles nothing.
      world: arrays that steps read.
      length: steps of every episode.
    """

    reset: Callable[[Sequence[int]], tuple[np.ndarray, np.ndarray | None]]
    step: Callable[..., tuple[jax.Array, jax.Array, jax.Array]]
    world: Any
    length: int


@dataclasses.dataclass(frozen=True)
class Simulated(Rollouts):
    """Episodes that were played in a simulator.

    Attributes:
      seconds: that playing them took; resets and compilation are left out.
    """

    seconds: float


def simulate(
    run: Run,
    simulator: Simulator,
    *,
    episodes: int,
    num_envs: int = 100,
    seed: int = 0,
    devices: Sequence[Device] | None = None,
    guidance: Any = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Simulated:
    """Play episodes in a simulator, many side by side in one program.

    Args:
      run: a trained planner or policy.
      simulator: of its task.
      episodes: how many; episode `i` has the seed `seed + i`.
      num_envs: episodes side by side.
      seed: of the first episode, and of the policy's noise in it.
      devices: episodes are split over as many of them as divide `num_envs`; by default
        one.
      guidance: arrays that take the place of acting options.
      clock: what `seconds` are read from.

    Raises:
      UserError: a count is too small, or no episode stayed finite.
    """
    require_at_least(1, episodes=episodes, num_envs=num_envs)
    count = min(num_envs, episodes)
    devices = list(devices) if devices is not None else jax.devices()[:1]
    devices = devices[: math.gcd(len(devices), count)]
    seeds = np.arange(seed, seed + episodes, dtype=np.uint32)
    start, goal = simulator.reset(seeds.tolist())
    told = goal if run.spec.goal_dim else None
    memory = split_batch(run.algorithm.init_carry(count), devices)
    held = share((dict(run.states), guidance, simulator.world), devices)

    def placed(first: int) -> tuple[Any, ...]:
        # A place without an episode of its own repeats the last one in vain.
        rows = np.minimum(np.arange(first, first + count), episodes - 1)
        wave = jax.tree.map(lambda x: x[rows], (seeds, start, goal, told))
        return *held, memory, *split_batch(wave, devices)

    program = _program(run.algorithm.act, simulator.step, simulator.length)
    with compiling(f"whole episodes, batch {count}"):
        compiled = program.lower(*placed(0)).compile()
    played: list[Episode | Failure] = []
    seconds = 0.0
    with progress(episodes, run.name, unit="episode") as bar:
        for first in range(0, episodes, count):
            arguments = placed(first)
            began = clock()
            seen, rewards, successes, plans = jax.device_get(compiled(*arguments))
            seconds += clock() - began
            for i, row in enumerate(range(first, min(first + count, episodes))):
                path = np.concatenate([start[None, row], seen[:, i]])
                episode = Episode(
                    seed=int(seeds[row]),
                    total=float(rewards[:, i].sum(dtype=np.float64)),
                    peak=float(rewards[:, i].max()),
                    success=bool(successes[:, i].any()),
                    observations=path,
                    goal=None if goal is None else goal[row],
                    plan=None if plans is None else plans[i],
                )
                played.append(_checked(episode))
            bar(min(count, episodes - first))
    return Simulated(**vars(joined(played)), seconds=seconds)


def _checked(episode: Episode) -> Episode | Failure:
    """Find the first step of an episode after which a number is not finite."""
    lost = np.flatnonzero(~np.isfinite(episode.observations).all(axis=1))
    if not lost.size and math.isfinite(episode.total):
        return episode
    step = lost[0] if lost.size else len(episode.observations) - 1
    return Failure(episode.seed, f"step {step}: the simulation was not finite")


@functools.lru_cache(maxsize=8)  # programs are large, so the oldest may go
def _program(
    act: Callable[..., Any], step: Callable[..., Any], length: int
) -> Callable[..., Any]:
    """Build the program that plays B episodes from their starts.

    It maps states of learners, guidance, the world, what acting remembers, seeds `[B]`,
    states `[B, O]`, goals `[B, G]` or None, and the goals that the policy is told, to
    states `[T, B, O]`, rewards `[T, B]`, successes `[T, B]` and the first plans
    `[B, H, A + O]` or None.
    """

    @jax.jit
    def play(learners, guidance, world, memory, seeds, state, goal, told):
        steps = jax.vmap(step, (None, 0, 0, 0))

        def acted(memory, state, t):
            return act(
                learners, memory, noise_keys(seeds, jnp.full_like(seeds, t)), state,
                jnp.full(len(seeds), t == 0), goal=told, guidance=guidance,
            )  # fmt: skip

        def advance(loop, t):
            state, memory, first = loop
            output, memory = acted(memory, state, t)
            first = jax.tree.map(
                lambda old, new: jnp.where(t == 0, new, old), first, output.plan
            )
            state, reward, success = steps(world, state, goal, output.action)
            return (state, memory, first), (state, reward, success)

        shapes = jax.eval_shape(acted, memory, state, jnp.int32(0))[0].plan
        first = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (_, _, first), path = jax.lax.scan(
            advance, (state, memory, first), jnp.arange(length)
        )
        return *path, first

    return play
