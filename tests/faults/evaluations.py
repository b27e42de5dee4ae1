"""Evaluation in environments that misbehave, of policies that do, and its records.

The policy and the environment are a few lines, so that each return is known: an episode
of n steps that moves by 1 a step earns 1 + 2 + ... + n.
"""

import json
import pathlib
import shutil

import gymnasium
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from jaxdiff.algorithms.base import ActOutput
from jaxdiff.evaluation import evaluate, save_evaluation
from tests.faults.tally import Case, Tally, fuzz
from tests.stubs import stub_run

STEPS = 4


class Count(gymnasium.Env):
    """Adds up actions and pays the sum; does what `fault` says at one step."""

    observation_space = gymnasium.spaces.Box(-99, 99, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-9, 9, (1,), np.float32)

    def __init__(self, fault=None, at=1):
        self.fault, self.at = fault, at
        if fault == "wide":
            self.observation_space = gymnasium.spaces.Box(-99, 99, (3,), np.float32)
        if fault == "discrete":
            self.action_space = gymnasium.spaces.Discrete(3)
        if fault == "two actions":
            self.action_space = gymnasium.spaces.Box(-9, 9, (2,), np.float32)
        if fault == "text":
            self.observation_space = gymnasium.spaces.Text(4)
        if fault == "cannot start":
            raise RuntimeError("no display")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.total, self.step_number = 0.0, 0
        return self.seen(), {}

    def seen(self):
        return np.array([self.total, self.step_number], np.float32)

    def step(self, action):
        self.step_number += 1
        self.total += float(action[0])
        seen, reward = self.seen(), self.total
        ended = self.step_number == STEPS
        if self.step_number == self.at:
            if self.fault == "nan reward":
                reward = float("nan")
            elif self.fault == "infinite observation":
                seen = seen + np.float32(np.inf)
            elif self.fault == "array reward":
                reward = np.array(reward)
            elif self.fault == "early":
                ended = True
        return seen, reward, ended, False, {}


gymnasium.register("FaultyCount-v0", Count)

# What the environment does -> whether an evaluation may stand.
FAULTS = {
    **{"none": True, "early": True, "array reward": True},
    **{"nan reward": False, "infinite observation": None, "wide": False},
    **{"discrete": False, "two actions": False, "text": False},
}
RECORDS = ("x.json", "\u0663.json", "007.json", "000", "001.json.bak", "-1.json")


def ones(states, carry, keys, observation, reset, goal=None, guidance=None):
    action = jnp.ones((len(keys), 1))
    return ActOutput(action=action, plan=None, planned=reset), carry


def nans(states, carry, keys, observation, reset, goal=None, guidance=None):
    action = jnp.full((len(keys), 1), jnp.nan)
    return ActOutput(action=action, plan=None, planned=reset), carry


def case_of(draw, folder):
    place = folder / "evaluated"
    shutil.rmtree(place, ignore_errors=True)
    (place / "evaluations").mkdir(parents=True)
    fault = draw(st.sampled_from([*FAULTS, "nan action", "no environment", "module"]))
    at = draw(st.integers(1, STEPS))
    episodes, num_envs = (draw(st.sampled_from([1, 2, 3, 0])) for _ in "en")
    for name in draw(st.lists(st.sampled_from(RECORDS), unique=True, max_size=2)):
        (place / "evaluations" / name).write_text("mine")
    mine = {x: x.read_text() for x in (place / "evaluations").iterdir()}
    environment = {"no environment": "Gone-v0", "module": "gone_module:Gone-v0"}.get(
        fault, "FaultyCount-v0"
    )
    act = nans if fault == "nan action" else ones
    run = stub_run(place, act, environment, observation_shape=(2,), action_dim=1)
    kwargs = {"fault": fault, "at": at} if fault in FAULTS else {}
    stored = {**run.document["dataset"]["environment"], "kwargs": kwargs}
    dataset = {**run.document["dataset"], "environment": stored, "evaluation": stored}
    run = run._replace(document={**run.document, "dataset": dataset})

    def acted():
        record, _ = evaluate(run, episodes=episodes, num_envs=num_envs, seed=3)
        return record, save_evaluation(run, record)

    def truth(found):
        record, path = found
        steps = at if fault == "early" else STEPS
        return (
            record["mean_return"] == steps * (steps + 1) / 2
            and record["mean_length"] == steps
            and json.loads(path.read_text())["mean_return"] == record["mean_return"]
            and path not in mine
        )

    sound = FAULTS.get(fault, False)
    if episodes < 1 or num_envs < 1:
        sound = False
    return Case(
        f"{fault} at step {at}, {episodes} episodes, {num_envs} at a time",
        acted,
        truth,
        sound=sound,
        kept=lambda: all(path.read_text() == text for path, text in mine.items()),
    )


def tally(folder: pathlib.Path, count: int) -> Tally:
    """Judge `count` cases."""
    return fuzz(lambda draw: case_of(draw, folder), count)
