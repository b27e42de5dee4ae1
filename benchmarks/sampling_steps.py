"""Find the fewest denoising steps that lose nothing, and score them on other episodes.

    python -m benchmarks.sampling_steps RUN [--steps 16 8 6 4] [--episodes 50]

RUN is a trained planner. Its acting options are the reference. A setting is a sampler,
a spacing of the noise levels and a number of steps. A step costs one evaluation of the
network. The command works in three parts:

1. `tuning`: the reference and every setting play the same episodes. Each sampler and
   spacing goes from many steps to few, and is given up once the upper end of its paired
   difference is below `-margin` points. The pick is the setting of the fewest steps
   whose lower end is above `-margin`.
2. `scored`: the pick and the reference play other episodes, which chose nothing.
3. Both act once more, and their policies are timed.

A program takes minutes to compile, so all settings share one: the table of the sampler
is an argument of it, filled up with steps that change nothing. Only what is timed has
no such steps. In mazes `--tuned choose=fixed` compares settings by plans of one
horizon, which compile nine times faster; the pick is still scored as the run acts.

Rows of benchmarks/results/sampling-steps.json:

- score; difference, the mean over episodes of the score minus the reference's, in
  points, with its 95% bootstrap interval;
- in mazes through_walls, the share of first plans with a state in a wall, in percent,
  and dynamics_error, their mean error (see jaxdiff.algorithms.planning.dynamics);
- of settings that are timed in B environments at once, `DATASET, batch = B`:
  decisions_per_second, actions of all environments together; plans_per_second, of the
  calls that plan. The simulator does not count. On a CPU seconds are those of the
  processor, which other load disturbs least; keep the process to one core (`taskset`),
  because threads that wait may count too.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro

from benchmarks.command import command_of, run_command
from benchmarks.methods import parse_overrides
from benchmarks.playing import TimedPolicy, score_rows
from benchmarks.rows import RESULTS, measured, write_rows
from jaxdiff.algorithms.planning.denoiser import noise_levels
from jaxdiff.algorithms.planning.dynamics import dynamics_error
from jaxdiff.bench.subjects import anew
from jaxdiff.data.normalizer import normalize
from jaxdiff.diffusion.sampler import SAMPLERS, Steps
from jaxdiff.diffusion.schedule import SPACINGS, NoiseLevels, Spacing, subgrid
from jaxdiff.errors import UserError, require_at_least
from jaxdiff.evaluation import environment_of, evaluate, options_of
from jaxdiff.rollouts import Rollouts, Session
from jaxdiff.run import Run, load_run
from jaxdiff.tasks.lookup import task_of
from jaxdiff.tasks.pointmaze.scores import MazeRollouts
from jaxdiff.tasks.pointmaze.world import is_free

EXPERIMENT = "sampling-steps"
_GIVEN = "given"  # the sampler whose table is an argument, while a run is built


@dataclasses.dataclass(frozen=True)
class Options:
    """Find the fewest denoising steps of a planner."""

    run: tyro.conf.Positional[Path]
    """A trained planner."""
    samplers: tuple[str, ...] = ("ddpm", "ddim", "dpmpp2m")
    """Samplers."""
    spacings: tuple[Spacing, ...] = SPACINGS
    """Spacings of the noise levels."""
    steps: tuple[int, ...] = (16, 8, 6, 4, 3)
    """Numbers of steps; what the reference takes, and more, is left out."""
    margin: float = 2.0
    """Points that a setting may lose."""
    episodes: int = 50
    """Episodes that settings are compared on."""
    seed: int = 20_000
    """Seed of the first of them."""
    tuned: str = ""
    """Acting options of those, NAME=VALUE, where they differ from the run's."""
    scored: int = 100
    """Other episodes, on which the pick and the reference are scored."""
    scored_seed: int = 1_000
    """Seed of the first of those."""
    num_envs: int = 50
    """Environments side by side."""
    timed: tuple[int, ...] = (1, 50)
    """Numbers of environments to time policies in, an episode in each."""


class Way(NamedTuple):
    """A way to draw plans: sampler, spacing and number of steps."""

    sampler: str
    spacing: Spacing
    steps: int

    def __str__(self) -> str:
        return " ".join(map(str, self))


