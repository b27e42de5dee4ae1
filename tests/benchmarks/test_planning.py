"""Plans and actions beside PyTorch: do both make the same, and is a difference seen?"""

import dataclasses
import json

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks import planning, pytorch_planning, turns  # noqa: E402
from jaxdiff.algorithms.imitation.diffusion_bc import (  # noqa: E402
    DiffusionBCActing,
    DiffusionBCConfig,
)
from jaxdiff.algorithms.offline.iql import IQLConfig  # noqa: E402
from jaxdiff.algorithms.planning.diffuser import (  # noqa: E402
    DiffuserActing,
    DiffuserConfig,
)
from jaxdiff.bench.subjects import anew  # noqa: E402
from jaxdiff.options import NoOptions  # noqa: E402

SMALL = DiffuserConfig(
    horizon=8, diffusion_steps=3, dim=32, dim_mults=(1,), prediction="x0"
)
STILL = DiffuserActing(temperature=0.0)


def pair(config, acting, spec, batch=2):
    """What both make of the same problems, and the run."""
    run = planning.run_of("diffuser", spec, config, acting)
    ours = planning.batch_of_plans(run, batch, jax.devices()[:2])(0)
    return ours, planning.torch_plans(run, batch)(0), run


def test_plans_to_goals_of_v_over_fewer_steps_are_the_same():
    config = dataclasses.replace(SMALL, prediction="v", goal_dim=2)
    acting = dataclasses.replace(STILL, sampling_steps=2)
    ours, theirs, run = pair(config, acting, planning.MAZE)
    assert planning.check_same(ours, theirs) < 1e-4
    goal = planning.goals(run, 2)
    np.testing.assert_allclose(theirs["plans"][:, -1, 2:4], goal, atol=1e-5)
    assert ours["plans"].std() > 0.1
    assert np.abs(ours["plans"][0] - ours["plans"][1]).max() > 0.1


@pytest.mark.slow
def test_guided_plans_and_their_returns_are_the_same():
    config = dataclasses.replace(SMALL, return_model=True)
    acting = dataclasses.replace(STILL, guide_scale=1.0, guide_steps=2)
    ours, theirs, run = pair(config, acting, planning.HOPPER)
    assert set(ours) == {"plans", "returns"}
    planning.check_same(ours, theirs)
    plain = planning.torch_plans(anew(run, guide_scale=0.0), 2)(0)
    with pytest.raises(SystemExit, match=r"the (plans|returns) differ"):
        planning.check_same(ours, plain)


def test_a_plan_of_torch_is_as_noisy_as_the_table_says():
    run = planning.run_of("diffuser", planning.HOPPER, SMALL, DiffuserActing())
    planner = planning.torch_planner(run)
    planner.network = lambda x, time: torch.zeros_like(x)
    del planner.rows[-1]  # which lands on the estimate, 0
    variance = 1.0
    for c_x, _, _, c_noise, *_ in planner.rows:
        variance = c_x**2 * variance + c_noise**2
    torch.manual_seed(0)
    found = planner.plan(torch.zeros(500, 11), None, 8)
    assert found[..., 1:].var().item() == pytest.approx(variance, rel=0.05)


def test_the_earliest_feasible_plan_is_followed():
    """Plans of H steps strain by 1 / H; the longest is of 8 steps."""

    class Plans:
        def plan(self, observation, goal, horizon):
            return torch.full((len(observation), 1, horizon), float(horizon))

        def finished(self, plans):
            return plans.mT

        def strain(self, plans):
            return 1.0 / plans[:, 0, 0]

    for slack, wanted in ((0.0, 8), (2.1, 4), (100.0, 2)):
        found = pytorch_planning.earliest(
            Plans(), torch.zeros(1, 1), torch.zeros(1, 1), horizons=(2, 4, 8),
            candidates=2, slack=slack,
        )  # fmt: skip
        assert len(found) == wanted


@pytest.mark.parametrize(
    ("name", "config", "acting", "theirs"),
    [
        (
            "diffusion-bc",
            DiffusionBCConfig(diffusion_steps=5, hidden=32, embed=16),
            DiffusionBCActing(),
            planning.torch_sieve,
        ),
        ("iql", IQLConfig(widths=(16, 16)), NoOptions(), planning.torch_actor),
    ],
)
def test_policies_are_the_same(name, config, acting, theirs):
    setting = planning.actions(name, planning.CHEETAH, config, acting, theirs)
    methods = setting.build(jax.devices()[:2])
    assert methods.keys() == {"jaxdiff", "torch"}
    assert all(np.isfinite(advance(2)) for advance in methods.values())


