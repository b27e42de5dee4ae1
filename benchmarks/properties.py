"""Show the properties of planning by Diffuser (Janner et al. 2022, section 4).

    python -m benchmarks.properties RUN [--experiments composition ...]

RUN is a trained run of a maze; the medium and the large one have ways round a region.
The planner makes a plan of a fixed horizon from the start that the simulator gives, and
the tracking controller follows it to its end. When the ball strays half a metre from
its plan, the planner makes a new one for the rest of the task. Rows go to
benchmarks/results/properties.json, a setting an experiment, and pictures to
benchmarks/results/figures. `success` and `violations` are shares of the episodes driven
in MuJoCo, `planned_violations` of the plans.

- long-horizon: the third of all pairs of cells that is furthest apart, and a reward at
  the goal alone.
- variable-length: one network, plans of every declared horizon, between cells whose
  distance the horizon covers, but not by much. Success is to arrive within it.
- composition: a goal, a region to keep out of and a point to pass. A problem is a start
  and a goal whose shortest way on the maze's map leads through a cell that is not
  needed: without it the goal can still be reached. The region is a disc about the
  centre of that cell, so large that the ball has no way past it; the point is the
  middle of the shortest way that is left. Success is to pass within 0.45 m of the point
  and to reach the goal, whatever a method was told. The planner was trained for none of
  these parts.
- stitching: see benchmarks/stitching.py, which trains a model of its own.
- interpolation: two plans of one problem, one of them led another way by a point to
  pass, mixed in noise (Ho et al. 2020, section 4.3); a picture alone.
"""

import collections
import dataclasses
import functools
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.command import command_of, run_command
from benchmarks.rows import RESULTS, measured, write_rows
from benchmarks.stitching import stitch
from jaxdiff import figures
from jaxdiff.algorithms.base import ActOutput
from jaxdiff.algorithms.planning.options import declared_horizons
from jaxdiff.algorithms.planning.planner import Problem as Asked
from jaxdiff.algorithms.planning.receding_horizon import track
from jaxdiff.errors import UserError
from jaxdiff.plans import interpolate, ranking
from jaxdiff.rollouts import Rollouts, Session, rollout
from jaxdiff.run import Run, load_run
from jaxdiff.tasks.pointmaze.environment import make_maze
from jaxdiff.tasks.pointmaze.figures import plot_plans
from jaxdiff.tasks.pointmaze.question import at_rest, detour, run_maze
from jaxdiff.tasks.pointmaze.world import GOAL_RADIUS, Maze, cell_to_xy, free_cells

Cell = tuple[int, int]
Experiment = Literal[
    "long-horizon", "variable-length", "composition", "stitching", "interpolation"
]
STEPS_PER_CELL = 24  # about what the data take
RADIUS = 0.4  # m, of a region; with the ball's radius it spans half a corridor of 1 m
EPISODE_STEPS = 1_000  # time for some plans, each of which takes its whole horizon
LOST = 0.5  # m off a plan, at which a new one is made

