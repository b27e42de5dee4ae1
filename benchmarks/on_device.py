"""Time whole episodes in one program beside the same episodes in MuJoCo.

    python -m benchmarks.on_device RUN [--batches 1 64 1024 4096] [--limit 20]

RUN is a run of a maze. Three things are timed, each at several numbers of episodes side
by side:

- `physics`: random pushes and no policy. `MuJoCo` is its bare step in a Python loop,
  `Gymnasium` the environment that policies are scored in; both go one ball at a time.
- `as trained`: the run as it acts by default.
- `8 steps`: the same run following one plan of fixed horizon, made in 8 denoising steps
  and never renewed.

`on device` is `jaxdiff.simulation`, policy and physics in one program. `MuJoCo` is a
compiled policy that acts in all environments at once, which are then stepped one by
one. The two play the same starts and goals with the same noise, by turns. Compilation
and the making of environments are not counted. Metrics:

- steps_per_second: median over calls, a call being one wave of whole episodes;
- return: mean over the episodes of one wave;
- return_difference: mean over episodes of the absolute difference of the two returns.

A batch whose call would take longer than the limit is left out, judged by the smaller
batch before it unless that is 1, which costs as many calls from Python as any. On a CPU
the process keeps to one core (`--cores`) and seconds are those of the processor, which
other load disturbs least; elsewhere they are wall-clock.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.command import command_of, run_command
from benchmarks.figures import plot_rates
from benchmarks.playing import clock
from benchmarks.rows import RESULTS, measured, read_rows, write_rows
from jaxdiff import figures
from jaxdiff.errors import UserError
from jaxdiff.evaluation import environment_of, options_of
from jaxdiff.rollouts import joined, play_wave
from jaxdiff.run import Run, load_run
from jaxdiff.simulation import Simulated, simulate
from jaxdiff.tasks.pointmaze import TASK
from jaxdiff.tasks.pointmaze.dynamics import simulate as simulator_of
from jaxdiff.tasks.pointmaze.dynamics import step
from jaxdiff.tasks.pointmaze.environment import make_maze, reset_options
from jaxdiff.tasks.pointmaze.question import run_maze
from jaxdiff.tasks.pointmaze.scores import MazeOptions
from jaxdiff.tasks.pointmaze.world import Maze, free_table
from jaxdiff.tasks.pointmaze.world import environment_of as environment_of_map

LENGTH = 300  # steps of physics in one call

WAYS: dict[str, dict[str, Any]] = {
    "as trained": {},
    "8 steps": {"choose": "fixed", "candidates": 1, "sampling_steps": 8, "lost": 0.0},
}
KINDS = ("physics", *WAYS)


@dataclasses.dataclass(frozen=True)
class Options:
    """Time episodes on a device beside MuJoCo's."""

    run: tyro.conf.Positional[Path]
    """A run of a maze."""
    batches: tuple[int, ...] = (1, 64, 1_024, 4_096)
    """Episodes side by side."""
    kinds: tuple[str, ...] = KINDS
    """What to time: physics, "as trained", "8 steps"."""
    limit: float = 20.0
    """Seconds that a call may take."""
    budget: float = 5.0
    """Seconds for each row; at least one call is timed."""
    cores: int = 1
    """Processor cores to use."""
    seed: int = 1_000
    """Seed of the first episode."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Time, write the rows and draw them.

    Raises:
      UserError: the run is of no maze, or an option cannot be used.
    """
    unknown = [kind for kind in options.kinds if kind not in KINDS]
    if unknown:
        raise UserError(f"`kinds` has {unknown[0]!r}; choose among {', '.join(KINDS)}")
    if not options.batches or min(options.batches) < 1:
        raise UserError("`batches` must name numbers of at least 1")
    if options.limit <= 0 or options.budget <= 0 or options.cores < 1:
        raise UserError("`limit`, `budget` and `cores` must be above 0")
    if hasattr(os, "sched_setaffinity"):  # XLA's pool is as large as the affinity
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    maze = run_maze(load_run(options.run))
    print("load average:", *(f"{load:.2f}" for load in os.getloadavg()), flush=True)
    command = command_of("on_device", options)
    for kind in options.kinds:
        found = (
            closed_loop(load_run(options.run, overrides=WAYS[kind]), options)
            if kind in WAYS
            else physics(maze, options)
        )
        for batch, row in found:
            setting = f"{maze.name}, {kind}, batch = {batch}"
            rows = [{"setting": setting, "seeds": 1, **row}]
            write_rows("on-device", rows, command=command, directory=directory)
            print(
                f"{setting:32s} {row['method']:10s} {row['metric']:18s} "
                f"{row['value']:12,.2f}",
                flush=True,
            )
            # All rows that are stored, those of other runs of this command too.
            drawn = plot_rates(read_rows("on-device", directory))
            figures.save(drawn, directory / "figures" / "on-device.png")


# Episodes side by side, and a row without its setting.
Found = Iterator[tuple[int, dict[str, Any]]]


