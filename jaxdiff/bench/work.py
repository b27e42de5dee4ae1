"""The calls that are measured: of training, acting and planning, as users make them."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdiff.algorithms.planning.planner import Problem
from jaxdiff.bench.costs import Cost, count_cost
from jaxdiff.bench.subjects import Subject, anew, fill_states, middle
from jaxdiff.bench.timing import Step, seconds_of
from jaxdiff.devices import Device
from jaxdiff.errors import UserError
from jaxdiff.plans import plan
from jaxdiff.run import Run
from jaxdiff.train import updates_of

BLOCK_SECONDS = 0.2  # of training updates between two looks at the clock
PLANNING, FOLLOWING = "act, planning", "act, following"
GUIDE_SCALE = 0.1  # where a run with a model of returns plans without it


class Started(NamedTuple):
    """A call that can be made.

    Attributes:
      step: makes it; compiles when it is called first.
      cost: counts what it costs.
      others: name of other work -> a `Started` of it, which needs no other program.
    """

    step: Step
    cost: Callable[[], Cost]
    others: Mapping[str, Any] = {}


class Work(NamedTuple):
    """One kind of call at one size.

    Attributes:
      name: what is done, such as "act" or "update policy".
      batch: environments or examples.
      candidates: plans for each problem; None where none are chosen.
      unit: what is counted a second.
      units: how many of these a call gives.
      start: builds all anew.
      scored: whether a score of the run is one of this way to act.
    """

    name: str
    batch: int
    candidates: int | None
    unit: str
    units: int
    start: Callable[[], Started]
    scored: bool = True

    @property
    def key(self) -> tuple[str, int, int | None]:
        """What tells it from the other work of a run."""
        return self.name, self.batch, self.candidates


def works_of(
    subject: Subject,
    batches: Sequence[int],
    devices: Sequence[Device],
    *,
    every_learner: bool = True,
    drawn: bool = True,
) -> Iterator[Work]:
    """Yield the work of a run: updates of learners, acting and planning.

    Of each kind of work the smallest size comes first.

    Args:
      subject: the run.
      batches: sizes beside 1.
      devices: for updates and acting; `plan` takes one by itself.
      every_learner: updates of every learner, and not of the last one alone.
      drawn: updates start from parameters drawn as in training, not from made-up ones.
    """
    learners = list(subject.run.algorithm.learners)
    for name in learners if every_learner else learners[-1:]:
        yield _update(subject, name, devices, drawn)
    for batch in (1, *batches):
        yield _act(subject, batch, devices)
    if subject.run.algorithm.plan is None:
        return
    for kind, acting in _ways_to_plan(subject.run):
        for candidates in (1, *batches):
            yield _plan(subject, candidates, kind, acting)


def _ways_to_plan(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield plans without and with guidance, as far as the run knows any."""
    scale = getattr(run.acting, "guide_scale", None)
    if scale is None:
        yield "plan", {}
        return
    yield "plan", {"guide_scale": 0.0}
    guided = {"guide_scale": scale or GUIDE_SCALE}
    try:
        anew(run, **guided)
    except UserError:
        return  # it has no model of returns
    yield "guided plan", guided


def _update(
    subject: Subject, name: str, devices: Sequence[Device], drawn: bool
) -> Work:
    run, config = subject.run, subject.run.training[name]
    used = list(devices)[: math.gcd(len(devices), config.batch_size)]

    def start() -> Started:
        made = updates_of(
            anew(run).algorithm.learners[name], subject.data, config=config, name=name,
            finished=_before(subject, name), devices=used,
            state=None if drawn else subject.run.states[name],
        )  # fmt: skip
        count = 1

        def step() -> float:
            nonlocal count
            seconds = seconds_of(lambda: made.advance(count)) / count
            count = max(1, min(100, round(BLOCK_SECONDS / seconds)))
            return seconds

        return Started(step, lambda: count_cost(made.once, made.state))

    return Work(
        f"update {name}", config.batch_size, None, "updates", 1, start, scored=False
    )


def _before(subject: Subject, name: str) -> dict[str, Any]:
    """Return the states of the learners that train before one."""
    fill_states(subject)
    names = list(subject.run.algorithm.learners)
    return {each: subject.run.states[each] for each in names[: names.index(name)]}


def _act(subject: Subject, batch: int, devices: Sequence[Device]) -> Work:
    """Act; of planners two kinds of calls, those that plan and those that do not."""
    spec, plans = subject.run.spec, subject.run.algorithm.plan is not None
    rng = np.random.default_rng(0)
    seen = rng.standard_normal((batch, spec.observation_dim), np.float32)
    goal = None
    if spec.goal_dim:
        goal = rng.standard_normal((batch, spec.goal_dim), np.float32)

    def start() -> Started:
        fill_states(subject)
        policy = anew(subject.run).policy(batch, devices=devices)

        def act() -> float:
            return seconds_of(lambda: policy(seen, goal))

        def planning() -> float:
            policy.reset(seeds=range(batch))
            return act()

        def following() -> float | None:
            seconds = act()
            planned = getattr(policy.last, "planned", None)
            return None if planned is None or np.any(planned) else seconds

        if not plans:
            return Started(act, cost)
        others = {FOLLOWING: Started(following, lambda: cost(min))}
        return Started(planning, cost, others)

    def cost(branch: Callable[..., Cost] = max) -> Cost:
        algorithm = subject.run.algorithm
        keys = jax.random.split(jax.random.key(0), batch)
        return count_cost(
            lambda states, carry, keys, seen, reset, goal: algorithm.act(
                states, carry, keys, seen, reset, goal=goal
            ),
            dict(subject.run.states), algorithm.init_carry(batch), keys, seen,
            np.ones(batch, bool), goal, branch=branch,
        )  # fmt: skip

    return Work(PLANNING if plans else "act", batch, None, "actions", batch, start)


def _plan(subject: Subject, candidates: int, kind: str, acting: dict[str, Any]) -> Work:
    first, goal = middle(subject.run)

    def start() -> Started:
        fill_states(subject)
        run, seed = anew(subject.run, **acting), 0

        def step() -> float:
            nonlocal seed
            seed += 1
            return seconds_of(
                lambda: plan(run, first, goal, candidates=candidates, seed=seed)
            )

        return Started(step, cost)

    def cost() -> Cost:
        planner = anew(subject.run, **acting).algorithm.plan
        assert planner is not None
        problem = Problem(
            history=first[None, None], goal=None if goal is None else goal[None]
        )
        return count_cost(
            lambda states, keys, problem: planner(
                states, keys, problem, candidates=candidates, return_path=True
            ),
            dict(subject.run.states), jax.random.key(0)[None], problem,
        )  # fmt: skip

    same = dataclasses.replace(subject.run.acting, **acting) == subject.run.acting
    return Work(kind, 1, candidates, "plans", candidates, start, scored=same)
