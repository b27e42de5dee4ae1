"""What an action costs: SRPO's actor beside the diffusion model that it learned from.

    python -m benchmarks.action_sampling RUN [--batches 1 256 1024]

RUN is a run of SRPO (`jaxdiff train srpo`). Its policy acts by one call of a small
network. The same run holds a diffusion model of the behaviour and a critic, which act
by best-of-n: draw N actions in K denoising steps each (DDIM, all candidates of a batch
in one program) and take the one that the critic prefers, as IDQL and SfBC do. Rows of
`action-sampling`, for each batch of observations:

- actions_per_second: from observations on the host to actions on the host, one call
  after another;
- times_slower: seconds of a call over those of SRPO's in the neighbouring block;
- score and return: of that policy in the run's environment, the same in each setting;
  speed without them says nothing.

All policies of a setting are compiled first, which `seconds` counts with the first
call, and then timed by turns. Values are medians over blocks with bootstrap intervals.
Cells of more than `--largest` rows times steps through the network are left out, and
named. Run nothing else on the machine.
"""

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.command import command_of, run_command
from benchmarks.playing import play_run
from benchmarks.rows import RESULTS, measured, write_rows
from jaxdiff.algorithms.offline.behaviour import (
    flow_steps,
    sample_actions,
    score_network,
)
from jaxdiff.algorithms.offline.best_of_n import BestOfN, best_of_n
from jaxdiff.algorithms.offline.common import make_prepare
from jaxdiff.algorithms.offline.critic import critic_of
from jaxdiff.diffusion import ddim
from jaxdiff.errors import UserError
from jaxdiff.policy import Policy
from jaxdiff.run import Run, load_run

BLOCK_SECONDS = 0.2
ACTOR = "SRPO"


@dataclasses.dataclass(frozen=True)
class Options:
    """Time SRPO's actions beside those of diffusion policies."""

    run: tyro.conf.Positional[Path]
    """A run of SRPO."""
    steps: tuple[int, ...] = (5, 15, 100)
    """Number K of denoising steps."""
    candidates: tuple[int, ...] = (1, 64)
    """Number N of actions that the critic chooses from."""
    batches: tuple[int, ...] = (1, 256, 1_024)
    """Observations acted on at once."""
    budget: float = 2.0
    """Seconds for each policy and batch."""
    largest: int = 400_000
    """Largest product of batch, N and K; larger cells are left out."""
    episodes: int = 20
    """Episodes of each policy; 0 leaves scores out."""
    seed: int = 1_000
    """Seed of the first episode."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Play, time and write the rows, batch by batch.

    Raises:
      UserError: the run is not of SRPO, or a number below its least.
    """
    run = load_run(options.run)
    if run.name != "srpo":
        raise UserError(
            f"{options.run} is a run of {run.name}; give this benchmark one of srpo, "
            "which holds an actor, a diffusion model and a critic"
        )
    _check(options)
    print("load average:", *(f"{load:.2f}" for load in os.getloadavg()), flush=True)
    policies = dict(_policies(run, options))
    quality = {
        name: _quality(policy, options) for name, (policy, _) in policies.items()
    }
    for batch in options.batches:
        fitting = {}
        for name, (policy, cost) in policies.items():
            if batch * cost > options.largest:
                print(f"left out: {name}, batch {batch}; see --largest", flush=True)
            else:
                fitting[name] = policy
        rows = [
            {"setting": f"batch {batch}", **row}
            for row in _timed(fitting, batch, options, quality)
        ]
        command = command_of("action_sampling", options)
        write_rows("action-sampling", rows, command=command, directory=directory)
        for row in rows:
            print(
                f"{row['setting']:12s} {row['method']:36s} {row['metric']:20s} "
                f"{row['value']:12.4g}",
                flush=True,
            )


def _check(options: Options) -> None:
    for name in ("steps", "candidates", "batches"):
        if not getattr(options, name) or min(getattr(options, name)) < 1:
            raise UserError(f"`{name}` must name numbers of at least 1")
    if options.budget <= 0 or options.episodes < 0:
        raise UserError("`budget` must be above 0, and `episodes` not below it")


def _policies(run: Run, options: Options) -> Iterator[tuple[str, tuple[Run, int]]]:
    """Yield each policy as a run that acts so, and what it costs, N times K."""
    yield ACTOR, (run, 1)
    for count in options.steps:
        for candidates in options.candidates:
            name = f"diffusion, {count} steps, {candidates} candidates"
            yield name, (diffusing(run, count, candidates), count * candidates)


def diffusing(run: Run, count: int, candidates: int) -> Run:
    """Let a run of SRPO act by its diffusion model and critic.

    Args:
      run: of SRPO.
      count: K, denoising steps.
      candidates: N; the critic takes the best.
    """
    action_dim = run.spec.action_dim
    score = score_network(run.config, action_dim)
    q, _, _ = critic_of(run.config, make_prepare(run.config, run.statistics))
    steps = flow_steps(count, solver=ddim)

    def draw(states, keys, inputs, options):
        del options
        params = states["behaviour"].slow["ema"]
        return sample_actions(
            keys, score, params, inputs, steps, action_dim=action_dim, clip=1.0
        )

    def value(states, inputs, actions, options):
        del options
        return q.apply(states["critic"].slow["target"], inputs, actions).min(0)

    acting = BestOfN(candidates=candidates)
    act = best_of_n(draw, value, run.statistics, acting)
    return run._replace(algorithm=run.algorithm._replace(act=act))


def _quality(run: Run, options: Options) -> list[dict[str, Any]]:
    """Play a policy: rows without setting and method."""
    if not options.episodes:
        return []
    return play_run(run, options)[1]


def _timed(
    policies: dict[str, Run],
    batch: int,
    options: Options,
    quality: dict[str, list[dict[str, Any]]],
) -> Iterator[dict[str, Any]]:
    """Time policies by turns; yield their rows, those of quality too."""
    acts = {name: run.policy(batch) for name, run in policies.items()}
    first = {name: _seconds(act, 1) for name, act in acts.items()}
    counts = {
        name: max(1, round(BLOCK_SECONDS / _seconds(act, 1)))
        for name, act in acts.items()
    }
    calls: dict[str, list[float]] = {name: [] for name in acts}
    while min(sum(values) * counts[name] for name, values in calls.items()) < (
        options.budget
    ):
        for name, act in acts.items():
            calls[name].append(_seconds(act, counts[name]) / counts[name])
    for name, values in calls.items():
        timed = {"actions_per_second": batch / np.array(values)}
        if name != ACTOR:
            timed["times_slower"] = np.divide(values, calls[ACTOR])
        for metric, numbers in timed.items():
            yield {
                "method": name,
                "metric": metric,
                **measured(numbers, statistic=np.median),
                "seeds": 1,
                "seconds": round(first[name], 2),
            }
        yield from ({"method": name, **row} for row in quality[name])


def _seconds(policy: Policy, count: int) -> float:
    """Time some calls, with other observations each."""
    sizes = policy.spec.observation_dim, policy.spec.goal_dim
    rng, batch = np.random.default_rng(0), (16, policy.num_envs)
    seen, goals = (rng.normal(size=(*batch, n)).astype(np.float32) for n in sizes)
    start = time.perf_counter()
    for call in range(count):
        policy(seen[call % 16], goals[call % 16] if sizes[1] else None)
    return time.perf_counter() - start


if __name__ == "__main__":
    run_command(main, Options)
