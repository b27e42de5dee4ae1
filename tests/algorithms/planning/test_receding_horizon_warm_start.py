"""Plans that are renewed begin from what is left of the last: noising, shift, cost."""

import dataclasses
import json

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussians import Gaussian, assert_moments, moments
from points import straight_lines

from benchmarks import warm_start as benchmark
from jaxdiff.algorithms.base import TrainState
from jaxdiff.algorithms.planning import diffuser as module
from jaxdiff.algorithms.planning.diffuser import (
    DiffuserConfig,
    Plans,
    diffuser,
    measure,
)
from jaxdiff.data.normalizer import normalize, unnormalize
from jaxdiff.diffusion import (
    SampleOutput,
    cosine_schedule,
    ddim,
    ddpm,
    dpm_solver_pp,
    subgrid,
    take,
)
from jaxdiff.errors import UserError
from jaxdiff.run import Run

BASE = DiffuserConfig(
    horizon=4,
    horizons=(),
    diffusion_steps=40,
    dim=8,
    dim_mults=(1, 2),
    prediction="x0",
    clip=None,
    normalizer="gaussian",
    goal_dim=0,
    candidates=1,
    choose="fixed",
    controller="action",
    replan_every=1,
)
EPISODES = straight_lines(30)
STATISTICS = measure(BASE, EPISODES)
TABLES = {"ddpm": ddpm, "ddim": ddim, "dpmpp2m": dpm_solver_pp}


def build(**options):
    return diffuser(dataclasses.replace(BASE, **options), STATISTICS, action_dim=2)


# --- with an exact denoiser ----------------------------------------------------------

# Plans of 4 rows of 4 entries. The first state is known to the planner, so here it is
# independent of all that is free, and the free entries depend on each other.
FREE = np.ones((4, 4), bool)
FREE[0, 2:] = False
FREE = FREE.ravel()
RNG = np.random.default_rng(0)
MIXED = np.where(np.outer(FREE, FREE), RNG.normal(size=(16, 16)) / 4, 0.0)
DATA = Gaussian(mean=RNG.normal(size=16), cov=MIXED @ MIXED.T + np.diag([0.2] * 16))


COUNT = 4000


class Exact:
    """The network that predicts E[x0 | x_t]."""

    def apply(self, params, x, time):
        level = take(cosine_schedule(BASE.diffusion_steps), time[0].astype(int) + 1)
        return DATA.denoise(x.reshape(-1, 16), level).reshape(x.shape)


def marginal(data, count):
    """The free entries of a Gaussian, or of samples `[count, 16]`."""
    if isinstance(data, Gaussian):
        return Gaussian(data.mean[FREE], data.cov[np.ix_(FREE, FREE)])
    return np.asarray(data).reshape(count, 16)[:, FREE]


def planned(monkeypatch, warm=None, *, count=COUNT, **options):
    """Normalised free entries of plans, from warm plans `[count, 16]` or from noise."""
    monkeypatch.setattr(module, "_network", lambda config: Exact())
    state = TrainState(
        step=0, params=None, slow={"ema": {}}, model_state={}, opt_state=()
    )
    start = unnormalize(STATISTICS.normalizer, DATA.mean[:4].astype(np.float32))[2:]
    if warm is not None:
        warm = jnp.asarray(warm, jnp.float32).reshape(count, 4, 4)
        warm = unnormalize(STATISTICS.normalizer, warm)
    plans = jax.jit(build(**options).plan)(
        {"denoiser": state}, jax.random.key(1), jnp.tile(start, (count, 1)), init=warm
    )
    x = normalize(STATISTICS.normalizer, plans.trajectories)
    # The present state is the known one, not that of the plan before.
    known = DATA.mean[2:4] + np.zeros((count, 1, 2))
    np.testing.assert_allclose(x[:, :, 0, 2:], known, atol=1e-5)
    return marginal(x, count)


