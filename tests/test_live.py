"""Acting in real time: plans that are made beside the loop, and what is counted."""

import concurrent.futures
import re
import runpy
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.algorithms.base import ActOutput, Algorithm
from jaxdiff.data.spec import Spec
from jaxdiff.errors import UserError
from jaxdiff.live import Live, Report
from jaxdiff.policy import Policy

SPEC = Spec(observation_shape=(1,), action_dim=1)


class Clock:
    """Seconds that pass where the test says so, and while the loop sleeps."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(round(seconds, 6))
        self.now += seconds


def gate():
    """An event, and a function of arrays that passes when the event is set."""
    opened = threading.Event()
    opened.set()

    def passing(x):
        def wait(x):
            assert opened.wait(60)
            return x

        return jax.pure_callback(wait, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    return opened, passing


def planner(passing):
    """Plans are known by the observation that they begin at, and last three steps.

    The action is that observation and 100 for every step since.
    """

    def step(carry):
        origin, index = carry
        output = ActOutput(action=(origin + 100 * index)[:, None])
        return output, (origin, index + 1)

    def act(states, carry, keys, observation, reset, goal=None, guidance=None):
        return step((passing(observation[:, 0]), jnp.zeros(len(keys))))

    def follow(states, carry, keys, observation, reset, goal=None, guidance=None):
        return *step(carry), ~jnp.any(reset | (carry[1] % 3 == 0))

    def init_carry(batch):
        return jnp.zeros(batch), jnp.zeros(batch)

    return Algorithm({}, act, init_carry, follow=follow)


def test_the_old_plan_is_followed_until_the_new_one_has_caught_up():
    opened, passing = gate()
    with Policy(planner(passing), {}, SPEC).live(hz=10) as live:
        actions = [live.start([0.0])]
        opened.clear()
        # A plan is due at observation 3, and it is made from there.
        actions += [live([seen]) for seen in (1.0, 2.0, 3.0, 4.0, 5.0)]
        opened.set()
        concurrent.futures.wait([live._planning], timeout=60)
        actions.append(live([6.0]))
        np.testing.assert_array_equal(np.ravel(actions)[:6], 100 * np.arange(6))
        assert actions[6] == 3 + 100 * 3
        assert live.report == Report(ticks=6, plans=1, plan_ticks=3)


def test_an_action_that_is_late_is_taken_at_the_next_tick():
    opened, passing = gate()

    def act(states, carry, keys, observation, reset, goal=None, guidance=None):
        return ActOutput(action=passing(observation)), carry

    with Policy(Algorithm({}, act), {}, SPEC).live(hz=1) as live:
        assert live.start([1.0]) == 1
        assert live([2.0]) == 2  # waits for at most a tick
        opened.clear()
        assert live([3.0]) == 2
        opened.set()
        concurrent.futures.wait([live._planning], timeout=60)
        assert live([4.0]) == 3
        assert live.report.repeated == 1
        live.wait()
        assert live([5.0]) == 5


def test_ticks_keep_their_rate_and_missed_ones_are_counted():
    clock = Clock()
    _, passing = gate()
    live = Live(Policy(planner(passing), {}, SPEC), 10, clock=clock, sleep=clock.sleep)
    live.start([0.0])
    for work in (0.02, 0.07, 0.25, 0.01):
        live([0.0])
        clock.now += work
        live.wait()
    # The third tick took 0.25 seconds; the fourth counts from its end.
    np.testing.assert_allclose(clock.slept, [0.08, 0.03, 0.09])
    assert live.report.missed == 1
    assert live.report.ticks == 4
    live.close()


def test_what_goes_wrong_while_a_plan_is_made_is_raised():
    def fail(x):
        if x[0] > 2:
            raise RuntimeError("no plan from here")
        return x

    def passing(x):
        return jax.pure_callback(fail, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    with Policy(planner(passing), {}, SPEC).live(hz=10) as live:
        live.start([0.0])
        for seen in (1.0, 2.0, 3.0):
            live([seen])
        concurrent.futures.wait([live._planning], timeout=60)
        with pytest.raises(Exception, match="no plan from here"):
            live([4.0])


@pytest.mark.parametrize("hz", [0, -1, float("nan")])
def test_a_rate_that_cannot_be_is_refused(hz):
    _, passing = gate()
    with pytest.raises(UserError, match="`hz`"):
        Policy(planner(passing), {}, SPEC).live(hz)


@pytest.mark.slow
def test_the_program_of_the_docs_acts(tiny_run, tmp_path, monkeypatch, capsys):
    page = Path(__file__).parents[1] / "docs/real_time.md"
    program = re.search(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    path = tmp_path / "live.py"
    path.write_text(program[1])
    monkeypatch.setattr(sys, "argv", [str(path), str(tiny_run), "200"])
    runpy.run_path(str(path), run_name="__main__")
    assert re.search(r"return \d+\.\d; Report\(ticks=300, ", capsys.readouterr().out)
