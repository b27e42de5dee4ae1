"""The price and the gain of warm starts: every level is played, timed and drawn."""

import dataclasses
import json

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from stubs import stub_run

from benchmarks import warm_start as benchmark
from jaxdiff.algorithms.base import Algorithm
from jaxdiff.algorithms.planning.options import PlannerActing, PlannerConfig
from jaxdiff.algorithms.planning.planner import Plans
from jaxdiff.algorithms.planning.receding_horizon import receding_horizon
from jaxdiff.errors import UserError

CONFIG = PlannerConfig(horizon=4, diffusion_steps=40)


class Ten(gymnasium.Env):
    """Ten steps that pay the first entry of the action."""

    observation_space = gymnasium.spaces.Box(-10, 10, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 10
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.left -= 1
        return np.zeros(2, np.float32), float(action[0]), False, self.left == 0, {}


gymnasium.register("Ten-v0", Ten)


def toy_run(path, environment="Ten-v0", references=None, **options):
    """A run whose warm plans say their level, in hundredths, and cold ones zero."""
    acting = PlannerActing(replan_every=1, **options)

    def plan(states, keys, problem, *, horizon=4):
        value = 0.0 if problem.init is None else acting.warm_start / 100
        x = jnp.full((len(problem.history), 1, horizon, 4), value)
        return Plans(trajectories=x, dynamics_error=jnp.zeros((len(x), 1)))

    run = stub_run(
        path, None, environment, observation_shape=(2,), action_dim=2, dataset="toy",
        references=references, config=CONFIG,
    )  # fmt: skip
    act, init_carry, _ = receding_horizon(plan, CONFIG, acting, run.spec)
    return run._replace(
        acting=acting, algorithm=Algorithm({}, act, init_carry, plan=plan)
    )


@pytest.fixture
def load(monkeypatch):
    """Let the benchmark load such runs, with references that a test may fill in."""
    references = {}

    def loaded(path, overrides=None):
        return toy_run(path, references=references, **(overrides or {}))

    monkeypatch.setattr(benchmark, "load_run", loaded)
    return references


def rows(folder):
    return json.loads((folder / "warm-start.json").read_text())


@pytest.mark.parametrize("references", [{}, {"random": 0.0, "expert": 2.0}])
def test_every_level_is_played_timed_and_drawn(tmp_path, load, references):
    load |= references
    options = benchmark.Options(run=tmp_path / "run", episodes=2, calls=3)
    benchmark.main(options, directory=tmp_path)
    metric = "score" if references else "return"
    found = {
        row["setting"]: row["value"]
        for row in rows(tmp_path)
        if row["metric"] == metric
    }
    # The first of ten plans is from noise.
    paid = {f"40 levels;k={k}": 9 * k / 100 for k in (1, 2, 10, 20, 40)}
    scale = 50 if references else 1
    assert found == pytest.approx({k: scale * value for k, value in paid.items()})
    rates = [row for row in rows(tmp_path) if row["metric"] == "plans_per_second"]
    assert [row["n"] for row in rates] == [3] * 5
    assert all(0 < row["low"] <= row["value"] <= row["high"] for row in rates)
    assert rows(tmp_path)[0]["command"] == (
        "python -m benchmarks.warm_start RUN --episodes 2 --seed 1000 --calls 3"
    )
    assert (tmp_path / "figures" / "warm-start.png").stat().st_size > 1000


def test_levels_may_be_fewer_or_more_than_the_runs(tmp_path, load):
    options = benchmark.Options(tmp_path / "run", episodes=1, calls=1, sampling_steps=3)
    benchmark.main(options, directory=tmp_path)
    found = [row["setting"] for row in rows(tmp_path) if row["metric"] == "return"]
    assert found == [f"3 levels;k={k}" for k in (1, 2, 3)]
    assert rows(tmp_path)[0]["command"].endswith("--calls 1 --sampling-steps 3")


def test_one_level_may_be_played_by_itself(tmp_path, load):
    options = benchmark.Options(tmp_path / "run", episodes=1, calls=1, levels=(20,))
    benchmark.main(options, directory=tmp_path)
    assert {row["setting"] for row in rows(tmp_path)} == {"40 levels;k=20"}
    assert rows(tmp_path)[0]["command"].endswith("--calls 1 --levels 20")
    # A picture of one level would replace that of all.
    assert not (tmp_path / "figures").exists()
    for level in (0, 41):
        wrong = dataclasses.replace(options, levels=(level,))
        with pytest.raises(UserError, match=f"`levels` has {level}; .* from 1 to 40"):
            benchmark.main(wrong, directory=tmp_path)


@pytest.mark.parametrize(
    ("steps", "levels"), [(None, [1, 2, 10, 20, 40]), (10, [1, 2, 5, 10]), (1, [1])]
)
def test_levels_are_those_walked(tmp_path, steps, levels):
    assert benchmark.levels(toy_run(tmp_path, sampling_steps=steps)) == levels


def test_only_planners_in_control_are_scored(tmp_path, monkeypatch):
    maze = toy_run(tmp_path, "PointMaze_UMaze-v3")
    policy = toy_run(tmp_path)
    policy = policy._replace(algorithm=policy.algorithm._replace(plan=None))
    for run in (maze, policy):
        monkeypatch.setattr(benchmark, "load_run", lambda path, run=run, **_: run)
        with pytest.raises(UserError, match="a planner in a task of control"):
            benchmark.main(benchmark.Options(run=tmp_path), directory=tmp_path)
    with pytest.raises(UserError, match="`calls` is 0"):
        benchmark.main(benchmark.Options(run=tmp_path, calls=0), directory=tmp_path)
