import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussians import (
    DATA,
    DIAGONAL,
    Gaussian,
    assert_moments,
    mixture_denoise,
    moments,
    row,
)

from jaxdiff import diffusion
from jaxdiff.diffusion import NoiseLevels

SAMPLERS = {
    "ddpm": diffusion.ddpm,
    "ddpm-beta": lambda levels: diffusion.ddpm(levels, variance="beta"),
    "diffusion-x": lambda levels: diffusion.ddpm(levels, extra_steps=3),
    "ddim": diffusion.ddim,
    "ddim-0.5": lambda levels: diffusion.ddim(levels, eta=0.5),
    "ddim-1": lambda levels: diffusion.ddim(levels, eta=1.0),
    "dpm-1": lambda levels: diffusion.dpm_solver_pp(levels, order=1),
    "dpm-2m": diffusion.dpm_solver_pp,
}
DETERMINISTIC = ("ddim", "dpm-1", "dpm-2m")
LEVELS = {
    "cosine": diffusion.cosine_schedule(20),
    "linear": diffusion.linear_schedule(50),
    "vp": diffusion.vp_schedule(5),
    "sub-grid": diffusion.subgrid(diffusion.cosine_schedule(200), 7),
    "continuous": diffusion.discretize(diffusion.vp_level, np.linspace(1e-3, 1, 10)),
    "one step": diffusion.vp_schedule(1),
}
SMALL = diffusion.subgrid(diffusion.cosine_schedule(30), 6)


def run(key, denoise, steps, shape, **options):
    return jax.jit(lambda key: diffusion.sample(key, denoise, steps, shape, **options))(
        jax.random.key(key)
    )


def log_snr_grid(num_steps, low=0.01, high=1.0):
    """Continuous VP levels evenly spaced in log(alpha / sigma)."""
    dense = np.geomspace(low, high, 100_000)
    level = diffusion.vp_level(dense)
    descending = np.log(level.alpha / level.sigma)
    wanted = np.linspace(descending[0], descending[-1], num_steps)
    times = np.interp(-wanted, -descending, dense)
    return diffusion.discretize(diffusion.vp_level, times)


# The tables.