@pytest.mark.parametrize(
    ("sampler", "steps", "level"),
    [("ddpm", None, 12), ("ddim", 10, 4), ("dpmpp2m", 10, 4), ("dpmpp2m", None, 1)],
)
def test_plans_of_the_data_stay_plans_of_the_data(monkeypatch, sampler, steps, level):
    warm = np.random.default_rng(1).multivariate_normal(DATA.mean, DATA.cov, COUNT)
    found = planned(
        monkeypatch, warm, sampler=sampler, sampling_steps=steps, warm_start=level
    )
    walked = cosine_schedule(BASE.diffusion_steps)
    walked = walked if steps is None else subgrid(walked, steps)
    below, at = take(walked, np.arange(level + 1)), take(walked, level)
    noised = Gaussian(
        at.alpha * DATA.mean, at.alpha**2 * DATA.cov + at.sigma**2 * np.eye(16)
    )
    # To the letter what a table of these levels does, and nearly the data: a sampler
    # of few steps loses a little of their spread.
    exact = moments(DATA, TABLES[sampler](below), init=noised)
    assert_moments(found, marginal(exact, 0), slack=0.01)
    assert_moments(found, marginal(DATA, 0), slack=0.2 if steps else 0.08)


def test_from_the_last_level_any_plan_is_forgotten(monkeypatch):
    options = {"sampling_steps": 20, "warm_start": 20}
    far = planned(monkeypatch, np.full((COUNT, 16), 3.0), **options)
    cold = planned(monkeypatch, None, **options)
    assert_moments(far, Gaussian(cold.mean(0), np.cov(cold.T)), slack=0.06)
    # Of a lower level the plan is remembered.
    near = planned(
        monkeypatch, np.full((COUNT, 16), 3.0), sampling_steps=20, warm_start=4
    )
    assert np.abs(near.mean(0) - cold.mean(0)).mean() > 0.5


def test_candidates_start_from_one_plan_with_noise_of_their_own(monkeypatch):
    monkeypatch.setattr(module, "_network", lambda config: Exact())
    # Whatever the plans become, they begin like this.
    monkeypatch.setattr(
        module,
        "sample",
        lambda *args, init, **options: SampleOutput(init, None, None),
    )
    warm = RNG.normal(size=(3, 4, 4)).astype(np.float32)
    level = take(cosine_schedule(BASE.diffusion_steps), 5)
    state = TrainState(
        step=0, params=None, slow={"ema": {}}, model_state={}, opt_state=()
    )

    def init(**options):
        plans = build(warm_start=5, **options).plan(
            {"denoiser": state}, jax.random.key(0), jnp.zeros((3, 2)), init=warm,
            candidates=400,
        )  # fmt: skip
        return np.asarray(normalize(STATISTICS.normalizer, plans.trajectories))

    expected = level.alpha * normalize(STATISTICS.normalizer, warm)
    still = init(temperature=0.0)
    np.testing.assert_allclose(still, expected[:, None] + 0 * still, atol=1e-5)
    noise = (init() - still) / level.sigma
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 1], atol=0.03)
    assert len(np.unique(noise.round(5))) > 0.95 * noise.size


# --- acting --------------------------------------------------------------------------


def actor(monkeypatch, planner, **options):
    """Acting with plans that we make up; resets `[T, B]` to actions `[T, B]`."""
    monkeypatch.setattr(module, "_planner", lambda *args: planner)
    algorithm = build(**{"warm_start": 2, **options})
    act = jax.jit(algorithm.act)

    def play(resets, goal=None):
        resets = np.asarray(resets, bool)
        carry, actions = algorithm.init_carry(resets.shape[1]), []
        for t, reset in enumerate(resets):
            observation = np.full((len(reset), 2), t, np.float32)
            output, carry = act(
                {}, carry, jax.random.key(t), observation, reset, goal=goal
            )
            actions.append(np.asarray(output.action[:, 0]))
        return np.array(actions, int)

    return play


def keeping(made):
    """A planner that returns its warm plan, and tells when it made one of its own.

    Entries of its own plans are 100 times the time, plus the row. `made` grows by
    "warm" or "cold" with every plan that the program really makes.
    """

    def plan(states, key, observation, goal=None, *, horizon=None, init=None):
        kind = "cold" if init is None else "warm"
        jax.debug.callback(lambda: made.append(kind))
        if init is None:
            row = 100 * observation[:, :1] + jnp.arange(horizon)
            init = jnp.broadcast_to(row[:, :, None], (len(row), horizon, 4))
        assert init.shape[1] == horizon
        return Plans(
            trajectories=init[:, None], dynamics_error=jnp.zeros((len(init), 1))
        )

    return plan


def begins(steps, *at):
    """Resets of agents that begin at 0 and at the given times."""
    return np.stack([np.isin(np.arange(steps), [0, *times]) for times in at], axis=1)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_who_keeps_the_shifted_plan_follows_one_path(monkeypatch, every):
    play = actor(monkeypatch, keeping([]), replan_every=every, horizon=8)
    actions = play(begins(12, []))[:, 0]
    # At the end of the path the last row is all there is to go on from.
    assert actions.tolist() == [*range(8), 7, 7, 7, 7]


