"""Diffuser with a model of returns: guidance, ranking, control without goals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planners import POINT, held, keys_of, replaced, use_network
from points import straight_lines

from jaxdiff.algorithms.planning import diffuser as module
from jaxdiff.algorithms.planning.diffuser import (
    DiffuserActing,
    DiffuserConfig,
    Guidance,
    diffuser,
    measure,
)
from jaxdiff.algorithms.planning.planner import Plans, Problem
from jaxdiff.algorithms.planning.receding_horizon import receding_horizon
from jaxdiff.data.normalizer import normalize
from jaxdiff.diffusion import cosine_schedule, take
from jaxdiff.errors import UserError

GUIDED = DiffuserConfig(
    horizon=4,
    diffusion_steps=6,
    dim=16,
    dim_mults=(1, 2),
    prediction="x0",
    clip=None,
    normalizer="gaussian",
    padding=True,
    action_weight=1.0,
    return_model=True,
)
ACTING = DiffuserActing(candidates=2, guide_scale=1.0, rank="return", replan_every=1)
EPISODES = straight_lines(30)
STATISTICS = measure(GUIDED, EPISODES, POINT)
START = Problem(history=np.zeros((1, 1, 2), np.float32))


def build(**options):
    config, acting = replaced(GUIDED, ACTING, options)
    return diffuser(config, acting, STATISTICS, POINT)


# --- guidance with exact models ------------------------------------------------------

MEAN, STD = 0.3, 0.8  # of every entry, independent, in normalised units


@dataclasses.dataclass
class Exact:
    """The denoiser of Gaussian data, and the log of E exp(return | x_t)."""

    steps: int
    slope: float
    curvature: float

    def posterior(self, x, time):
        level = take(cosine_schedule(self.steps), time[0].astype(int) + 1)
        marginal = level.alpha**2 * STD**2 + level.sigma**2
        mean = MEAN + level.alpha * STD**2 / marginal * (x - level.alpha * MEAN)
        return mean, STD**2 * level.sigma**2 / marginal

    def apply(self, params, x, time):
        return self.posterior(x, time)[0]

    def returns(self, config):
        def apply(_, params, x, time):
            mean, variance = self.posterior(x, time)
            gained = self.slope**2 * variance - self.curvature * mean**2
            widen = 1 + self.curvature * variance
            return ((mean * self.slope + gained / 2) / widen).sum((1, 2))

        return type("Returns", (), {"apply": apply})()


def exact_plans(monkeypatch, *, slope=1.0, curvature=0.0, candidates=2000, **options):
    """Normalised plans of the exact models, `[C, H, D]`, and what is expected."""
    exact = Exact(200, slope, curvature)
    network = use_network(monkeypatch, exact)
    monkeypatch.setattr(module, "_return_network", exact.returns)
    algorithm = build(
        network=network, diffusion_steps=200, candidates=candidates, **options
    )
    states = {"denoiser": held({}), "returns": held({})}
    plans = jax.jit(algorithm.plan)(states, keys_of(1), START)
    x = normalize(STATISTICS.normalizer, plans.trajectories[0])
    return np.asarray(x), np.asarray(plans.expected_return[0])


@pytest.mark.parametrize("guide_at", ["x_t", "mean"])
@pytest.mark.parametrize("curvature", [0.0, 1.5])
def test_guided_plans_are_of_the_tilted_posterior(monkeypatch, guide_at, curvature):
    x, _ = exact_plans(monkeypatch, curvature=curvature, guide_at=guide_at)
    # p(x0) exp(slope x0 - curvature x0^2 / 2), entry by entry.
    precision = 1 / STD**2 + curvature
    mean, std = (MEAN / STD**2 + 1.0) / precision, precision**-0.5
    free = np.concatenate([x[:, 0, :2].ravel(), x[:, 1:].ravel()])
    assert abs(mean - MEAN) > 0.15  # unguided plans would be far off
    np.testing.assert_allclose(free.mean(), mean, atol=0.06)
    np.testing.assert_allclose(free.std(), std, rtol=0.06)
    # The present state is what it is, however little it is worth.
    start = normalize(STATISTICS.normalizer, np.zeros(4, np.float32))[2:]
    np.testing.assert_allclose(x[:, 0, 2:], x[:1, 0, 2:] + 0 * x[:, 0, 2:], atol=1e-6)
    np.testing.assert_allclose(x[0, 0, 2:], start, atol=1e-5)


def test_expected_returns_are_of_the_finished_plans(monkeypatch):
    x, expected = exact_plans(monkeypatch, slope=2.0, candidates=5)
    # At the least noise the exact model all but knows the plan.
    np.testing.assert_allclose(expected, 2 * x.sum((1, 2)), atol=0.1)


def test_guidance_can_be_off_stopped_and_placed(monkeypatch):
    def plans(**options):
        return exact_plans(monkeypatch, candidates=3, sampling_steps=5, **options)[0]

    plain = plans(guide_scale=0.0)
    # Two programs: a compiler may round them differently.
    np.testing.assert_allclose(plans(guide_stop=200), plain, atol=1e-5)
    guided = plans()
    assert (guided[:, 1:] > plain[:, 1:]).all()
    for change in (
        {"guide_at": "mean"},
        {"guide_steps": 2},
        {"guide_stop": 100},
        {"guide_scale_by": "std"},
        {"guide_scale": 0.5},
    ):
        other = plans(**change)
        assert (other[:, 1:] > plain[:, 1:]).all()
        assert np.abs(other - guided).max() > 1e-3


class Pointwise:
    """Networks of one number, so that nothing takes long to compile."""

    def apply(self, params, x, time):
        return params * x

    def value(self, params, x, time):
        return params * x.sum((1, 2))


def test_averaged_parameters_of_both_learners_plan(monkeypatch):
    network = Pointwise()
    name = use_network(monkeypatch, network)
    returns = type("Returns", (), {"apply": network.value})
    monkeypatch.setattr(module, "_return_network", lambda config: returns)
    plan = jax.jit(build(network=name).plan)

    def planned(denoiser, value):
        states = {"denoiser": held(denoiser), "returns": held(value)}
        return plan(states, keys_of(1), START)

    base = planned(0.5, 0.1)
    for other in (planned(0.6, 0.1), planned(0.5, 0.2)):
        assert (other.trajectories != base.trajectories).any()
        assert (other.expected_return != base.expected_return).any()


def test_both_learners_see_the_same_windows():
    learners = build().learners
    keys = jax.random.split(jax.random.key(2), 50)
    windows = [
        jax.vmap(learner.draw, (None, 0))(
            learner.prepare(EPISODES, {}, jax.random.key(0)), keys
        )
        for learner in (learners["denoiser"], learners["returns"])
    ]
    np.testing.assert_array_equal(windows[0], windows[1][0])


# --- ranking and control -------------------------------------------------------------


def actor(planner, **options):
    """Acting with plans that we make up: actions of every step, and when it planned."""
    config, acting = replaced(GUIDED, ACTING, options)
    act, init_carry, _ = receding_horizon(planner, config, acting, POINT)
    act = jax.jit(act)

    def play(steps, *, starts=(0,)):
        carry, outputs = init_carry(1), []
        for t in range(steps):
            observation = np.full((1, 2), t, np.float32)
            reset = np.array([t in starts])
            output, carry = act({}, carry, keys_of(1, t), observation, reset)
            outputs.append(output)
        actions = [int(output.action[0, 0]) for output in outputs]
        return actions, [bool(output.planned[0]) for output in outputs]

    return play


def rated(states, keys, problem, *, horizon):
    """Candidates 0, 1, 2: the last is the most consistent, the second worth most."""
    x = jnp.zeros((1, 3, horizon, 4)) + jnp.arange(3)[:, None, None]
    return Plans(
        trajectories=x,
        dynamics_error=jnp.array([[3.0, 2.0, 1.0]]),
        expected_return=jnp.array([[-5.0, 40.0, 7.0]]),
    )


@pytest.mark.parametrize(("rank", "taken"), [("return", 1), ("consistency", 2)])
def test_the_best_candidate_is_executed(rank, taken):
    assert actor(rated, rank=rank)(2)[0] == [taken, taken]


def telling(states, keys, problem, *, horizon):
    """Actions tell when the plan was made, how long it is and which row they are."""
    row = 10_000 * problem.history[:, -1, :1] + 100 * horizon + jnp.arange(horizon)
    x = jnp.broadcast_to(row[:, None, :, None], (1, 1, horizon, 4))
    zeros = jnp.zeros((1, 1))
    return Plans(trajectories=x, dynamics_error=zeros, expected_return=zeros)


@pytest.mark.parametrize(
    ("every", "renewed"), [(1, 1), (3, 3), (4, 4), (0, 4), (1000, 4)]
)
def test_without_a_goal_the_horizon_stays_and_plans_never_end(every, renewed):
    play = actor(telling, replan_every=every)
    actions, planned = play(14)
    # However long the episode, every plan has all 4 rows.
    made = [t - t % renewed for t in range(14)]
    assert actions == [10_000 * m + 400 + t - m for t, m in enumerate(made)]
    assert planned == [t % renewed == 0 for t in range(14)]


def test_a_new_episode_begins_with_a_new_plan():
    actions, planned = actor(telling, replan_every=4)(8, starts=(0, 3))
    assert planned == [True, False, False, True, False, False, False, True]
    assert actions[3:5] == [30_400, 30_401]


# --- options -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"return_model": False}, "`return_model=True`"),
        ({"return_model": False, "guide_scale": 0.0}, "`rank='return'`"),
        ({"horizons": (4, 8)}, "choose `horizons=4`"),
        ({"dim": 8}, "a width of 16"),
        ({"choose": "earliest"}, "`goal_dim` is 0"),
        ({"discount": 1.5}, "`discount` is 1.5"),
        ({"guide_steps": 0}, "`guide_steps` is 0"),
        ({"guide_scale": -1.0}, "`guide_scale` is -1"),
    ],
)
def test_options_that_contradict_each_other_are_refused(change, words):
    with pytest.raises(UserError, match=words):
        build(**change)


def test_only_the_horizon_of_the_model_can_be_planned_for():
    with pytest.raises(UserError, match="horizon 4 alone"):
        build().plan({"denoiser": held({})}, keys_of(1), START, horizon=8)


def test_without_a_model_of_returns_there_is_one_learner():
    off = {"return_model": False, "guide_scale": 0.0, "rank": "consistency"}
    plain = build(**off)
    assert list(plain.learners) == ["denoiser"]
    assert list(build().learners) == ["denoiser", "returns"]
    guided = dataclasses.replace(START, guidance=Guidance(scale=1.0, stop=0))
    with pytest.raises(UserError, match="`return_model=True`"):
        plain.plan({"denoiser": held({})}, keys_of(1), guided)


def test_guidance_takes_the_place_of_the_options(monkeypatch):
    name = use_network(monkeypatch, Pointwise())
    returns = type("Returns", (), {"apply": Pointwise().value})
    monkeypatch.setattr(module, "_return_network", lambda config: returns)
    states = {"denoiser": held(0.5), "returns": held(0.1)}
    asked = dataclasses.replace(START, guidance=Guidance(scale=3.0, stop=2))
    given = build(network=name).plan(states, keys_of(1), asked)
    options = build(network=name, guide_scale=3.0, guide_stop=2)
    expected = options.plan(states, keys_of(1), START)
    np.testing.assert_array_equal(given.trajectories, expected.trajectories)
