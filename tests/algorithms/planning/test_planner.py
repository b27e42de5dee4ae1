"""Tasks that nothing was trained for: values, projections, known entries, mixtures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussians import Gaussian
from planners import MOVING, held, keys_of, replaced, use_network

from jaxdiff import diffusion
from jaxdiff.algorithms.base import Algorithm
from jaxdiff.algorithms.planning import planner as module
from jaxdiff.algorithms.planning.diffuser import (
    DiffuserActing,
    DiffuserConfig,
    diffuser,
)
from jaxdiff.algorithms.planning.dynamics import Dynamics
from jaxdiff.algorithms.planning.planner import Plans, Problem
from jaxdiff.algorithms.planning.support import Support
from jaxdiff.algorithms.planning.trajectories import Statistics
from jaxdiff.data.normalizer import fit_normalizer, normalize
from jaxdiff.diffusion import Clamp
from jaxdiff.errors import UserError
from jaxdiff.plans import interpolate, plan, ranking
from jaxdiff.run import Run

RNG = np.random.default_rng(0)
CENTER, RADIUS = np.array([0.5, -1.0]), 0.7

# --- discs and boxes -----------------------------------------------------------------


def test_keep_out_moves_to_the_nearest_point_outside():
    points = RNG.uniform(-1.5, 1.5, (200, 2)) + CENTER
    x = jnp.asarray(np.concatenate([RNG.normal(size=(200, 1)), points], 1), "float32")
    moved = diffusion.keep_out(CENTER, RADIUS, dims=(1, 2))(x)
    np.testing.assert_array_equal(moved[:, 0], x[:, 0])
    outside = np.linalg.norm(points - CENTER, axis=1) > RADIUS
    assert 20 < outside.sum() < 190
    np.testing.assert_array_equal(moved[outside], x[outside])
    # No point of the rim is nearer, and the one that was chosen lies on it.
    angle = np.linspace(0, 2 * np.pi, 2000)
    rim = CENTER + RADIUS * np.stack([np.cos(angle), np.sin(angle)], 1)
    nearest = np.linalg.norm(points[:, None] - rim, axis=-1).min(1)
    went = np.linalg.norm(np.asarray(moved)[:, 1:] - points, axis=1)
    np.testing.assert_allclose(went[~outside], nearest[~outside], atol=1e-4)
    distance = np.linalg.norm(np.asarray(moved)[~outside, 1:] - CENTER, axis=1)
    np.testing.assert_allclose(distance, RADIUS, rtol=1e-6)
    again = diffusion.keep_out(CENTER, RADIUS, dims=(1, 2))(moved)
    np.testing.assert_allclose(again, moved, atol=1e-6)


def test_the_centre_of_a_disc_leaves_along_the_first_of_its_dims():
    x = jnp.asarray([[*CENTER[::-1], 9.0]])
    moved = diffusion.keep_out(CENTER, RADIUS, dims=(1, 0))(x)
    np.testing.assert_allclose(moved, [[-1.0, 1.2, 9.0]], rtol=1e-6)
    value = diffusion.keep_out_value(CENTER, RADIUS, dims=(1, 0), width=0.1)
    slope = jax.grad(lambda x: value(x[None]).sum())(x)
    np.testing.assert_allclose(slope, [[0, RADIUS / 0.1**2, 0]], rtol=1e-4)


def test_discs_of_each_trajectory():
    x = jnp.zeros((2, 3, 2))
    center = jnp.array([[[0.1, 0.0]], [[0.0, 5.0]]])
    moved = diffusion.keep_out(center, jnp.array([[1.0], [2.0]]), dims=(0, 1))(x)
    np.testing.assert_allclose(moved[0], np.tile([-0.9, 0.0], (3, 1)), rtol=1e-6)
    np.testing.assert_array_equal(moved[1], x[1])


def test_a_box_limits_the_dims_that_it_names():
    x = jnp.asarray(RNG.normal(size=(5, 4, 3)), "float32")
    box = diffusion.clip_box(np.array([-0.5, 0.0]), 0.25, dims=(2, 0))(x)
    np.testing.assert_array_equal(box[..., 1], x[..., 1])
    np.testing.assert_array_equal(box[..., 2], np.clip(x[..., 2], -0.5, 0.25))
    np.testing.assert_array_equal(box[..., 0], np.clip(x[..., 0], 0.0, 0.25))


def test_value_of_keeping_out_is_half_the_square_of_the_way_out():
    x = jnp.asarray(RNG.uniform(-1, 1, (6, 9, 2)) + CENTER, "float32")
    value = diffusion.keep_out_value(CENTER, RADIUS, dims=(0, 1), width=0.1)
    way = x - diffusion.keep_out(CENTER, RADIUS, dims=(0, 1))(x)
    expected = -((way / 0.1) ** 2).sum((1, 2)) / 2
    assert (expected < -1).all()
    np.testing.assert_allclose(value(x), expected, rtol=1e-4)
    # The gradient leads to the nearest point outside, and is zero there.
    slope = jax.grad(lambda x: value(x).sum())(x)
    np.testing.assert_allclose(slope, -way / 0.1**2, atol=1e-3)


def test_value_of_passing_by_asks_where_and_not_when():
    point = np.array([1.0, 2.0])
    value = diffusion.pass_by_value(point, dims=(1, 2), width=0.5)
    x = jnp.asarray(RNG.normal(size=(4, 7, 3)), "float32")
    np.testing.assert_allclose(value(x), value(x[:, ::-1]), rtol=1e-5)
    at = x.at[..., 1:].set(point)
    np.testing.assert_allclose(value(at), 0, atol=1e-6)
    # A path of one row is a Gaussian error.
    offset = np.asarray(x)[:, :1, 1:] - point
    expected = -(offset**2).sum((1, 2)) / (2 * 0.5**2)
    np.testing.assert_allclose(value(x[:, :1]), expected, rtol=1e-5)
    # One row at the point is worth 1 of 7, wherever the others are.
    far = (x + 100).at[:, 3, 1:].set(point)
    np.testing.assert_allclose(value(far), -np.log(7), rtol=1e-5)
    # From afar, where the density is zero in float32, the nearest row is still pulled.
    away = jnp.array([[[0.0, 101.0, 2.0], [0.0, 201.0, 2.0]]])
    slope = jax.grad(lambda x: value(x).sum())(away)
    np.testing.assert_allclose(slope[0], [[0, -400.0, 0], [0, 0, 0]], atol=1e-3)


# --- climbing a value ----------------------------------------------------------------

# Three rows that hang together, and three that do not.
KERNEL = diffusion.smooth_covariance(3, 1.5)
TIED, LOOSE = (Gaussian(np.array([0.5, -1.0, 2.0]), cov) for cov in (KERNEL, np.eye(3)))
SLOPE = np.array([0.3, -0.1, 0.2])
LEVELS = diffusion.cosine_schedule(40)


def rowwise(data):
    """The exact denoiser of trajectories `[B, 3, 1]`."""
    return lambda x, level: data.denoise(x[..., 0], level)[..., None]


@pytest.mark.parametrize("data", [TIED, LOOSE])
@pytest.mark.parametrize("sampler", [diffusion.ddpm, diffusion.ddim])
def test_a_linear_value_samples_the_tilted_data(sampler, data):
    """N(m, K) times exp(s slope x) is N(m + s K slope, K), with the same noise."""
    denoise = diffusion.climb(
        rowwise(data), lambda x: x[..., 0] @ SLOPE, scale=0.8, covariance=data.cov
    )
    tilted = rowwise(Gaussian(data.mean + 0.8 * data.cov @ SLOPE, data.cov))
    steps = sampler(diffusion.subgrid(LEVELS, 4))
    found, expected = (
        diffusion.sample(jax.random.key(1), each, steps, (5, 3, 1)).x
        for each in (denoise, tilted)
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_quadratic_value_is_right_to_first_order():
    """Exact is (x0_hat + v k c) / (1 + v k); the flow errs by about (v k)^2 / 2."""
    x = jnp.asarray(RNG.normal(size=(50, 3, 1)), "float32")
    goal = np.array([[0.0], [0.5], [1.0]])
    for row in (5, 20, 39):
        level = diffusion.take(LEVELS, row)
        plain = rowwise(LOOSE)(x, level)
        v = float(level.sigma) ** 2
        for k in (0.02, 0.2):
            value = lambda x, k=k: -k / 2 * ((x - goal) ** 2).sum((1, 2))  # noqa: E731
            found = diffusion.climb(rowwise(LOOSE), value)(x, level)
            exact = (plain + v * k * goal) / (1 + v * k)
            error = np.abs(found - exact)
            bound = 0.6 * (v * k) ** 2 * np.abs(goal - plain) + 2e-6
            assert (error < bound).all()
            assert np.abs(exact - plain).max() > 4 * error.max()


def test_no_row_moves_further_than_it_is_uncertain():
    level = diffusion.take(LEVELS, 10)
    sigma = float(level.sigma)
    x = jnp.asarray(RNG.normal(size=(4, 5, 3)), "float32")
    denoise = lambda x, level: x  # noqa: E731
    steep = diffusion.climb(denoise, lambda x: 1e6 * (x[:, 2] @ SLOPE))(x, level)
    expected = np.array(x)
    expected[:, 2] += sigma * SLOPE / np.linalg.norm(SLOPE)
    np.testing.assert_allclose(steep, expected, atol=1e-5)
    # A steep hill is overshot by one of the short steps at most.
    start = 0.3 * sigma * x / jnp.linalg.norm(x, axis=-1, keepdims=True)
    hill = diffusion.climb(
        denoise, lambda x: -1e6 * (x**2).sum((1, 2)), substeps=10
    )(start, level)  # fmt: skip
    assert (np.linalg.norm(hill, axis=-1) <= sigma / 10 + 1e-6).all()
    # And where there is no slope, nothing moves.
    flat = diffusion.climb(denoise, lambda x: 0 * x.sum((1, 2)))(x, level)
    np.testing.assert_array_equal(flat, x)


def test_neighbours_follow_the_row_that_is_pulled():
    level = diffusion.take(LEVELS, 40)  # nothing but noise, so that P is K
    covariance = diffusion.smooth_covariance(21, 4.0)
    np.testing.assert_allclose(np.diag(covariance), 1)
    pull = lambda x: 0.1 * x[:, 10, 0]  # noqa: E731
    x = jnp.zeros((1, 21, 2))
    moved = diffusion.climb(lambda x, level: x, pull, covariance=covariance)(x, level)
    np.testing.assert_allclose(moved[0, :, 0], 0.1 * covariance[10], atol=1e-3)
    np.testing.assert_array_equal(moved[0, :, 1], 0)
    assert moved[0, 14, 0] == pytest.approx(0.1 * 0.99 * np.exp(-0.5), rel=1e-2)
    np.testing.assert_array_equal(diffusion.smooth_covariance(3, 0), np.eye(3))


# --- plans ---------------------------------------------------------------------------

# Metres and metres per second, not centred and not of one scale.
LOW = np.array([-1, -1, -2, 1, -5, -3], np.float32)
HIGH = np.array([1, 1, 4, 9, 5, 7], np.float32)
HALF = (HIGH - LOW) / 2
NORMALIZER = fit_normalizer("limits", np.stack([LOW, HIGH]))
START, GOAL = np.array([0.0, 2.0, 0.5, 0.0]), np.array([3.0, 8.0])


class Constant:
    """A network that always expects the same rows, whatever it is shown."""

    def __init__(self, rows):
        self.rows = normalize(NORMALIZER, rows)

    def apply(self, params, x, time):
        return jnp.broadcast_to(self.rows, x.shape)


class Linear:
    """A network whose estimate of normalised x0 is a linear map of x_t along time."""

    def apply(self, params, x, time):
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)), mode="edge")
        return (padded[:, :-2] + 2 * x + padded[:, 2:]) / 4


def tasked_run(monkeypatch, network, **options):
    config = DiffuserConfig(
        horizon=8, horizons=(4, 8, 12), network=use_network(monkeypatch, network),
        prediction="x0", diffusion_steps=6, clip=None, goal_dim=2,
    )  # fmt: skip
    config, acting = replaced(config, DiffuserActing(), options)
    statistics = Statistics(
        normalizer=NORMALIZER,
        dynamics=Dynamics(np.zeros((7, 4)), np.ones(4)),
        support=Support(np.zeros((1, 2), np.float32), np.float32(1e6)),
    )
    algorithm = diffuser(config, acting, statistics, MOVING)
    return Run(
        "runs/here", "planner", config, acting, statistics, MOVING, algorithm,
        {"denoiser": held({})}, {},
    )  # fmt: skip


def climbed(trajectories, slope):
    return 2 * (trajectories @ slope).sum(-1)


def kept_out(trajectories, disc):
    return diffusion.keep_out(disc[:2], disc[2], dims=(2, 3))(trajectories)


ROWS = RNG.uniform(LOW + 0.4 * HALF, HIGH - 0.4 * HALF, (8, 6)).astype("float32")


def whole(ranked):
    return np.concatenate([ranked.actions, ranked.observations], -1)


def free_entries():
    """Entries of a plan of 8 rows that are neither start nor goal."""
    free = np.ones((8, 6), bool)
    free[0, 2:] = False
    free[-1, 2:4] = False
    return free


def test_a_value_is_of_metres(monkeypatch):
    """From pure noise x0 is uncertain by half the range s: it moves by s^2 slope."""
    run = tasked_run(monkeypatch, Constant(ROWS), sampling_steps=1)
    slope = np.array([0.02, 0, 0.03, -0.02, 0, 0.01], np.float32)
    ranked = plan(
        run, START, GOAL, candidates=2, value=climbed, value_args=slope,
        value_scale=0.5, value_span=0,
    )  # fmt: skip
    free = free_entries()
    moved = (whole(ranked) - ROWS)[:, free]
    expected = (0 * ROWS + HALF**2 * slope)[free]
    np.testing.assert_allclose(moved, [expected] * 2, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        ranked.value, 2 * (whole(ranked) @ slope).sum(-1), rtol=1e-4
    )


def test_a_projection_is_of_metres_and_leaves_the_rest_alone(monkeypatch):
    run = tasked_run(monkeypatch, Constant(ROWS), sampler="dpmpp2m")
    disc = ROWS[3, 2:4] + np.array([0.5, 0.5])
    region = np.float32([*disc, 2.0])
    free, plain = (
        whole(plan(run, START, GOAL, candidates=2, project=each, project_args=region))
        for each in (kept_out, None)
    )
    distance = np.linalg.norm(plain[..., 2:4] - disc, axis=-1)
    inside = distance < 2
    inside[:, [0, -1]] = False
    assert inside[:, 3].all()
    assert not inside.all()
    np.testing.assert_allclose(
        free[inside][:, 2:4],
        kept_out(jnp.asarray(plain), region)[inside][:, 2:4],
        atol=1e-4,
    )
    np.testing.assert_array_equal(free[..., [0, 1, 4, 5]], plain[..., [0, 1, 4, 5]])
    np.testing.assert_array_equal(free[~inside], plain[~inside])


def test_known_entries_stand_bit_for_bit_and_start_and_goal_come_first(monkeypatch):
    run = tasked_run(monkeypatch, Linear())
    values, mask = RNG.uniform(LOW, HIGH, (8, 6)), RNG.random((8, 6)) < 0.3
    values = np.where(mask, values, np.nan).astype(np.float32)
    mask[0], mask[-1] = True, True
    values[0], values[-1] = HIGH, 3 * HIGH  # beyond the range of the data
    sample, seen = module.sample, []

    def spy(*args, **options):
        seen.append((sample(*args, **options), options["clamp"]))
        return seen[0][0]

    monkeypatch.setattr(module, "sample", spy)
    plans = run.algorithm.plan(
        run.states, keys_of(1),
        Problem(
            history=START[None, None], goal=GOAL[None],
            known=Clamp(values=values, mask=mask),
        ),
        candidates=3, return_path=True,
    )  # fmt: skip
    expected = values.copy()
    expected[0, 2:], expected[-1, 2:4] = START, GOAL
    x = np.asarray(plans.trajectories[0])
    for each in x:
        np.testing.assert_array_equal(each[mask], expected[mask])
    # And in the units of the network, at every noise level.
    (out, clamp), marked = seen[0], np.tile(mask, (3, 1, 1))
    assert clamp.mask.sum() == marked.sum()
    for level in out.path:
        np.testing.assert_array_equal(level[marked], clamp.values[marked])
    assert len(np.unique(x[:, ~mask])) > 2.5 * (~mask).sum()


def test_known_entries_of_another_horizon_are_refused(monkeypatch):
    run = tasked_run(monkeypatch, Linear())
    for values, mask in (
        (np.zeros((4, 6)), np.ones((8, 6), bool)),
        (np.zeros((8, 6)), np.ones((8, 4), bool)),
    ):
        with pytest.raises(UserError, match=r"`known` have shape .*\[8, 6\]"):
            plan(run, START, GOAL, known=Clamp(values=values, mask=mask))


def test_of_plans_about_as_good_the_most_consistent_comes_first(monkeypatch):
    strain = np.array([4.0, 1.0, 2.4, 9.0, 2.0])
    worth = np.array([3.0, 1.0, 2.7, 2.8, 2.6])

    def imagine(states, keys, problem, *, value, **options):
        assert (value, options["value_span"]) == ("a value", 7)
        x = jnp.zeros((1, 5, 8, 6)) + strain[:, None, None]
        return Plans(
            trajectories=x,
            dynamics_error=jnp.asarray(strain)[None],
            value=jnp.asarray(worth)[None] * problem.value_scale,
            path=x[None],
        )

    run = tasked_run(monkeypatch, Linear())
    run = run._replace(algorithm=Algorithm({}, None, None, imagine))
    ranked = plan(
        run, START, GOAL, candidates=5,
        value="a value", value_scale=3.0, value_span=7,
    )  # fmt: skip
    # 9 is the largest value, and only 9, 8.4 and 8.1 are within 1 of it.
    np.testing.assert_allclose(ranked.dynamics_error, [2.4, 4.0, 9.0, 1.0, 2.0])
    np.testing.assert_allclose(ranked.value, [8.1, 9.0, 8.4, 3.0, 7.8], rtol=1e-6)
    np.testing.assert_allclose(ranked.actions[:, 0, 0], ranked.dynamics_error)


def test_of_plans_about_as_good_the_least_departing_comes_before_the_consistent():
    plans = Plans(
        trajectories=jnp.zeros((1, 5, 8, 6)),
        dynamics_error=jnp.array([[1.0, 2.0, 3.0, 4.0, 0.1]]),
        value=jnp.array([[9.0, 9.0, 8.0, 8.0, 1.0]]),
        ood_distance=jnp.array([[5.0, 0.9, 0.2, 2.0, 0.1]]),
    )
    # The second and third depart nowhere, so that consistency decides between them.
    assert ranking(plans, DiffuserActing()).tolist() == [1, 2, 3, 0, 4]


def test_other_arrays_of_a_value_compile_nothing(monkeypatch, compilations):
    run = tasked_run(monkeypatch, Linear(), sampling_steps=2)
    slopes = np.eye(6, dtype=np.float32) / 50
    discs = np.float32([[1.0, 4.0, 0.5], [2.0, 5.0, 1.0]])
    task = {"value": climbed, "project": kept_out, "candidates": 2}
    found = []
    for i in range(2):
        compilations.clear()
        known = Clamp(values=np.full((8, 6), i + 1.0), mask=np.zeros((8, 6), bool))
        ranked = plan(
            run, START, GOAL, **task, value_args=slopes[i + 2], value_scale=1.0 + i,
            project_args=discs[i], known=known, seed=i,
        )  # fmt: skip
        found.append(ranked.observations)
    assert not compilations
    assert np.abs(found[0] - found[1]).max() > 0.1


# --- mixtures ------------------------------------------------------------------------


def test_mixtures_of_a_linear_network_are_mixtures_of_its_answers(monkeypatch):
    run = tasked_run(monkeypatch, Linear(), temperature=0.3)
    rng, middle = np.random.default_rng(5), (LOW + HIGH) / 2
    # Far from the bounds of the data, at which plans would be cut off.
    first, second = middle + 0.2 * HALF * rng.uniform(-1, 1, (2, 8, 6))
    weights = np.array([0.0, 0.25, 1.0, 0.25])
    mixed = interpolate(run, first, second, weights, level=2, seed=3)
    assert mixed.shape == (4, 8, 6)
    np.testing.assert_allclose(
        mixed[1], 0.75 * mixed[0] + 0.25 * mixed[2], rtol=1e-4, atol=1e-4
    )
    # The noise is the same for all weights.
    np.testing.assert_array_equal(mixed[1], mixed[3])
    np.testing.assert_allclose(mixed[0, 0, 2:], first[0, 2:], rtol=1e-5)
    np.testing.assert_allclose(mixed[2, -1, 2:4], second[-1, 2:4], rtol=1e-5)
    other = interpolate(run, first, second, weights, level=2, seed=4)
    assert (np.abs(other - mixed).max((1, 2)) > 1e-2).all()


def test_the_level_says_how_much_of_the_plans_is_kept(monkeypatch):
    run = tasked_run(monkeypatch, Linear(), diffusion_steps=30)
    ramp = np.linspace(0, 1, 8)[:, None]
    first, second = LOW + ramp * HALF, HIGH - ramp * HALF
    mixed = [interpolate(run, first, second, [0.5], level=level) for level in (1, 30)]
    strayed = [np.abs(x - (first + second) / 2).mean() for x in mixed]
    assert strayed[0] < 0.2 < 0.5 < strayed[1]


def test_a_whole_way_back_forgets_the_plans(monkeypatch):
    run = tasked_run(monkeypatch, Constant(ROWS))
    mixed = interpolate(run, 0 * ROWS + 1, 0 * ROWS + 2, [0.0, 1.0], level=6)
    free = free_entries()
    np.testing.assert_allclose(mixed[:, free], [ROWS[free]] * 2, rtol=1e-4, atol=1e-5)


def test_plans_that_cannot_be_mixed_are_refused(monkeypatch):
    run = tasked_run(monkeypatch, Linear(), sampling_steps=3)
    for first, second in ((ROWS, ROWS[:4]), (ROWS[:, :4], ROWS[:, :4])):
        with pytest.raises(UserError, match="cannot be mixed"):
            interpolate(run, first, second, [0.5], level=1)
    for level in (0, 4):
        with pytest.raises(UserError, match=f"`level` is {level}.*1 to 3"):
            interpolate(run, ROWS, ROWS, [0.5], level=level)
    idle = run._replace(algorithm=Algorithm({}, None, None, None))
    with pytest.raises(UserError, match="does not plan"):
        interpolate(idle, ROWS, ROWS, [0.5], level=1)