def test_the_planner_of_the_demo_is_the_same():
    config = dataclasses.replace(
        planning.DEMO, horizon=4, horizons=(8,), diffusion_steps=3, dim_mults=(1,)
    )
    acting = dataclasses.replace(
        planning.DEMO_ACTING, sampling_steps=2, temperature=0.0
    )
    run = planning.run_of("diffuser", planning.MAZE, config, acting)
    seen, goal = planning.observations(run, 1), planning.goals(run, 1)
    expected = run.policy(1)(seen, goal)
    found = planning.torch_demo(run)(seen, goal)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert 0 < np.abs(found).max() < 1  # within the bounds of the controller


@pytest.mark.parametrize("change", [1e-2, np.nan])
def test_what_is_not_the_same_is_refused(change):
    mine = {"plans": np.ones((2, 3))}
    planning.check_same(mine, {"plans": np.ones((2, 3))})
    with pytest.raises(SystemExit, match="the plans differ"):
        planning.check_same(mine, {"plans": np.ones((2, 3)) + change})
    with pytest.raises(SystemExit, match="shapes"):
        planning.check_same(mine, {"plans": np.ones((3, 3))})


def stub(seconds):
    """A setting whose calls take as long as they say, by a clock of its own."""

    def build(devices):
        def calls(each):
            def advance(count):
                stub.clock += each * count
                return 1.0

            return advance

        return {method: calls(each) for method, each in seconds.items()}

    return turns.Setting(build, "plans_per_second", 8)


@pytest.fixture
def clock(monkeypatch):
    stub.clock = 0.0
    monkeypatch.setattr(turns.time, "perf_counter", lambda: stub.clock)


@pytest.mark.usefixtures("clock")
def test_rates_count_units_and_ratios_are_of_both():
    setting = stub({"jaxdiff": 0.5, "torch": 2.0})
    rows = list(turns.timed("a", setting, setting.build([]), 10.0))
    found = {(row["method"], row["metric"]): row for row in rows}
    assert found["jaxdiff", "plans_per_second"]["value"] == pytest.approx(16)
    assert found["torch", "plans_per_second"]["value"] == pytest.approx(4)
    assert found["jaxdiff", "times_torch"]["value"] == pytest.approx(4)
    assert found["jaxdiff", "times_torch"]["seconds"] == pytest.approx(0.5)
    assert all("load" in row for row in rows)


@pytest.mark.usefixtures("clock")
def test_a_slow_method_is_left_out_with_a_note(capsys):
    setting = stub({"jaxdiff": 1.0, "torch": 30.0})
    rows = list(turns.timed("a", setting, setting.build([]), 2.0))
    assert {row["metric"] for row in rows} == {"plans_per_second"}
    assert {row["method"] for row in rows} == {"jaxdiff"}
    assert "left out: a, torch: a call takes 30 s" in capsys.readouterr().out


@pytest.mark.usefixtures("clock")
def test_resume_leaves_out_what_the_same_command_measured(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(turns, "use_cores", lambda count: None)
    settings = {name: stub({"jaxdiff": 1.0, "torch": 1.0}) for name in ("a", "b")}

    def measure(*words):
        turns.main(
            ["--budget", "2", "--devices", "1", *words],
            experiment="planning",
            settings=settings,
            directory=tmp_path,
        )
        return capsys.readouterr().out

    measure("--settings", "a")
    told = measure("--resume")
    assert "a was measured before" in told
    assert "b was measured before" not in told
    rows = json.loads((tmp_path / "planning.json").read_text())
    assert {row["setting"] for row in rows} == {"a", "b"}
    assert "measured before" not in measure("--resume", "--budget", "3")


def test_growth_is_drawn_with_a_line_for_each_method():
    rows = [
        {
            "setting": f"{size} {value}", "method": method,
            "metric": "plans_per_second", "value": value, "low": value / 2,
            "high": 2 * value,
        }
        for size in ("batch", "candidates", "horizon", "width")
        for value in (4, 1)
        for method in ("jaxdiff", "torch")
    ]  # fmt: skip
    figure = planning.plot_growth(rows)
    assert len(figure.axes) == 4
    for axes in figure.axes:
        lines = [line for line in axes.lines if line.get_marker() == "o"]
        assert len(lines) == 2
        assert list(lines[0].get_xdata()) == [1, 4]
    assert set(planning.GROWTH) >= {"batch 4096", "candidates 64", "width 128"}