class Played(NamedTuple):
    """Episodes of one way to draw plans.

    Attributes:
      rollouts: the episodes.
      record: of their score.
      points: of score that one unit of return is worth.
    """

    rollouts: Rollouts
    record: dict[str, Any]
    points: float


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Compare, pick, score, time and write the rows.

    Raises:
      UserError: the run is no planner, its task has no score, there is nothing to
        compare, or episodes would be scored that chose the setting.
    """
    counts = {"episodes": options.episodes, "scored": options.scored}
    require_at_least(1, num_envs=options.num_envs, **counts)
    _require_apart(options)
    own = load_run(options.run)
    reference = way_of(own)
    compared = families(options, reference)
    name, shared = own.dataset["name"], with_table(own)

    tuned, tuning = shared, "tuning"
    if options.tuned:
        tuned = with_table(anew(own, **parse_overrides(options.tuned)))
        tuning = f"tuning, {options.tuned}"

    def play(run: Run, way: Way, episodes: int, seed: int) -> Played:
        table = padded(tabulate(own, way), reference.steps)
        return play_by(run, table, episodes, seed, options.num_envs)

    def write(part: str, way: Way, rows: Iterable[dict[str, Any]]) -> None:
        method = f"{way} (reference)" if way == reference else str(way)
        named = {"setting": f"{name}, {part}", "method": method, "seeds": 1}
        full = [{**named, **row} for row in rows]
        command = command_of("sampling_steps", options)
        write_rows(EXPERIMENT, full, command=command, directory=directory)
        print(f"{name}, {part}, {method}:", *map(_shown, full), sep="\n  ", flush=True)

    first = play(tuned, reference, options.episodes, options.seed)
    write(tuning, reference, rows_of(own, first))
    kept: dict[Way, float] = {}
    for family in compared:
        for way in family:
            found = play(tuned, way, options.episodes, options.seed)
            lost = differences(found, first)
            write(tuning, way, rows_of(own, found, lost))
            difference = measured(lost)
            if difference["low"] > -options.margin:
                kept[way] = difference["value"]
            if difference["high"] < -options.margin:
                break
    if not kept:
        print(f"{name}: every setting may lose {options.margin:g} points", flush=True)
        return
    best = pick(kept)
    print(f"{name}: the pick is {best}", flush=True)
    base = play(shared, reference, options.scored, options.scored_seed)
    write("scored", reference, rows_of(own, base))
    found = play(shared, best, options.scored, options.scored_seed)
    write("scored", best, rows_of(own, found, differences(found, base)))
    for batch in options.timed:
        for way in (reference, best):
            table = tabulate(own, way)
            rows = timed(shared, table, batch, options.scored_seed)
            write(f"batch = {batch}", way, rows)


def way_of(run: Run) -> Way:
    """Return how a run draws its plans.

    Raises:
      UserError: the run is no planner, or starts plans from others.
    """
    if run.algorithm.plan is None or run.acting.warm_start:
        raise UserError(
            f"{run.path} is a run of {run.name} that makes no plans or starts them "
            "from the last ones; give a planner with `warm_start=0`"
        )
    steps = run.acting.sampling_steps or run.config.diffusion_steps
    return Way(run.acting.sampler, run.acting.spacing, steps)


def families(options: Options, reference: Way) -> list[list[Way]]:
    """Return the settings of each sampler and spacing, from many steps to few.

    Raises:
      UserError: an unknown sampler or spacing, or no setting of fewer steps than the
        reference takes.
    """
    for name in options.samplers:
        SAMPLERS.find(name)
    unknown = {*options.spacings} - {*SPACINGS}
    counts = sorted({*options.steps} & {*range(1, reference.steps)}, reverse=True)
    if unknown or not (counts and options.samplers and options.spacings):
        raise UserError(
            f"`steps` is {options.steps} and `spacings` {options.spacings}; give "
            f"numbers from 1 to {reference.steps - 1}, because the run takes "
            f"{reference.steps} steps, and spacings among {', '.join(SPACINGS)}"
        )
    return [
        [Way(sampler, spacing, count) for count in counts]
        for sampler in options.samplers
        for spacing in options.spacings
    ]


def pick(kept: dict[Way, float]) -> Way:
    """Return the setting of the fewest steps, and among equals of the most points.

    Args:
      kept: settings that lose no more than they may, and their differences.
    """
    return min(kept, key=lambda way: (way.steps, -kept[way]))


def tabulate(run: Run, way: Way) -> Steps:
    """Return the table by which a run draws plans in one way."""
    levels = subgrid(noise_levels(run.config), way.steps, spacing=way.spacing)
    return SAMPLERS[way.sampler](levels)


def padded(steps: Steps, length: int) -> Steps:
    """Fill a table up to `length` rows by steps that leave a sample as it is."""
    # Guidance ends above level -1, so that no guide changes the sample either.
    clean = NoiseLevels(time=-1.0, alpha=1.0, sigma=0.0)
    idle = Steps(level=clean, variance=0.0, x=1.0, x0=0.0, x0_prev=0.0, noise=0.0)
    missing = length - len(steps.x)
    return jax.tree.map(
        lambda rows, row: np.append(rows, np.full(missing, row, rows.dtype)),
        steps,
        idle,
    )


def with_table(run: Run) -> Run:
    """Let a run draw plans by the table that it is given as guidance.

    The table is an argument of its programs, so that another one of as many rows
    compiles nothing.
    """
    now: list[Steps] = []  # what a trace that is under way was given
    SAMPLERS[_GIVEN] = lambda levels: now[-1]
    try:
        given = anew(run, sampler=_GIVEN, spacing="even", sampling_steps=None)
    finally:
        del SAMPLERS[_GIVEN]
    algorithm = given.algorithm

    def act(*arguments: Any, goal: Any = None, guidance: Any = None) -> Any:
        now.append(guidance)
        try:
            return algorithm.act(*arguments, goal=goal)
        finally:
            now.pop()

    return run._replace(algorithm=algorithm._replace(act=act))


def play_by(run: Run, table: Steps, episodes: int, seed: int, num_envs: int) -> Played:
    """Play a run of `with_table`, and score it.

    Raises:
      UserError: the task has no score, or its environment is missing.
    """
    record, rollouts = evaluate(
        run, episodes=episodes, seed=seed, num_envs=num_envs, guidance=table
    )
    if "score" not in record:
        raise UserError(
            f"{run.path} was trained on {run.dataset['name']}, whose task has no "
            "score; give a run of a task that tells what a setting may lose"
        )
    task = task_of(environment_of(run))
    more = dataclasses.replace(rollouts, returns=rollouts.returns + 1)
    again = task.score(more, options_of(task, run), run.dataset["references"])
    # A score is linear in returns.
    return Played(rollouts, record, again["score"] - record["score"])


def differences(found: Played, reference: Played) -> np.ndarray:
    """Subtract scores of the episodes `[N]` that both finished, in points."""
    one, other = found.rollouts, reference.rollouts
    assert one.seeds is not None
    assert other.seeds is not None
    _, mine, its = np.intersect1d(one.seeds, other.seeds, return_indices=True)
    return reference.points * (one.returns[mine] - other.returns[its])


def rows_of(
    run: Run, played: Played, lost: np.ndarray | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of episodes.

    Args:
      run: what played them.
      played: the episodes.
      lost: `[N]`, differences to the reference; none of the reference itself.
    """
    rollouts = played.rollouts
    for row in score_rows(played.record, len(rollouts.returns)):
        if row["metric"] == "score":
            yield row
    if lost is not None:
        yield {"metric": "difference", **measured(lost)}
    if isinstance(rollouts, MazeRollouts):
        through, errors = plan_quality(run, rollouts)
        yield {"metric": "through_walls", **measured(100.0 * through)}
        yield {"metric": "dynamics_error", **measured(errors)}


