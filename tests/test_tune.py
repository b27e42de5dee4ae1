"""Settings of guidance side by side: the same as one by one, and the best is found."""

import json
import types

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planners import POINT, held, replaced, use_network
from points import straight_lines

from jaxdiff import cli, tune
from jaxdiff.algorithms.planning import diffuser as module
from jaxdiff.algorithms.planning.diffuser import (
    DiffuserActing,
    DiffuserConfig,
    Guidance,
    diffuser,
    measure,
)
from jaxdiff.algorithms.planning.planner import Plans
from jaxdiff.diffusion import cosine_schedule, ddpm, subgrid, value_guide
from jaxdiff.errors import UserError
from jaxdiff.evaluation import evaluate
from jaxdiff.options import to_plain
from jaxdiff.policy import Policy
from jaxdiff.run import Run
from jaxdiff.tune import SettingsPolicy, default_stops, tune_guidance

GUIDED = DiffuserConfig(
    horizon=4,
    diffusion_steps=6,
    dim=16,
    dim_mults=(1, 2),
    prediction="x0",
    clip=None,
    normalizer="gaussian",
    return_model=True,
)
ACTING = DiffuserActing(candidates=2, rank="return", replan_every=1)
STATISTICS = measure(GUIDED, straight_lines(30), POINT)


def build(**options):
    config, acting = replaced(GUIDED, ACTING, options)
    return diffuser(config, acting, STATISTICS, POINT)


# --- one program for all settings ----------------------------------------------------


STATES = {"denoiser": held(0.6), "returns": held(0.8)}


@pytest.fixture
def pointwise(monkeypatch):
    """Networks of one number, so that nothing takes long to compile."""
    denoise = types.SimpleNamespace(apply=lambda p, x, t: p * jnp.tanh(x))
    value = types.SimpleNamespace(apply=lambda p, x, t: p * jnp.sin(x).sum((1, 2)))
    name = use_network(monkeypatch, denoise)
    monkeypatch.setattr(module, "_return_network", lambda config: value)
    return name


SETTINGS = [(3.0, 0), (3.0, 3), (9.0, 3), (0.0, 0), (9.0, 6)]  # of 6 levels
# Steps and settings to be compared with a run of these options: all that differ once.
ALONE = [(1, 1), (3, 2)]


@pytest.mark.parametrize(
    ("episodes", "options"),
    [
        pytest.param(2, {}, marks=pytest.mark.slow),
        (3, {"guide_at": "mean", "replan_every": 2, "warm_start": 2}),
    ],
)
def test_every_setting_acts_as_a_run_of_its_options(pointwise, episodes, options):
    scales, stops = np.array(SETTINGS, np.float32).T
    counts, options = (1, 3), {"network": pointwise, **options}
    seeds = range(7, 7 + episodes)
    policy = SettingsPolicy(
        [build(guide_steps=count, **options) for count in counts],
        STATES,
        Guidance(scale=scales, stop=stops),
        seeds=seeds,
    )
    shape = (len(counts), len(SETTINGS), episodes)
    # All settings see the same, so that actions differ by guidance alone.
    seen = np.random.default_rng(0).uniform(-1, 1, (5, 1, 1, episodes, 2))
    observations = np.broadcast_to(seen, (5, *shape, 2))
    flat = [np.prod(shape), 2]
    together = [policy(observed.reshape(flat)) for observed in observations]
    together = np.reshape(together, (5, *shape, 2))
    for count, s in ALONE:
        (scale, stop), k = SETTINGS[s], counts.index(count)
        alone = build(guide_scale=scale, guide_stop=stop, guide_steps=count, **options)
        acting = Policy(alone, STATES, POINT, num_envs=episodes, seeds=seeds)
        for t in range(5):
            action = acting(observations[t, k, s])
            np.testing.assert_allclose(together[t, k, s], action, atol=1e-5)
    # Settings differ, but for guidance that is off or never begins.
    first = together[0, :, :, 0, 0] - together[0, :, 3:4, 0, 0]
    assert len(np.unique(first[:, :3].round(4))) == 6
    np.testing.assert_allclose(first[:, 3:], 0, atol=1e-6)