def physics(maze: Maze, options: Options) -> Found:
    """Time steps of random pushes, of many balls at once and of MuJoCo's one."""
    env = make_maze(maze, max_episode_steps=LENGTH)
    for name, push in {"MuJoCo": _bare, "Gymnasium": _wrapped}.items():
        actions = _pushes(1)[:, 0]

        def call(push: Any = push, actions: Any = actions) -> None:
            env.reset(seed=options.seed)
            push(env, actions)

        yield 1, _rate(name, LENGTH, _timed(call, options.budget))
    env.close()
    walls = jnp.asarray(~free_table(maze))

    @jax.jit
    def pushed(states: Any, actions: Any) -> Any:
        many = jax.vmap(step, (None, 0, 0))
        return jax.lax.scan(lambda s, a: (many(walls, s, a), None), states, actions)[0]

    simulator = simulator_of(environment_of_map(maze), MazeOptions())
    for batch in options.batches:
        states, _ = simulator.reset(range(options.seed, options.seed + batch))
        arguments = jax.device_put((states, _pushes(batch)))
        jax.block_until_ready(pushed(*arguments))
        calls = _timed(
            lambda arguments=arguments: jax.block_until_ready(pushed(*arguments)),
            options.budget,
        )
        yield batch, _rate("on device", batch * LENGTH, calls)


def _pushes(batch: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (LENGTH, batch, 2)).astype(np.float32)


def _bare(env: Any, actions: np.ndarray) -> None:
    """Step the simulator itself, as the environment does without its forces twice."""
    import mujoco

    physics: Any = mujoco
    model, data = env.unwrapped.model, env.unwrapped.data
    for action in actions:
        np.clip(data.qvel, -5.0, 5.0, out=data.qvel)
        data.ctrl[:] = action
        physics.mj_step(model, data)


def _wrapped(env: Any, actions: np.ndarray) -> None:
    for action in actions:
        env.step(action)


def closed_loop(run: Run, options: Options) -> Found:
    """Time a run on a device and in MuJoCo, by turns."""
    spent = {"on device": 0.0, "MuJoCo": 0.0}  # seconds an episode, of the last batch
    for batch in sorted(options.batches):
        methods = {"on device": _on_device, "MuJoCo": _in_mujoco}
        for name in list(methods):
            if spent[name] * batch > options.limit:
                print(f"left out: {name}, batch {batch}; see --limit", flush=True)
                del methods[name]
        played: dict[str, Simulated] = {}
        calls: dict[str, list[float]] = {name: [] for name in methods}
        players = {name: make(run, batch, options) for name, make in methods.items()}
        while methods and min(map(sum, calls.values())) < options.budget:
            for name, play in players.items():
                played[name] = play()
                calls[name].append(played[name].seconds)
        for name, one in played.items():
            if batch > 1:
                spent[name] = float(np.median(calls[name])) / batch
            yield batch, _rate(name, int(one.lengths.sum()), calls[name])
            returns = measured(one.returns)
            yield batch, {"method": name, "metric": "return", **returns}
        if len(played) == 2:
            apart = np.abs(played["on device"].returns - played["MuJoCo"].returns)
            row = {"method": "on device", "metric": "return_difference"}
            yield batch, {**row, **measured(apart)}


def _on_device(run: Run, batch: int, options: Options) -> Callable[[], Simulated]:
    """Return what plays a wave in one program."""
    simulator = simulator_of(environment_of(run), options_of(TASK, run))
    return lambda: simulate(
        run, simulator, episodes=batch, num_envs=batch, seed=options.seed,
        clock=clock,
    )  # fmt: skip


def _in_mujoco(run: Run, batch: int, options: Options) -> Callable[[], Simulated]:
    """Return what plays a wave in MuJoCo; environments and program are made now."""
    environment, asked = environment_of(run), options_of(TASK, run)
    resets = reset_options(run_maze(run), asked.setting or "multi")
    envs = [TASK.make_env(environment, asked) for _ in range(batch)]
    seeds = list(range(options.seed, options.seed + batch))
    policy = run.policy(batch, seeds=seeds)
    policy.warmup()

    def play() -> Simulated:
        policy.reset(seeds=seeds)
        began = clock()
        episodes = [one for _, one in play_wave(policy, envs, seeds, options=resets)]
        seconds = clock() - began
        return Simulated(**vars(joined(episodes)), seconds=seconds)

    return play


def _timed(call: Callable[[], Any], budget: float) -> list[float]:
    """Return the seconds of each call, until they reach the budget."""
    call()
    calls: list[float] = []
    while sum(calls) < budget:
        began = clock()
        call()
        calls.append(clock() - began)
    return calls


def _rate(method: str, steps: int, calls: list[float]) -> dict[str, Any]:
    rates = steps / np.array(calls)
    timed = measured(rates, statistic=np.median)
    return {"method": method, "metric": "steps_per_second", **timed}


if __name__ == "__main__":
    run_command(main, Options)
