"""Plans that are renewed begin from what is left of the last: noising, shift, cost."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussians import Gaussian, assert_moments, moments
from planners import MOVING, POINT, held, keys_of, replaced, use_network
from points import straight_lines

from jaxdiff.algorithms.planning import planner as planner_module
from jaxdiff.algorithms.planning.diffuser import (
    DiffuserActing,
    DiffuserConfig,
    diffuser,
    measure,
)
from jaxdiff.algorithms.planning.planner import Plans, Problem
from jaxdiff.algorithms.planning.receding_horizon import receding_horizon
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

BASE = DiffuserConfig(
    horizon=4,
    diffusion_steps=40,
    dim=8,
    dim_mults=(1, 2),
    prediction="x0",
    clip=None,
    normalizer="gaussian",
)
ACTING = DiffuserActing(replan_every=1)
EPISODES = straight_lines(30)
STATISTICS = measure(BASE, EPISODES, POINT)
TABLES = {"ddpm": ddpm, "ddim": ddim, "dpmpp2m": dpm_solver_pp}


def build(**options):
    config, acting = replaced(BASE, ACTING, options)
    return diffuser(config, acting, STATISTICS, POINT)


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
    network = use_network(monkeypatch, Exact())
    start = unnormalize(STATISTICS.normalizer, DATA.mean[:4].astype(np.float32))[2:]
    if warm is not None:
        warm = jnp.asarray(warm, jnp.float32).reshape(count, 4, 4)
        warm = unnormalize(STATISTICS.normalizer, warm)
    problem = Problem(history=jnp.tile(start, (count, 1, 1)), init=warm)
    plans = jax.jit(build(network=network, **options).plan)(
        {"denoiser": held({})}, keys_of(count, 1), problem
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
    network = use_network(monkeypatch, Exact())
    # Whatever the plans become, they begin like this.
    monkeypatch.setattr(
        planner_module,
        "sample",
        lambda *args, init, **options: SampleOutput(init, None, None),
    )
    warm = RNG.normal(size=(3, 4, 4)).astype(np.float32)
    level = take(cosine_schedule(BASE.diffusion_steps), 5)
    problem = Problem(history=jnp.zeros((3, 1, 2)), init=warm)

    def init(**options):
        plans = build(network=network, warm_start=5, **options).plan(
            {"denoiser": held({})}, keys_of(3), problem, candidates=400
        )
        x = np.asarray(normalize(STATISTICS.normalizer, plans.trajectories))
        return x[:, :, 1:]  # the first row holds the present state

    expected = level.alpha * normalize(STATISTICS.normalizer, warm[:, 1:])
    still = init(temperature=0.0)
    np.testing.assert_allclose(still, expected[:, None] + 0 * still, atol=1e-5)
    noise = (init() - still) / level.sigma
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 1], atol=0.03)
    assert len(np.unique(noise.round(5))) > 0.95 * noise.size


# --- acting --------------------------------------------------------------------------


def actor(planner, **options):
    """Acting with plans that we make up; resets `[T, B]` to actions `[T, B]`."""
    config, acting = replaced(BASE, ACTING, {"warm_start": 2, **options})
    act, init_carry, _ = receding_horizon(planner, config, acting, POINT)
    act = jax.jit(act)

    def play(resets, goal=None):
        resets = np.asarray(resets, bool)
        carry, actions = init_carry(resets.shape[1]), []
        for t, reset in enumerate(resets):
            observation = np.full((len(reset), 2), t, np.float32)
            output, carry = act(
                {}, carry, keys_of(len(reset), t), observation, reset, goal=goal
            )
            actions.append(np.asarray(output.action[:, 0]))
        return np.array(actions, int)

    return play


def keeping(made):
    """A planner that returns its warm plan, and tells when it made one of its own.

    Entries of its own plans are 100 times the time, plus the row. `made` grows by
    "warm" or "cold" with every plan that the program really makes.
    """

    def plan(states, keys, problem, *, horizon):
        observation, init = problem.history[:, -1], problem.init
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
def test_who_keeps_the_shifted_plan_follows_one_path(every):
    play = actor(keeping([]), replan_every=every, horizon=8)
    actions = play(begins(12, []))[:, 0]
    # At the end of the path the last row is all there is to go on from.
    assert actions.tolist() == [*range(8), 7, 7, 7, 7]


def test_on_the_way_to_a_goal_shorter_plans_keep_to_the_path():
    play = actor(
        keeping([]),
        replan_every=2,
        horizon=12,
        horizons=(4, 8),
        goal_dim=2,
    )
    actions = play(begins(14, []), goal=np.zeros((1, 2), np.float32))[:, 0]
    assert actions.tolist()[:12] == [*range(12)]


@pytest.mark.parametrize("every", [1, 2])
def test_episodes_begin_with_plans_from_noise(every):
    play = actor(keeping([]), replan_every=every, horizon=8)
    actions = play(begins(9, [3], [], [4, 6], [8]))
    assert actions[:, 0].tolist() == [0, 1, 2, *range(300, 306)]
    assert actions[:, 1].tolist() == [*range(8), 7]
    assert actions[:, 2].tolist() == [0, 1, 2, 3, 400, 401, 600, 601, 602]
    assert actions[:, 3].tolist() == [*range(8), 800]


def test_only_the_plans_that_are_needed_are_made():
    made = []
    play = actor(keeping(made), replan_every=2, horizon=8)

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
def test_without_warm_starts_every_plan_comes_from_noise(batch):
    made = []
    play = actor(keeping(made), horizon=8, warm_start=0)
    actions = play(begins(6, *[[]] * batch))
    jax.effects_barrier()
    assert made == ["cold"] * 6
    np.testing.assert_array_equal(
        actions, np.arange(0, 600, 100)[:, None] + 0 * actions
    )


def test_a_lost_agent_does_not_go_on_from_its_plan():
    made = []
    options = {"lost": 0.5, "controller": "track", "goal_dim": 2, "horizon": 8}
    config, acting = replaced(BASE, ACTING, {"warm_start": 2, **options})
    plans = {"still": 0.0, "away": 5.0}
    for name, moved in plans.items():
        made.clear()

        def planner(*args, **options):
            plans = keeping(made)(*args, **options)
            x = jnp.zeros((*plans.trajectories.shape[:3], 6))
            return dataclasses.replace(plans, trajectories=x)

        act, init_carry, _ = receding_horizon(planner, config, acting, MOVING)
        act, carry = jax.jit(act), init_carry(1)
        for t, place in enumerate((0.0, moved)):
            observation = np.full((1, 4), place, np.float32)
            _, carry = act({}, carry, keys_of(1, t), observation, np.array([t == 0]))
        jax.effects_barrier()
        assert made == ["cold", "cold" if name == "away" else "warm"]


# --- options -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"warm_start": -1}, "`warm_start` is -1; it must be at least 0"),
        ({"warm_start": 41}, "`warm_start` is 41; .* at most the 40 "),
        ({"warm_start": 6, "sampling_steps": 5}, "`warm_start` is 6; .* the 5 "),
        (
            {"warm_start": 1, "choose": "earliest", "goal_dim": 2},
            "`choose='earliest'` .*`choose='fixed'`",
        ),
    ],
)
def test_levels_that_are_not_walked_are_refused(change, words):
    with pytest.raises(UserError, match=words):
        build(**change)
    build(**{**change, "warm_start": 0})
    build(warm_start=5, sampling_steps=5)