# How the problems of a composition are posed: the parts that planning is told of.
METHODS: dict[str, tuple[str, ...]] = {
    "goal only": (),
    "avoid by value": ("value",),
    "avoid by project": ("project",),
    "avoid by both": ("value", "project"),
    "pass": ("via",),
    "pass, avoid by value": ("via", "value"),
    "pass, avoid by both": ("via", "value", "project"),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure the properties of a planner."""

    run: tyro.conf.Positional[Path]
    """Run folder of a maze."""
    experiments: tuple[Experiment, ...] = (
        *("long-horizon", "variable-length", "composition"),
        *("stitching", "interpolation"),
    )
    """Experiments to run."""
    episodes: int = 50
    """Episodes of each method."""
    candidates: int = 8
    """Candidate plans for each problem."""
    seed: int = 1_000
    """Seed of the problems and of the first episode."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is asked for; `avoid` and `via` are (0, 0) where nothing is."""

    start: Cell
    goal: Cell
    avoid: Cell = (0, 0)
    via: Cell = (0, 0)


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Measure, write the rows and draw.

    Raises:
      UserError: no maze run, or a maze without ways round.
    """
    run = load_run(options.run)
    maze = run_maze(run)
    pictures = directory / "figures"
    for experiment in options.experiments:
        rows = {
            "long-horizon": long_horizon,
            "variable-length": variable_length,
            "composition": composition,
            "stitching": lambda _, options, path: stitch(options.seed, path),
            "interpolation": interpolation,
        }[experiment](run, options, pictures / f"{experiment}-{maze.name}.png")
        alone = dataclasses.replace(options, experiments=(experiment,))
        command = command_of("properties", alone)
        rows = [{"setting": experiment, **row} for row in rows]
        if rows:
            write_rows("properties", rows, command=command, directory=directory)
        for row in rows:
            print(*(row[key] for key in ("setting", "method", "metric", "value")))


# --- problems ------------------------------------------------------------------------


def shortest_way(
    maze: Maze, start: Cell, goal: Cell, *, without: Cell | None = None
) -> list[Cell] | None:
    """Find a shortest way of cells, both ends included, or None."""
    free = {(int(row), int(column)) for row, column in free_cells(maze)} - {without}
    queue, before = collections.deque([start]), {start: start}
    while queue:
        row, column = queue.popleft()
        for step in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            cell = (row + step[0], column + step[1])
            if cell in free and cell not in before:
                before[cell] = (row, column)
                queue.append(cell)
    if goal not in before:
        return None
    way = [goal]
    while way[-1] != start:
        way.append(before[way[-1]])
    return way[::-1]


def pairs(maze: Maze) -> list[tuple[int, Problem]]:
    """List all pairs of different cells by the moves of a shortest way."""
    cells = [(int(row), int(column)) for row, column in free_cells(maze)]
    ways = [shortest_way(maze, *ends) for ends in itertools.permutations(cells, 2)]
    found = [(len(way) - 1, Problem(way[0], way[-1])) for way in ways if way]
    return sorted(found, key=lambda each: each[0])


def detours(maze: Maze, *, longest: int) -> list[Problem]:
    """List the problems of a composition that take `longest` moves at most.

    The region is at least two cells away from both ends.
    """
    found = []
    for _, pair in pairs(maze):
        way = shortest_way(maze, pair.start, pair.goal) or []
        for cell in way[2:-2]:
            left = shortest_way(maze, pair.start, pair.goal, without=cell)
            if left and len(left) - 1 <= longest:
                via = left[len(left) // 2]
                found.append(dataclasses.replace(pair, avoid=cell, via=via))
    if not found:
        raise UserError(
            f"the maze {maze.name!r} has no way round any of its cells; give a run of "
            "the medium or the large maze"
        )
    return found


def drawn(problems: Sequence[Problem], options: Options) -> list[Problem]:
    """Draw as many problems as there are episodes."""
    rng = np.random.default_rng(options.seed)
    picks = rng.choice(len(problems), options.episodes)
    return [problems[i] for i in picks]


# --- planning and driving ------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of N problems; the bools are `[N]`."""

    problems: Sequence[Problem]
    rollouts: Rollouts
    reached: np.ndarray
    passed: np.ndarray
    entered: np.ndarray
    planned_entered: np.ndarray


class _Posed(gymnasium.Wrapper):
    """An environment whose every episode poses one problem."""

    def __init__(self, maze: Maze, problem: Problem) -> None:
        super().__init__(make_maze(maze, max_episode_steps=EPISODE_STEPS))
        self._cells = {
            "reset_cell": np.array(problem.start),
            "goal_cell": np.array(problem.goal),
        }

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        del options
        return self.env.reset(seed=seed, options=self._cells)


def compiled(run: Run, horizon: int, parts: Sequence[str], candidates: int) -> Any:
    """Compile `(states, key, observation, goal, avoid, via) -> Plans` of a problem."""

    @jax.jit
    def solve(states, key, observation, goal, avoid, via):
        asked = detour(
            [jnp.append(avoid, RADIUS)] if {"value", "project"} & {*parts} else (),
            [via] if "via" in parts else (),
            by=parts,
        )
        arrays = ("value_args", "value_scale", "project_args")
        problem = Asked(
            history=observation[None, None],
            goal=goal[None],
            **{name: asked.pop(name, None) for name in arrays},
        )
        return run.algorithm.plan(
            states, key[None], problem, horizon=horizon, candidates=candidates, **asked
        )

    return solve


class Driver:
    """Plans once for each problem, follows the plans, and plans anew where it strays.

    Args:
      run: the planner.
      problems: N, one for each environment.
      options: candidates and seed.
      horizon: of the plans.
      parts: what planning is told of, see `METHODS`.
    """

    def __init__(
        self,
        run: Run,
        problems: Sequence[Problem],
        options: Options,
        *,
        horizon: int,
        parts: Sequence[str],
    ) -> None:
        maze, count = run_maze(run), len(problems)
        self._run, self._seed, self._horizon = run, options.seed, horizon
        self._solve = compiled(run, horizon, parts, options.candidates)
        self._avoid = np.float32(cell_to_xy(maze, [each.avoid for each in problems]))
        self._points = np.float32(cell_to_xy(maze, [each.via for each in problems]))
        self._plans = np.zeros((count, horizon, 6), np.float32)
        self._index, self._steps = np.zeros(count, int), itertools.count()
        self._begins = np.ones(count, bool)
        last = jnp.full(count, horizon - 1)
        self._track = jax.jit(functools.partial(_track, run, last))
        self.last: ActOutput | None = None

    def reset(self, mask: Any = None, seeds: Any = None) -> None:
        """Begin; all problems are posed once."""

    def __call__(self, observation: np.ndarray, goal: Any = None) -> np.ndarray:
        """Return actions `[N, 2]` for observations `[N, 4]` and goals `[N, 2]`."""
        observation, goal = np.float32(observation), np.float32(goal)
        step, here = next(self._steps), observation[:, :2]
        # What was passed need not be passed again.
        passed = np.linalg.norm(here - self._points, axis=-1) < GOAL_RADIUS
        self._points[passed] = here[passed]
        row = np.minimum(self._index, self._horizon - 1)
        expected = self._plans[range(len(row)), row, 2:4]
        strayed = np.linalg.norm(here - expected, axis=-1) > LOST
        for i in np.flatnonzero(self._begins | strayed):
            key = jax.random.fold_in(jax.random.key(self._seed + i), step)
            plans = self._solve(
                self._run.states, key, observation[i], goal[i], self._avoid[i],
                self._points[i],
            )  # fmt: skip
            best = ranking(plans, self._run.acting)[0]
            self._plans[i] = plans.trajectories[0, best]
            self._index[i] = 0
        self._begins[:] = False
        action = np.asarray(self._track(self._plans, self._index, observation))
        self._index += 1
        self.last = ActOutput(action=action, plan=self._plans.copy())
        return action


def _track(run: Run, last: Any, plans: Any, index: Any, observation: Any) -> jax.Array:
    return track(run.acting, run.spec, plans, last, index, observation)


def drive(
    run: Run,
    problems: Sequence[Problem],
    options: Options,
    *,
    horizon: int,
    parts: Sequence[str] = (),
) -> Outcome:
    """Plan for each problem, follow the plans, and look what came of them."""
    maze = run_maze(run)
    driver = Driver(run, problems, options, horizon=horizon, parts=parts)
    avoid, via = (
        np.float32(cell_to_xy(maze, [getattr(each, part) for each in problems]))
        for part in ("avoid", "via")
    )
    posed = iter(problems)
    count, label = len(problems), ", ".join(parts) or "plain"
    rollouts = rollout(
        Session(lambda *_: driver, count, count, options.seed, label),
        lambda: _Posed(maze, next(posed)),
    )
    plans = rollouts.plans
    assert plans is not None
    driven, planned = rollouts.observations[..., :2], plans[..., 2:4]
    return Outcome(
        problems=problems,
        rollouts=rollouts,
        reached=rollouts.successes,
        passed=_nearest(driven, via) < GOAL_RADIUS,
        entered=_nearest(driven, avoid) < RADIUS,
        planned_entered=_nearest(planned, avoid) < RADIUS,
    )


def _nearest(paths: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Smallest distance of each path `[N, T, 2]` from its point `[N, 2]`."""
    return np.linalg.norm(paths - points[:, None], axis=-1).min(-1)


def _rows(method: str, seconds: float, **found: np.ndarray) -> list[dict[str, Any]]:
    more = {"seeds": 1, "seconds": round(seconds, 1)}
    return [
        {"method": method, "metric": metric, **measured(happened), **more}
        for metric, happened in found.items()
    ]


def _draw(maze: Maze, outcomes: dict[str, Outcome], path: Path, *, each: int) -> None:
    """Draw the first problems of each method, a row a method if there are several."""
    shown = [(name, one, i) for name, one in outcomes.items() for i in range(each)]

    def centres(part: str) -> np.ndarray:
        return cell_to_xy(maze, [getattr(one.problems[i], part) for _, one, i in shown])

    posed = any(one.problems[0].avoid != (0, 0) for one in outcomes.values())
    radii = np.full((len(shown), 1), RADIUS)
    figure = plot_plans(
        maze,
        [one.rollouts.plans[i, :, 2:4] for _, one, i in shown],  # type: ignore
        executed=[one.rollouts.observations[i, :, :2] for _, one, i in shown],
        starts=[one.rollouts.observations[i, 0, :2] for _, one, i in shown],
        goals=[one.rollouts.goals[i] for _, one, i in shown],  # type: ignore
        avoid=np.hstack([centres("avoid"), radii]) if posed else None,
        via=centres("via") if posed else None,
        titles=[name if i == 0 else "" for name, _, i in shown],
        columns=each if each > 1 else 5,
    )
    figures.save(figure, path)


# --- experiments: (run, options, picture) -> rows ------------------------------------


def long_horizon(run: Run, options: Options, path: Path) -> list[dict[str, Any]]:
    """Plan between cells that are far apart."""
    maze = run_maze(run)
    ranked = pairs(maze)
    far = [pair for _, pair in ranked[2 * len(ranked) // 3 :]]
    started = time.monotonic()
    outcome = drive(
        run, drawn(far, options), options, horizon=declared_horizons(run.config)[-1]
    )
    _draw(maze, {"plain": outcome}, path, each=min(4, options.episodes))
    return _rows("plain", time.monotonic() - started, success=outcome.reached)


def variable_length(run: Run, options: Options, path: Path) -> list[dict[str, Any]]:
    """Plan for every declared horizon."""
    maze = run_maze(run)
    rows, outcomes = [], {}
    for horizon in declared_horizons(run.config):
        most = horizon // STEPS_PER_CELL
        fitting = [pair for moves, pair in pairs(maze) if 0.6 * most <= moves <= most]
        started = time.monotonic()
        name = f"horizon {horizon}"
        outcomes[name] = drive(run, drawn(fitting, options), options, horizon=horizon)
        seconds = time.monotonic() - started
        rollouts = outcomes[name].rollouts
        assert rollouts.goals is not None
        in_time = _nearest(rollouts.observations[:, : horizon + 1, :2], rollouts.goals)
        rows += _rows(name, seconds, success=in_time < GOAL_RADIUS)
    _draw(maze, outcomes, path, each=1)
    return rows


def composition(run: Run, options: Options, path: Path) -> list[dict[str, Any]]:
    """Pose goal, region and point, telling each method of some of them."""
    maze = run_maze(run)
    horizon = run.config.horizon
    problems = drawn(detours(maze, longest=horizon // STEPS_PER_CELL), options)
    rows, outcomes = [], {}
    for method, parts in METHODS.items():
        started = time.monotonic()
        one = drive(run, problems, options, horizon=horizon, parts=parts)
        outcomes[method] = one
        rows += _rows(
            method,
            time.monotonic() - started,
            success=one.reached & one.passed,
            reached=one.reached,
            passed=one.passed,
            violations=one.entered,
            planned_violations=one.planned_entered,
        )
    _draw(maze, outcomes, path, each=min(5, options.episodes))
    return rows


def interpolation(run: Run, options: Options, path: Path) -> list[dict[str, Any]]:
    """Mix a plan with one that was led another way."""
    maze = run_maze(run)
    longest = run.config.horizon // STEPS_PER_CELL
    solvers = [
        compiled(run, run.config.horizon, parts, options.candidates)
        for parts in ((), ("via",))
    ]
    # Take the longest of the problems that are solved in two ways.
    for problem in reversed(detours(maze, longest=longest)):
        start, goal, avoid, via = (
            np.float32(cell_to_xy(maze, cell)) for cell in dataclasses.astuple(problem)
        )
        state = at_rest(start)
        plans = []
        for solve in solvers:
            found = solve(run.states, jax.random.key(0), state, goal, avoid, via)
            best = ranking(found, run.acting)[0]
            plans.append(np.asarray(found.trajectories[0, best]))
        here, there = (_nearest(x[None, :, 2:4], via[None])[0] for x in plans)
        if here > 1.0 and there < GOAL_RADIUS:
            break
    steps = run.acting.sampling_steps or run.config.diffusion_steps
    levels = [max(1, round(share * steps)) for share in (0.25, 0.5, 0.75, 0.9)]
    weights = np.linspace(0, 1, 5)
    mixed = [interpolate(run, *plans, weights, level=level) for level in levels]
    figure = plot_plans(
        maze,
        [x[:, 2:4] for row in mixed for x in row],
        starts=np.tile(start, (len(levels) * len(weights), 1)),
        goals=np.tile(goal, (len(levels) * len(weights), 1)),
        titles=[f"level {k}, weight {w:.2f}" for k in levels for w in weights],
        columns=len(weights),
    )
    figures.save(figure, path)
    return []


if __name__ == "__main__":
    run_command(main, Options)