def test_on_the_way_to_a_goal_shorter_plans_keep_to_the_path(monkeypatch):
    play = actor(
        monkeypatch,
        keeping([]),
        replan_every=2,
        horizon=12,
        horizons=(4, 8),
        goal_dim=2,
    )
    actions = play(begins(14, []), goal=np.zeros((1, 2), np.float32))[:, 0]
    assert actions.tolist()[:12] == [*range(12)]


@pytest.mark.parametrize("every", [1, 2])
def test_episodes_begin_with_plans_from_noise(monkeypatch, every):
    play = actor(monkeypatch, keeping([]), replan_every=every, horizon=8)
    actions = play(begins(9, [3], [], [4, 6], [8]))
    assert actions[:, 0].tolist() == [0, 1, 2, *range(300, 306)]
    assert actions[:, 1].tolist() == [*range(8), 7]
    assert actions[:, 2].tolist() == [0, 1, 2, 3, 400, 401, 600, 601, 602]
    assert actions[:, 3].tolist() == [*range(8), 800]


def test_only_the_plans_that_are_needed_are_made(monkeypatch):
    made = []
    play = actor(monkeypatch, keeping(made), replan_every=2, horizon=8)

    def counts(resets):
        made.clear()
        play(resets)
        jax.effects_barrier()
        return made.count("cold"), made.count("warm")

    # Plans are due every other step.
    assert counts(begins(9, [])) == (1, 4)
    assert counts(begins(9, [3])) == (2, 3)
    # Three at once; one of them begins when the plans of the others are due.
    assert counts(begins(9, [], [], [4])) == (2, 4)


@pytest.mark.parametrize("batch", [1, 3])
def test_without_warm_starts_every_plan_comes_from_noise(monkeypatch, batch):
    made = []
    play = actor(monkeypatch, keeping(made), horizon=8, warm_start=0)
    actions = play(begins(6, *[[]] * batch))
    jax.effects_barrier()
    assert made == ["cold"] * 6
    np.testing.assert_array_equal(
        actions, np.arange(0, 600, 100)[:, None] + 0 * actions
    )


def test_a_lost_agent_does_not_go_on_from_its_plan(monkeypatch):
    made = []
    statistics = measure(BASE, dataclasses.replace(
        EPISODES, observations=np.tile(EPISODES.observations, 2)
    ))  # fmt: skip
    monkeypatch.setattr(module, "_planner", lambda *args: keeping(made))
    config = dataclasses.replace(
        BASE, warm_start=2, lost=0.5, controller="track", goal_dim=2, horizon=8
    )
    plans = {"still": 0.0, "away": 5.0}
    for name, moved in plans.items():
        made.clear()

        def planner(*args, **options):
            plans = keeping(made)(*args, **options)
            x = jnp.zeros((*plans.trajectories.shape[:3], 6))
            return dataclasses.replace(plans, trajectories=x)

        monkeypatch.setattr(module, "_planner", lambda *args, planner=planner: planner)
        algorithm = diffuser(config, statistics, action_dim=2)
        act, carry = jax.jit(algorithm.act), algorithm.init_carry(1)
        for t, place in enumerate((0.0, moved)):
            observation = np.full((1, 4), place, np.float32)
            _, carry = act(
                {}, carry, jax.random.key(t), observation, np.array([t == 0])
            )
        jax.effects_barrier()
        assert made == ["cold", "cold" if name == "away" else "warm"]