def plan_quality(run: Run, played: MazeRollouts) -> tuple[np.ndarray, np.ndarray]:
    """Judge first plans by themselves.

    Returns:
      bool `[N]`, whether a plan has a state in a wall; and its dynamics error `[N]`.
    """
    assert played.plans is not None
    through = ~is_free(played.maze, played.plans[..., 2:4]).all(axis=-1)
    errors = []
    for plan in played.plans:  # after its arrival a plan repeats its last row
        moving = np.flatnonzero((plan[1:] != plan[:-1]).any(-1))
        rows = plan[: moving[-1] + 2] if len(moving) else plan[:2]
        scaled = normalize(run.statistics.normalizer, rows)
        errors.append(float(dynamics_error(run.statistics.dynamics, scaled)))
    return through, np.array(errors)


def timed(run: Run, table: Steps, num_envs: int, seed: int) -> list[dict[str, Any]]:
    """Play an episode in each of `num_envs` environments, and time the policy.

    Args:
      run: of `with_table`.
      table: by which it draws plans.
      num_envs: environments side by side.
      seed: of the first episode.
    """
    environment = environment_of(run)
    task = task_of(environment)
    calls: list[tuple[float, int]] = []  # seconds, and environments planned for

    def make_policy(count: int, seeds: Sequence[int]) -> TimedPolicy:
        policy = run.policy(count, seeds=seeds, guidance=table)
        policy.warmup()
        return TimedPolicy(policy, calls)

    session = Session(make_policy, num_envs, num_envs, seed, run.name)
    task.play(task, environment, options_of(task, run), session)
    seconds, planned = np.array(calls).T
    plans = int(planned.sum())
    rates = {
        "decisions_per_second": (len(calls) * num_envs, seconds.sum()),
        "plans_per_second": (plans, seconds[planned > 0].sum()),
    }
    return [
        {"metric": metric, "value": float(count / spent), "n": count}
        for metric, (count, spent) in rates.items()
    ]


def _shown(row: dict[str, Any]) -> str:
    interval = f" [{row['low']:.4g}, {row['high']:.4g}]" if "low" in row else ""
    return f"{row['metric']} {row['value']:.4g}{interval}"


def _require_apart(options: Options) -> None:
    """Refuse to score a setting on episodes that chose it.

    Raises:
      UserError: the two ranges of seeds overlap.
    """
    ends = options.seed + options.episodes, options.scored_seed + options.scored
    if options.seed < ends[1] and options.scored_seed < ends[0]:
        raise UserError(
            f"the episodes from `seed` {options.seed} on and from `scored_seed` "
            f"{options.scored_seed} on overlap; choose seeds further apart, because a "
            "setting must not be scored on what chose it"
        )


if __name__ == "__main__":
    run_command(main, Options)