def plans_of(value, batch, horizon):
    """Plans whose every entry is a value."""
    x, zeros = jnp.zeros((batch, 1, horizon, 4)) + value, jnp.zeros((batch, 1))
    return Plans(trajectories=x, dynamics_error=zeros, expected_return=zeros)


def test_clocks_are_shared_so_that_plans_are_made_when_due(monkeypatch):
    made = []

    def plan(states, keys, problem, *, horizon):
        scale = problem.guidance.scale
        jax.debug.callback(lambda scale: made.append(float(scale)), scale)
        return plans_of(scale, len(problem.history), horizon)

    monkeypatch.setattr(module, "planner", lambda *args: plan)
    guidance = Guidance(scale=np.array([1.0, 2.0]), stop=np.zeros(2))
    policy = SettingsPolicy([build(replan_every=3)], {}, guidance, seeds=[0])
    for _ in range(5):
        action = policy(np.zeros((2, 2)))
        np.testing.assert_array_equal(action, [[1, 1], [2, 2]])
    jax.effects_barrier()
    assert sorted(made) == [1, 1, 2, 2]


# --- closed loop ---------------------------------------------------------------------


class Target(gymnasium.Env):
    """Pays more the nearer actions are to a target, which depends on the seed."""

    observation_space = gymnasium.spaces.Box(-10, 10, (2,))
    action_space = gymnasium.spaces.Box(-100, 100, (2,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.target = 23.0 + 0.1 * seed
        return np.zeros(2, np.float32), {}

    def step(self, action):
        assert np.isfinite(action).all()
        reward = -abs(action[0] - self.target)
        return np.zeros(2, np.float32), float(reward), False, False, {}


gymnasium.register("Target-v0", Target)


def planner(config, acting, statistics, spec, pieces):
    """Plans whose actions say their guidance: 10 a step, 1 a level, and the scale."""

    def plan(states, keys, problem, *, horizon):
        guidance = problem.guidance or Guidance(
            scale=acting.guide_scale, stop=acting.guide_stop
        )
        scale = jnp.where(guidance.scale > 3, jnp.nan, guidance.scale)
        value = 10 * acting.guide_steps + guidance.stop + scale
        return plans_of(value, len(problem.history), horizon)

    return plan


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "planner", planner)
    return made_run(tmp_path / "a run")


def made_run(path, environment="Target-v0", **options):
    config, acting = replaced(GUIDED, ACTING, options)
    dataset = {
        "name": "toy", "references": {}, "metadata": {}, "evaluation": None,
        "environment": {"id": environment, "kwargs": {}, "max_episode_steps": None},
    }  # fmt: skip
    document = {
        "dataset": dataset, "config": to_plain(GUIDED), "acting": to_plain(ACTING),
    }  # fmt: skip
    return Run(
        path, "diffuser", config, acting, STATISTICS, POINT, build(**options), {},
        document,
    )  # fmt: skip


LISTS = {"scales": [0.25, 1.0, 7.0], "stops": [4, 0, 2], "steps": [2, 1]}


def test_the_best_setting_is_found(run):
    record = tune_guidance(run, **LISTS, episodes=3, max_steps=5, seed=1)
    # Actions nearest to the targets 23.1 to 23.3 are 20 + 2 + 1.
    best = record["best"]
    assert (best["guide_steps"], best["guide_stop"], best["guide_scale"]) == (2, 2, 1.0)
    assert len(record["table"]) == 18
    for row in record["table"]:
        if row["guide_scale"] == 7.0:
            assert row["mean_return"] is row["return_interval"] is None
            continue
        action = 10 * row["guide_steps"] + row["guide_stop"] + row["guide_scale"]
        earned = -5 * np.abs(action - np.array([23.1, 23.2, 23.3]))
        assert row["mean_return"] == pytest.approx(earned.mean(), rel=1e-5)
        low, high = row["return_interval"]
        assert low <= row["mean_return"] <= high
    saved = json.loads((run.path / "evaluations" / "000.json").read_text())
    assert saved["best"] == {**best, "return_interval": list(best["return_interval"])}
    assert (saved["episodes"], saved["max_steps"], saved["seed"]) == (3, 5, 1)
    assert (run.path / "figures" / "guidance.png").stat().st_size > 1000


def test_the_best_setting_earns_the_same_when_it_is_evaluated(run):
    record = tune_guidance(run, **LISTS, episodes=2, max_steps=5)
    best = {k: v for k, v in record["best"].items() if k.startswith("guide")}
    gymnasium.register("Target5-v0", Target, max_episode_steps=5)
    scored, _ = evaluate(
        made_run(run.path, "Target5-v0", **best), episodes=2, num_envs=2, seed=0
    )
    assert scored["mean_return"] == pytest.approx(record["best"]["mean_return"])


def test_the_command_prints_what_to_do_next(run, monkeypatch, capsys):
    def load(path, *, best, overrides):
        assert path == run.path
        assert best
        return made_run(path, **overrides)

    monkeypatch.setattr("jaxdiff.run.load_run", load)
    monkeypatch.setattr("jaxdiff.run.open_run", lambda path: run)
    arguments = [
        *("tune-guidance", str(run.path), "--best", "--episodes", "1"),
        *("--max-steps", "2", "--candidates", "5", "--scales", "0.5", "1e-5"),
        *("--stops", "3", "--steps", "1", "2"),
    ]
    cli.main(arguments)
    out = capsys.readouterr().out
    command = (
        f"jaxdiff evaluate '{run.path}' --candidates 5 --guide-scale 1e-05 "
        "--guide-stop 3 --guide-steps 2 --best"
    )
    assert out.splitlines()[-1] == f"score it with: {command}"
    assert str(run.path / "figures" / "guidance.png") in out
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments[:10], "--scales", "9", "--stops", "0", "--steps", "1"])
    assert ended.value.code == 2
    assert "not finite); try smaller" in capsys.readouterr().err


