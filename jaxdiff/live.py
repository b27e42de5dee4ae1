"""A policy in real time: an action at every tick, while the next plan is being made.

    with run.policy().live(hz=20) as live:
        send(live.start(sense(), goal))   # compiles, and makes the first plan
        while True:
            live.wait()                   # until the next tick
            send(live(sense(), goal))     # at once

A planner that is asked for a plan takes longer than a tick. Here another thread makes
it, from what is observed now, while the old plan is followed. A plan that is ready
catches up: it is followed through the observations that came meanwhile. An action of a
policy without plans that is late is taken at the next tick, and the last one is
repeated; both are counted.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.errors import UserError


class Report(NamedTuple):
    """What happened since `start`.

    Attributes:
      ticks: actions asked for.
      missed: ticks that were over before the loop came to wait for the next one.
      repeated: ticks at which the last action was repeated, because a new one was late.
      plans: plans that were made and followed.
      plan_ticks: ticks that the slowest of these plans took.
    """

    ticks: int = 0
    missed: int = 0
    repeated: int = 0
    plans: int = 0
    plan_ticks: int = 0


class Live:
    """Acts at a fixed rate and never waits for a plan; see the head of this module.

    Args:
      policy: of one environment or several, see `jaxdiff.policy.Policy`.
      hz: ticks a second.
      clock: seconds that only grow.
      sleep: waits for so many seconds.

    Attributes:
      report: a `Report`.

    Raises:
      UserError: `hz` is not above 0.
    """

    def __init__(
        self,
        policy: Any,
        hz: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not hz > 0:
            raise UserError(f"`hz` is {hz}; give the ticks a second, above 0")
        self.report = Report()
        self._policy, self._period = policy, 1 / hz
        self._clock, self._sleep = clock, sleep
        self._worker = ThreadPoolExecutor(1)
        self._planning: Future[Any] | None = None
        self._since: list[tuple[np.ndarray, Any]] = []
        self._tick = clock()
        self._action = np.zeros(0, np.float32)

    def __enter__(self) -> "Live":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the plan that is being made."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def start(self, observation: Any, goal: Any = None) -> np.ndarray:
        """Begin an episode: compile, make the first plan, and return the first action.

        The arguments are those of the policy. This takes as long as it takes; ticks
        count from its end.
        """
        if self._planning is not None:
            self._planning.result()
        self._planning, self._since = None, []
        self._policy.warmup()
        self._policy.reset()
        action = self._policy(observation, goal)
        self._action = action.reshape(self._policy.num_envs, -1)
        self.report = Report()
        self._tick = self._clock()
        return action

    def __call__(self, observation: Any, goal: Any = None) -> np.ndarray:
        """Return the action for what is observed now.

        The arguments and the result are those of the policy.
        """
        observation, goal, single = self._policy.rows(observation, goal)
        self.report = self.report._replace(ticks=self.report.ticks + 1)
        if self._policy.follows:
            self._follow(observation, goal)
        else:
            self._decide(observation, goal)
        return self._action[0] if single else self._action

    def wait(self) -> None:
        """Wait until the next tick. A tick that is over already counts as missed."""
        self._tick += self._period
        left = self._tick - self._clock()
        if left >= 0:
            self._sleep(left)
            return
        self.report = self.report._replace(missed=self.report.missed + 1)
        self._tick = self._clock()  # what was missed is not caught up with

    def _submit(self, observation: np.ndarray, goal: Any) -> Future[Any]:
        policy = self._policy

        def act(memory: Any) -> Any:
            (_, leaves), after, _ = policy.run("act", memory, observation, goal)
            return np.asarray(leaves[0]), after  # waits for it

        self._planning, self._since = self._worker.submit(act, policy.memory), []
        return self._planning

    def _follow(self, observation: np.ndarray, goal: Any) -> None:
        policy = self._policy
        if self._planning is not None and self._planning.done():
            _, memory = self._planning.result()
            self._planning = None
            for seen in self._since:
                _, memory, _ = policy.run("follow", memory, *seen)
            policy.memory = memory._replace(steps=policy.memory.steps)
            took = len(self._since) + 1
            self.report = self.report._replace(
                plans=self.report.plans + 1,
                plan_ticks=max(self.report.plan_ticks, took),
            )
        (_, leaves), memory, nothing_due = policy.run(
            "follow", policy.memory, observation, goal
        )
        if self._planning is not None:
            self._since.append((observation, goal))
        elif not nothing_due:
            self._submit(observation, goal)
        policy.memory, self._action = memory, np.asarray(leaves[0])

    def _decide(self, observation: np.ndarray, goal: Any) -> None:
        deciding = self._planning or self._submit(observation, goal)
        try:
            left = self._tick + self._period - self._clock()
            self._action, self._policy.memory = deciding.result(max(left, 0))
            self._planning = None
        except TimeoutError:
            self.report = self.report._replace(repeated=self.report.repeated + 1)