# --- options -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"warm_start": -1}, "--warm-start is -1; it must be at least 0"),
        ({"warm_start": 41}, "--warm-start is 41; .* at most the 40 "),
        ({"warm_start": 6, "sampling_steps": 5}, "--warm-start is 6; .* the 5 "),
        (
            {"warm_start": 1, "choose": "earliest", "goal_dim": 2},
            "--choose earliest .*--choose fixed",
        ),
    ],
)
def test_levels_that_are_not_walked_are_refused(change, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(BASE, **change)
    dataclasses.replace(BASE, **{**change, "warm_start": 0})
    dataclasses.replace(BASE, warm_start=5, sampling_steps=5)


# --- the benchmark -------------------------------------------------------------------


class Ten(gymnasium.Env):
    """Ten steps, each paid what the first action is."""

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

    def planner(config, statistics, action_dim):
        def plan(states, key, observation, goal=None, *, horizon=4, init=None):
            value = 0.0 if init is None else config.warm_start / 100
            x = jnp.full((len(observation), 1, horizon, 4), value)
            return Plans(trajectories=x, dynamics_error=jnp.zeros((len(x), 1)))

        return plan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_planner", planner)
        algorithm = build(**options)
    dataset = {
        "environment": environment, "action_dim": 2, "name": "toy",
        "references": references or {},
    }  # fmt: skip
    config = dataclasses.replace(BASE, **options)
    return Run(
        path, "diffuser", config, STATISTICS, algorithm, {}, {"dataset": dataset}
    )


@pytest.mark.parametrize("references", [None, {"random": 0.0, "expert": 2.0}])
def test_every_level_is_played_timed_and_drawn(tmp_path, monkeypatch, references):
    def load(path, overrides=None):
        return toy_run(path, references=references, **(overrides or {}))

    monkeypatch.setattr(benchmark, "load_run", load)
    options = benchmark.Options(run=tmp_path / "run", episodes=2, calls=3)
    benchmark.main(options, directory=tmp_path)
    rows = json.loads((tmp_path / "warm-start.json").read_text())
    metric = "score" if references else "return"
    found = {row["setting"]: row["value"] for row in rows if row["metric"] == metric}
    # The first of ten plans is from noise.
    paid = {f"40 levels;k={k}": 9 * k / 100 for k in (1, 2, 10, 20, 40)}
    scale = 50 if references else 1
    assert found == pytest.approx({k: scale * value for k, value in paid.items()})
    rates = [row for row in rows if row["metric"] == "plans_per_second"]
    assert [row["n"] for row in rates] == [3] * 5
    assert all(0 < row["low"] <= row["value"] <= row["high"] for row in rates)
    assert rows[0]["command"] == (
        "python -m benchmarks.warm_start RUN --episodes 2 --seed 1000 --calls 3"
    )
    assert (tmp_path / "figures" / "warm-start.png").stat().st_size > 1000


def test_levels_may_be_fewer_or_more_than_the_runs(tmp_path, monkeypatch):
    def load(path, overrides=None):
        return toy_run(path, references=None, **(overrides or {}))

    monkeypatch.setattr(benchmark, "load_run", load)
    options = benchmark.Options(tmp_path / "run", episodes=1, calls=1, sampling_steps=3)
    benchmark.main(options, directory=tmp_path)
    rows = json.loads((tmp_path / "warm-start.json").read_text())
    found = [row["setting"] for row in rows if row["metric"] == "return"]
    assert found == [f"3 levels;k={k}" for k in (1, 2, 3)]
    assert rows[0]["command"].endswith("--calls 1 --sampling-steps 3")


def test_one_level_may_be_played_by_itself(tmp_path, monkeypatch):
    def load(path, overrides=None):
        return toy_run(path, references=None, **(overrides or {}))

    monkeypatch.setattr(benchmark, "load_run", load)
    options = benchmark.Options(tmp_path / "run", episodes=1, calls=1, levels=(20,))
    benchmark.main(options, directory=tmp_path)
    rows = json.loads((tmp_path / "warm-start.json").read_text())
    assert {row["setting"] for row in rows} == {"40 levels;k=20"}
    assert rows[0]["command"].endswith("--calls 1 --levels 20")
    # A picture of one level would replace that of all.
    assert not (tmp_path / "figures").exists()
    for level in (0, 41):
        wrong = dataclasses.replace(options, levels=(level,))
        with pytest.raises(UserError, match=f"--levels has {level}; .* from 1 to 40"):
            benchmark.main(wrong, directory=tmp_path)


def test_levels_are_those_walked():
    assert benchmark.levels(BASE) == [1, 2, 10, 20, 40]
    assert benchmark.levels(dataclasses.replace(BASE, sampling_steps=10)) == [
        1, 2, 5, 10,
    ]  # fmt: skip
    assert benchmark.levels(dataclasses.replace(BASE, sampling_steps=1)) == [1]


def test_only_runs_of_control_are_scored(tmp_path, monkeypatch):
    maze = toy_run(tmp_path, "PointMaze_UMaze-v3")
    monkeypatch.setattr(benchmark, "load_run", lambda path, **_: maze)
    with pytest.raises(UserError, match="run of a maze"):
        benchmark.main(benchmark.Options(run=tmp_path), directory=tmp_path)
    with pytest.raises(UserError, match="--calls is 0"):
        benchmark.main(benchmark.Options(run=tmp_path, calls=0), directory=tmp_path)