@pytest.mark.parametrize("sampling_steps", [4, 5, 10, 20])
def test_default_stops_differ_even_in_few_steps(run, sampling_steps):
    run = run._replace(config=replaced(GUIDED, ACTING, {"diffusion_steps": 20})[0])
    steps = ddpm(subgrid(cosine_schedule(20), sampling_steps))
    moves = [
        [bool(step(stop, i, steps)) for i in range(sampling_steps)]
        for stop in default_stops(run)
    ]
    assert len({tuple(moved) for moved in moves}) == 3


def step(stop, i, steps):
    """Tell whether a guide that stops there moves a plan in step i of a sampler."""
    guide = value_guide(lambda x, level: x.sum(-1), scale=1.0, stop_time=stop)
    x = jnp.zeros((1, 2))
    return jnp.any(guide(x, jax.tree.map(lambda leaf: leaf[i], steps)) != x)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scales": []}, "`scales` is empty"),
        ({"stops": []}, "`stops` is empty"),
        ({"steps": []}, "`steps` is empty"),
        ({"scales": [0.1, -1.0]}, r"`scales` has -1.0; .*at least 0"),
        ({"scales": [np.nan]}, "`scales` has nan"),
        ({"scales": [np.inf]}, "`scales` has inf"),
        ({"stops": [-2]}, "`stops` has -2"),
        ({"steps": [0]}, "`steps` has 0; .*at least 1"),
        ({"episodes": 0}, "`episodes` is 0"),
        ({"max_steps": 0}, "`max_steps` is 0"),
    ],
)
def test_what_cannot_be_tried_is_refused(run, change, words):
    with pytest.raises(UserError, match=words):
        tune_guidance(run, **{**LISTS, **change})
    assert not run.path.exists()


def test_runs_that_cannot_be_guided_are_refused(run):
    for options, words in (
        ({"return_model": False, "rank": "consistency"}, "`return_model=True`"),
        ({"goal_dim": 2}, "`goal_dim=0`"),
    ):
        with pytest.raises(UserError, match=words):
            tune_guidance(made_run(run.path, **options), **LISTS)


def test_environments_are_closed(run, monkeypatch):
    closed = []
    make_env = tune.make_env

    def make(run, **options):
        env = make_env(run, **options)
        monkeypatch.setattr(env, "close", lambda: closed.append(env))
        return env

    monkeypatch.setattr(tune, "make_env", make)
    tune_guidance(run, scales=[1.0], stops=[0], steps=[1, 2], episodes=2, max_steps=1)
    assert len(closed) == 4