@pytest.mark.parametrize("grid", LEVELS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_perfect_estimate_lands_on_the_next_level(name, grid):
    levels = LEVELS[grid]
    steps = SAMPLERS[name](levels)
    count = len(levels.alpha) - 1
    extra = len(steps.x) - count
    assert extra == (3 if name == "diffusion-x" else 0)
    for leaf in jax.tree.leaves(steps):
        assert leaf.dtype == np.float32
        assert leaf.shape == (count + extra,)
    rows = np.append(np.arange(count, 0, -1), np.ones(extra, int))
    t, s = diffusion.take(levels, rows), diffusion.take(levels, rows - 1)
    np.testing.assert_allclose(steps.level.time, t.time, rtol=1e-6)
    np.testing.assert_allclose(steps.level.alpha, t.alpha, rtol=1e-6)
    np.testing.assert_allclose(steps.level.sigma, t.sigma, rtol=1e-6)
    mean = steps.x * t.alpha + steps.x0 + steps.x0_prev
    np.testing.assert_allclose(mean, s.alpha, atol=1e-6)
    if name != "ddpm-beta":
        variance = (steps.x * t.sigma) ** 2 + steps.noise**2
        np.testing.assert_allclose(variance, s.sigma**2, atol=1e-6)
    np.testing.assert_array_equal(steps.noise[rows == 1], 0)
    np.testing.assert_array_equal(steps.x[rows == 1], 0)
    if name in DETERMINISTIC:
        np.testing.assert_array_equal(steps.noise, 0)


@pytest.mark.parametrize("grid", LEVELS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_variance_column_is_that_of_the_gaussian_bridge(name, grid):
    # 1/var = a^2/s2 + 1/sigma_s^2: the posterior of x_s given x_t and x0.
    levels = LEVELS[grid]
    steps = SAMPLERS[name](levels)
    for index in range(len(levels.alpha) - 2):
        t = diffusion.take(levels, len(levels.alpha) - 1 - index)
        s = diffusion.take(levels, len(levels.alpha) - 2 - index)
        beta = 1 - (t.alpha / s.alpha) ** 2
        precision = (1 - beta) / beta + 1 / s.sigma**2
        assert steps.variance[index] == pytest.approx(1 / precision, rel=1e-5)
    assert steps.variance[len(levels.alpha) - 2] == 0


def assert_same_tables(one, two, atol=1e-6):
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("grid", LEVELS)
def test_tables_that_must_agree(grid):
    levels = LEVELS[grid]
    assert_same_tables(diffusion.ddim(levels, eta=1.0), diffusion.ddpm(levels))
    first = diffusion.dpm_solver_pp(levels, order=1)
    assert_same_tables(first, diffusion.ddim(levels))


def test_ddpm_golden_coefficients():
    steps = diffusion.ddpm(diffusion.cosine_schedule(20))
    variance = {1: 0.00575, 2: 0.0152, 9: 0.1151, 18: 0.7349, 19: 0.993}
    for time, expected in variance.items():
        assert steps.level.time[19 - time] == time
        assert steps.noise[19 - time] ** 2 == pytest.approx(expected, rel=5e-3)
    for time, expected in {19: 0.031, 18: 0.49, 9: 0.787}.items():
        assert steps.x[19 - time] == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_ddpm_is_the_textbook_update_in_noise_form(variance):
    levels = diffusion.linear_schedule(50)
    steps = diffusion.ddpm(levels, variance=variance)
    rng = np.random.default_rng(0)
    for t in (50, 30, 2, 1):
        step, level = row(steps, 50 - t), diffusion.take(levels, t)
        beta = 1e-4 + (0.02 - 1e-4) * (t - 1) / 49
        x, noise = rng.normal(size=(2, 5))
        x0 = diffusion.to_x0(noise, x, level, prediction="noise")
        expected = (x - beta / level.sigma * noise) / np.sqrt(1 - beta)
        np.testing.assert_allclose(step.x * x + step.x0 * x0, expected, atol=1e-5)
        before = levels.sigma[t - 1]
        std = np.sqrt(beta) * (before / level.sigma if variance == "posterior" else 1)
        assert step.noise == pytest.approx(std if t > 1 else 0, rel=1e-4)


def test_second_order_extrapolates_only_between_first_and_last_step():
    steps = diffusion.dpm_solver_pp(SMALL)
    assert steps.x0_prev[0] == 0
    assert steps.x0_prev[-1] == 0
    assert np.all(steps.x0_prev[1:-1] < 0)
    # In between it extends the estimate, as a line in log SNR, to the interval's
    # middle; an uneven grid tells r from 1/r.
    levels = diffusion.discretize(
        diffusion.vp_level, np.array([0.01, 0.1, 0.15, 0.7, 1])
    )
    first = diffusion.dpm_solver_pp(levels, order=1)
    second = diffusion.dpm_solver_pp(levels)
    log_snr = np.log(levels.alpha[:0:-1] / levels.sigma[:0:-1])
    for i in range(1, 4):
        line = second.x0[i] * log_snr[i] + second.x0_prev[i] * log_snr[i - 1]
        middle = (log_snr[i] + log_snr[i + 1]) / 2
        assert line / first.x0[i] == pytest.approx(middle, rel=1e-4, abs=1e-4)


def test_warm_start_tables_are_the_tables_of_the_levels_they_walk():
    levels, start = LEVELS["cosine"], 8
    part = diffusion.take(levels, np.arange(start + 1))
    for name in ("ddpm", "ddpm-beta", "ddim", "ddim-0.5", "dpm-1"):
        whole = SAMPLERS[name](levels)
        tail = jax.tree.map(lambda leaf: leaf[-start:], whole)
        assert_same_tables(SAMPLERS[name](part), tail)
    warm = diffusion.dpm_solver_pp(part)
    assert warm.x0_prev[0] == 0 > diffusion.dpm_solver_pp(levels).x0_prev[-start]


def test_wrong_options_are_refused_with_the_choices():
    levels = LEVELS["vp"]
    with pytest.raises(ValueError, match="'posterior' or 'beta'"):
        diffusion.ddpm(levels, variance="learned")  # pyright: ignore
    with pytest.raises(ValueError, match="1 or 2"):
        diffusion.dpm_solver_pp(levels, order=3)  # pyright: ignore
    with pytest.raises(ValueError, match="eta"):
        diffusion.ddim(levels, eta=1.5)
    key, steps = jax.random.key(0), diffusion.ddim(levels)
    with pytest.raises(ValueError, match="'x_t' or 'mean'"):
        diffusion.sample(key, DATA.denoise, steps, (1, 3), guide_at="x0")  # pyright: ignore


# The scan, on Gaussian data with the exact denoiser.


@pytest.mark.parametrize("name", SAMPLERS)
def test_moments_follow_the_affine_recursion_of_the_table(name):
    steps = SAMPLERS[name](SMALL)
    out = run(0, DATA.denoise, steps, (100_000, 3))
    assert_moments(out.x, moments(DATA, steps))


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_samplers_are_the_exact_affine_map(name):
    steps = SAMPLERS[name](SMALL)
    init = jnp.concatenate([jnp.zeros((1, 3)), jnp.eye(3)])
    x = np.asarray(run(0, DATA.denoise, steps, (4, 3), init=init).x)
    for point, image in zip(np.asarray(init), x, strict=True):
        start = Gaussian(point, np.zeros((3, 3)))
        np.testing.assert_allclose(
            image, moments(DATA, steps, init=start).mean, atol=1e-5
        )
    again = run(7, DATA.denoise, steps, (4, 3), init=init)
    np.testing.assert_array_equal(again.x, x)


def ode_solution(data, levels):
    """Where the probability-flow ODE takes x = 0 and x = 1, then one denoising."""
    start, end = diffusion.take(levels, -1), diffusion.take(levels, 1)
    ratio = data.marginal_std(end) / data.marginal_std(start)
    points = np.stack([np.zeros_like(data.mean), np.ones_like(data.mean)])
    x = end.alpha * data.mean + ratio * (points - start.alpha * data.mean)
    return data.denoise(x, end)


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpm-1", 1), ("dpm-2m", 2)])
def test_errors_fall_at_the_order_of_the_solver(name, order):
    counts, errors = np.array([10, 20, 40, 80]), []
    init = jnp.stack([jnp.zeros(3), jnp.ones(3)])
    for count in counts:
        levels = log_snr_grid(count)
        x = run(0, DIAGONAL.denoise, SAMPLERS[name](levels), (2, 3), init=init).x
        errors.append(np.linalg.norm(x - ode_solution(DIAGONAL, levels)))
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.3)
    assert errors[-1] < (0.05 if order == 1 else 0.005)


@pytest.mark.parametrize("name", ["ddpm", "ddpm-beta", "ddim-0.5"])
def test_stochastic_samplers_reach_the_data_as_steps_grow(name):
    errors = []
    for count in (10, 200):
        steps = SAMPLERS[name](diffusion.cosine_schedule(count))
        x = run(1, DATA.denoise, steps, (20_000, 3)).x
        errors.append(np.abs(np.cov(np.asarray(x).T) - DATA.cov).max())
    assert_moments(x, DATA, slack=0.03)
    assert errors[0] > 2 * errors[1]


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpm-2m"])
def test_clamping_with_the_conditional_denoiser_gives_the_conditional(name):
    free, value = np.array([True, False, True]), np.array([-0.2])
    conditional = DATA.conditional(free, value)
    values = np.zeros(3)
    values[~free] = value
    clamp = diffusion.Clamp(values=values, mask=~free)

    def denoise(x, level):
        estimate = conditional.denoise(x[:, free], level)
        return jnp.asarray(x).at[:, free].set(estimate)

    few = SAMPLERS[name](SMALL)
    x = run(2, denoise, few, (100_000, 3), clamp=clamp).x
    np.testing.assert_array_equal(x[:, ~free], np.float32(value[0]))
    assert_moments(x[:, free], moments(conditional, few))
    many = SAMPLERS[name](diffusion.cosine_schedule(150))
    x = run(3, denoise, many, (20_000, 3), clamp=clamp).x
    assert_moments(x[:, free], conditional, slack=0.03)


# What the scan does besides.


@pytest.mark.parametrize("guide_at", ["x_t", "mean"])
@pytest.mark.parametrize("name", ["ddpm", "diffusion-x", "ddim", "dpm-2m"])
def test_clamped_entries_are_bit_equal_at_every_level(name, guide_at):
    values = jax.random.normal(jax.random.key(5), (4, 1, 3)) * 3
    mask = jnp.zeros((5, 3), bool).at[0, 1:].set(True).at[4, 0].set(True)
    out = run(
        0,
        DATA.denoise,
        SAMPLERS[name](SMALL),
        (4, 5, 3),
        clamp=diffusion.Clamp(values=values, mask=mask),
        guide=lambda x, step: x + 0.1,
        guide_at=guide_at,
        guide_steps=2,
        project=diffusion.clip_box(-0.5, 0.5),
        return_path=True,
    )
    clamped = np.broadcast_to(values, (4, 5, 3))[:, mask]
    assert np.abs(clamped).max() > 0.5
    for x in out.path:
        np.testing.assert_array_equal(x[:, mask], clamped)
    np.testing.assert_array_equal(out.x[:, mask], clamped)
    assert np.abs(out.x[:, ~mask]).max() <= 0.5
    assert np.abs(out.x0_path).max() <= 0.5


def test_guide_and_denoiser_see_only_clamped_samples():
    # Entry 0 is clamped to 7; whoever sees another value there says NaN.
    clamp = diffusion.Clamp(values=7.0, mask=np.array([True, False, False]))

    def checked(x):
        return jnp.where(x[:, :1] == 7, x, jnp.nan)

    for guide_at in ("x_t", "mean"):
        out = run(
            0,
            lambda x, level: DATA.denoise(checked(x), level),
            diffusion.ddpm(SMALL),
            (6, 3),
            clamp=clamp,
            guide=lambda x, step, at=guide_at: (checked(x) if at == "x_t" else x) + 1,
            guide_at=guide_at,
            guide_steps=2,
        )
        assert np.all(np.isfinite(out.x))


def test_projection_acts_on_estimates_and_result_but_not_on_the_way():
    out = run(
        0,
        lambda x, level: 5 * jnp.ones_like(x),
        diffusion.ddpm(SMALL),
        (50, 3),
        project=diffusion.clip_box(-1.0, np.array([0.1, 0.2, 0.3])),
        return_path=True,
    )
    np.testing.assert_allclose(out.x0_path[2, 0], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(out.x[0], [0.1, 0.2, 0.3])
    assert np.abs(out.path[1]).max() > 1.5


def test_path_and_x0_path_replay_the_table():
    steps = diffusion.dpm_solver_pp(SMALL)
    out = run(0, DATA.denoise, steps, (4, 3), return_path=True)
    assert out.path.shape == (7, 4, 3)
    assert out.x0_path.shape == (6, 4, 3)
    np.testing.assert_array_equal(out.path[-1], out.x)
    previous = np.zeros((4, 3))
    for index in range(6):
        step, x = row(steps, index), np.asarray(out.path[index], np.float64)
        x0 = DATA.denoise(x, step.level)
        np.testing.assert_allclose(out.x0_path[index], x0, atol=1e-5)
        after = step.x * x + step.x0 * x0 + step.x0_prev * previous
        np.testing.assert_allclose(out.path[index + 1], after, atol=1e-5)
        previous = x0
    plain = run(0, DATA.denoise, steps, (4, 3))
    assert plain.path is None
    assert plain.x0_path is None
    np.testing.assert_allclose(plain.x, out.x, atol=1e-6)


@pytest.mark.parametrize("name", ["ddpm", "ddim-0.5"])
def test_temperature_scales_standard_deviations(name):
    steps = SAMPLERS[name](SMALL)

    @jax.jit
    def path(temperature, init_temperature):
        return diffusion.sample(
            jax.random.key(3),
            DATA.denoise,
            steps,
            (8, 3),
            temperature=temperature,
            init_temperature=init_temperature,
            return_path=True,
        ).path

    one, half, none = path(1.0, None), path(0.5, None), path(0.0, None)
    np.testing.assert_allclose(half[0], 0.5 * one[0], rtol=1e-6)
    # All is affine in the noise, so half the temperature is half-way.
    np.testing.assert_allclose(half, (one + none) / 2, atol=1e-5)
    init, step = path(0.0, 1.0), path(1.0, 0.0)
    np.testing.assert_allclose(init[0], one[0], rtol=1e-6)
    np.testing.assert_array_equal(step[0], 0)
    np.testing.assert_allclose(init + step - none, one, atol=1e-5)
    assert np.abs(step - none).max() > 0.1

    out = run(4, DATA.denoise, steps, (50_000, 3), temperature=0.5)
    assert_moments(out.x, moments(DATA, steps, temperature=0.5))


@pytest.mark.parametrize("name", DETERMINISTIC[:2])
def test_a_warm_start_continues_the_way_it_left(name):
    levels = LEVELS["cosine"]
    whole = run(0, DATA.denoise, SAMPLERS[name](levels), (5, 3), return_path=True)
    part = SAMPLERS[name](diffusion.take(levels, np.arange(9)))
    warm = run(1, DATA.denoise, part, (5, 3), init=whole.path[12])
    np.testing.assert_allclose(warm.x, whole.x, atol=1e-5)


def test_a_warm_start_from_noised_data_keeps_their_distribution():
    levels = diffusion.cosine_schedule(200)
    x0 = jax.random.multivariate_normal(
        jax.random.key(0), DATA.mean, DATA.cov, (20_000,)
    )
    noise = jax.random.normal(jax.random.key(1), x0.shape)
    level = diffusion.take(levels, 60)
    init = diffusion.add_noise(x0, noise, level)
    steps = diffusion.ddpm(diffusion.take(levels, np.arange(61)))
    out = run(2, DATA.denoise, steps, x0.shape, init=init)
    noised = Gaussian(
        level.alpha * DATA.mean, level.alpha**2 * DATA.cov + level.sigma**2 * np.eye(3)
    )
    assert_moments(out.x, moments(DATA, steps, init=noised))
    assert_moments(out.x, DATA, slack=0.1)


def test_noise_differs_between_steps_and_between_keys():
    steps = diffusion.ddpm(SMALL)
    out = run(0, lambda x, level: 0 * x, steps, (2000, 1), return_path=True)
    noise = np.asarray(out.path)[1:-1, :, 0] - (
        steps.x[:-1, None] * np.asarray(out.path)[:-2, :, 0]
    )
    noise = np.concatenate([np.asarray(out.path)[:1, :, 0], noise])
    correlation = np.corrcoef(noise)
    assert np.abs(correlation - np.eye(len(correlation))).max() < 0.1
    other = run(1, lambda x, level: 0 * x, steps, (2000, 1), return_path=True)
    assert not np.any(np.asarray(other.path[1]) == np.asarray(out.path[1]))


# The denoiser.


@pytest.mark.parametrize("kind", ["noise", "x0", "v", "score"])
def test_denoiser_converts_and_tells_each_example_the_time(kind):
    levels = diffusion.discretize(diffusion.vp_level, np.linspace(0.05, 1, 8))

    def network(x_t, time):
        assert time.shape == (6,)
        level = diffusion.vp_level(time)
        x0 = jax.vmap(DATA.denoise)(x_t, level)
        return diffusion.from_x0(x0, x_t, level, prediction=kind)

    steps = diffusion.ddim(levels)
    x = run(0, diffusion.denoiser(network, prediction=kind), steps, (6, 3)).x
    np.testing.assert_allclose(x, run(0, DATA.denoise, steps, (6, 3)).x, atol=1e-3)


def test_denoiser_clips_the_estimate_on_both_sides():
    level = diffusion.take(SMALL, jnp.asarray(3))
    x = jnp.array([[-9.0, 0.1, 9.0]])
    clipped = diffusion.denoiser(lambda x, time: x, prediction="x0", clip=0.5)
    np.testing.assert_allclose(clipped(x, level), [[-0.5, 0.1, 0.5]])
    # With a noise network it is x0 that is clipped, not the noise.
    clipped = diffusion.denoiser(lambda x, time: 0 * x, prediction="noise", clip=0.5)
    expected = np.clip(x / level.alpha, -0.5, 0.5)
    np.testing.assert_allclose(clipped(x, level), expected, rtol=1e-6)


# Diffusion-X.


def mixture_radius(levels, extra_steps):
    means, std = np.array([[-0.5, -0.5], [0.5, 0.5]]), 0.1

    def denoise(x, level):
        return mixture_denoise(means, std, np.array([0.5, 0.5]), x, level)

    steps = diffusion.ddpm(levels, variance="beta", extra_steps=extra_steps)
    x = np.asarray(run(0, denoise, steps, (4000, 2)).x)
    distance = np.linalg.norm(x[:, None] - means, axis=-1)
    return distance.min(axis=1).mean() / std


def test_extra_steps_collapse_modes_of_cosine_but_not_of_pearce_schedule():
    cosine = diffusion.cosine_schedule(50)
    pearce = diffusion.linear_schedule(50, time="fraction")
    truth = np.sqrt(np.pi / 2)  # mean radius of a 2-D Gaussian, in its deviations
    assert mixture_radius(cosine, 0) == pytest.approx(truth, abs=0.2)
    assert mixture_radius(pearce, 0) == pytest.approx(truth, abs=0.3)
    assert mixture_radius(cosine, 8) < 0.5 * truth
    assert mixture_radius(cosine, 32) < 0.1 * truth
    assert mixture_radius(pearce, 8) > 0.85 * truth
    assert mixture_radius(pearce, 32) > 0.65 * truth


def test_an_extra_step_has_the_size_that_beta_gives_it():
    # a <- (a - beta / sqrt(1 - abar) eps) / sqrt(1 - beta), with beta_1 = 1e-4.
    levels = diffusion.linear_schedule(50)
    step = row(diffusion.ddpm(levels, extra_steps=1), -1)
    level = diffusion.take(levels, 1)
    x, noise = np.array([0.3, -0.4]), np.array([1.0, 2.0])
    x0 = diffusion.to_x0(noise, x, level, prediction="noise")
    expected = (x - 0.0100 * noise) / np.sqrt(1 - 1e-4)
    np.testing.assert_allclose(step.x * x + step.x0 * x0, expected, atol=1e-6)


def test_levels_may_be_made_by_hand():
    levels = NoiseLevels(
        time=np.array([0.0, 1.0]),
        alpha=np.array([1.0, 0.6]),
        sigma=np.array([0.0, 0.8]),
    )
    steps = diffusion.ddpm(levels)
    x = run(0, DATA.denoise, steps, (1, 3), init=jnp.zeros((1, 3))).x
    expected = DATA.denoise(np.zeros((1, 3)), diffusion.take(levels, 1))
    np.testing.assert_allclose(x, expected, rtol=1e-5)
