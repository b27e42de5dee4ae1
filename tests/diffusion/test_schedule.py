import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import diffusion
from jaxdiff.diffusion import NoiseLevels

SCHEDULES = {
    "cosine": lambda n: diffusion.cosine_schedule(n),
    "linear": lambda n: diffusion.linear_schedule(n),
    "rescaled": lambda n: diffusion.linear_schedule(n, rescale=True),
    "vp": lambda n: diffusion.vp_schedule(n),
    "continuous": lambda n: diffusion.discretize(
        diffusion.vp_level, np.linspace(1e-3, 1, n)
    ),
}


def betas(levels):
    return 1 - (levels.alpha[1:] / levels.alpha[:-1]) ** 2


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("num_steps", [1, 5, 20, 200])
def test_levels_are_variance_preserving_and_descend_to_a_clean_row(name, num_steps):
    levels = SCHEDULES[name](num_steps)
    for leaf in jax.tree.leaves(levels):
        assert isinstance(leaf, np.ndarray)
        assert leaf.dtype == np.float64
        assert leaf.shape == (num_steps + 1,)
    np.testing.assert_allclose(levels.alpha**2 + levels.sigma**2, 1, rtol=1e-14)
    assert levels.alpha[0] == 1
    assert levels.sigma[0] == 0
    assert np.all(np.diff(levels.alpha) < 0)
    assert np.all(np.diff(levels.sigma) > 0)
    assert np.all(np.diff(levels.time) > 0)


def test_cosine_golden_values():
    levels = diffusion.cosine_schedule(20)
    assert betas(levels)[0] == pytest.approx(0.0079927, abs=1e-7)
    alpha2 = levels.alpha**2
    assert alpha2[1] == pytest.approx(0.992007, abs=1e-6)
    assert alpha2[19] == pytest.approx(6.06e-3, rel=1e-3)
    assert alpha2[20] == pytest.approx(6.06e-6, rel=1e-3)
    levels = diffusion.cosine_schedule(200)
    assert betas(levels)[0] == pytest.approx(2.550e-4, rel=2e-4)
    assert levels.alpha[200] ** 2 == pytest.approx(6.07e-8, rel=1e-3)
    levels = diffusion.cosine_schedule(50)
    assert betas(levels)[0] == pytest.approx(1.7475e-3, rel=1e-4)


def test_linear_golden_values():
    levels = diffusion.linear_schedule(50, time="fraction")
    rows = np.array([1, 2, 25, 49, 50])
    np.testing.assert_allclose(
        betas(levels)[rows - 1], [1e-4, 5.06e-4, 9.847e-3, 0.019594, 0.02], rtol=3e-4
    )
    np.testing.assert_allclose(
        levels.alpha[rows] ** 2,
        [0.9999, 0.999394, 0.882713, 0.615257, 0.602952],
        atol=1e-6,
    )
    assert diffusion.linear_schedule(20).alpha[-1] ** 2 == pytest.approx(
        0.817, abs=1e-3
    )


def test_rescaled_linear_keeps_the_noise_and_caps_beta():
    plain = diffusion.linear_schedule(1000)
    for num_steps in (20, 50, 100):
        rescaled = diffusion.linear_schedule(num_steps, rescale=True)
        assert rescaled.alpha[-1] < 0.02
        expected = betas(plain)[[0, -1]] * 1000 / num_steps
        np.testing.assert_allclose(
            betas(rescaled)[[0, -1]], np.minimum(expected, 0.999), rtol=1e-9
        )


def test_discrete_vp_golden_values():
    levels = diffusion.vp_schedule(5)
    np.testing.assert_allclose(
        betas(levels), [0.195875, 0.458818, 0.635781, 0.754878, 0.835031], atol=1e-6
    )
    np.testing.assert_allclose(
        levels.alpha[1:] ** 2,
        [0.804125, 0.435178, 0.1585, 0.038852, 0.006409],
        atol=1e-6,
    )


def test_continuous_vp_golden_values_in_both_array_kinds():
    times = np.array([1e-3, 0.02, 0.1, 0.25, 0.5, 0.75, 0.98, 1])
    alpha = [0.999945, 0.997014, 0.946722, 0.723657, 0.281183, 0.058664, 0.008011]
    sigma = [0.010485, 0.077215, 0.322053, 0.690160, 0.959654, 0.998278, 0.999968]
    for level in (diffusion.vp_level(times), diffusion.vp_level(jnp.asarray(times))):
        np.testing.assert_allclose(level.alpha, [*alpha, 0.006572], atol=1e-6)
        np.testing.assert_allclose(level.sigma, [*sigma, 0.999978], atol=1e-6)
        np.testing.assert_allclose(level.time, times, rtol=1e-6)
    assert isinstance(level.alpha, jax.Array)
    assert diffusion.vp_level(0.5).alpha.dtype == np.float64


def test_discrete_vp_approaches_the_continuous_one():
    discrete = diffusion.vp_schedule(1000, beta_max=20.0, time="fraction")
    continuous = diffusion.vp_level(discrete.time)
    np.testing.assert_allclose(discrete.alpha, continuous.alpha, atol=1e-12)


def test_time_is_a_property_of_the_schedule():
    for schedule in (
        diffusion.cosine_schedule,
        diffusion.linear_schedule,
        diffusion.vp_schedule,
    ):
        np.testing.assert_array_equal(schedule(4).time, [-1, 0, 1, 2, 3])
        fraction = schedule(4, time="fraction").time
        np.testing.assert_array_equal(fraction, [0, 0.25, 0.5, 0.75, 1])
    times = np.array([0.1, 0.4, 1.0])
    levels = diffusion.discretize(diffusion.vp_level, times)
    np.testing.assert_array_equal(levels.time, [0, *times])
    with pytest.raises(ValueError, match="'index' or 'fraction'"):
        diffusion.cosine_schedule(4, time="seconds")  # pyright: ignore


@pytest.mark.parametrize("times", [[0.0, 0.5], [0.5, 0.2], [0.5, 0.5]])
def test_discretize_refuses_times_that_do_not_ascend_from_above_zero(times):
    with pytest.raises(ValueError, match="ascending"):
        diffusion.discretize(diffusion.vp_level, np.array(times))


def test_take_gives_numpy_for_numpy_rows_and_jax_for_traced_ones():
    levels = diffusion.cosine_schedule(10)
    part = diffusion.take(levels, np.arange(4))
    assert part.alpha.dtype == np.float64
    np.testing.assert_array_equal(part.sigma, levels.sigma[:4])
    np.testing.assert_array_equal(diffusion.take(levels, slice(2, 5)).time, [1, 2, 3])
    traced = jax.jit(lambda rows: diffusion.take(levels, rows))(jnp.array([7, 2]))
    np.testing.assert_allclose(traced.alpha, levels.alpha[[7, 2]], rtol=1e-6)


def test_subgrid_keeps_both_ends_and_rounds_as_documented():
    levels = diffusion.cosine_schedule(10)
    np.testing.assert_array_equal(diffusion.subgrid(levels, 10).alpha, levels.alpha)
    for num_steps in range(1, 11):
        rows = diffusion.subgrid(levels, num_steps).time + 1
        assert rows[0] == 0
        assert rows[-1] == 10
        assert np.all(np.abs(rows - np.linspace(0, 10, num_steps + 1)) <= 0.5)
    np.testing.assert_array_equal(
        diffusion.subgrid(levels, 4).time + 1, [0, 2, 5, 8, 10]
    )
    for num_steps in (0, 11):
        with pytest.raises(ValueError, match=r"1\.\.10"):
            diffusion.subgrid(levels, num_steps)


def test_subgrid_is_the_trailing_spacing():
    # Steps are counted back from the last level, and no step is a short one.
    for last, num_steps in ((1000, 50), (1000, 7), (20, 5), (100, 30)):
        rows = diffusion.subgrid(diffusion.linear_schedule(last), num_steps).time + 1
        trailing = np.round(np.arange(last, 0, -last / num_steps))[:num_steps]
        np.testing.assert_array_equal(rows[:0:-1], trailing)
        assert np.ptp(np.diff(rows)) <= 1


@pytest.mark.parametrize("spacing", diffusion.schedule.SPACINGS)
@pytest.mark.parametrize("last", [1, 5, 20, 64])
def test_every_spacing_keeps_both_ends_and_distinct_rows(spacing, last):
    levels = diffusion.cosine_schedule(last)
    for num_steps in range(1, last + 1):
        rows = diffusion.subgrid(levels, num_steps, spacing=spacing).time + 1
        assert (rows[0], rows[-1], len(rows)) == (0, last, num_steps + 1)
        assert (np.diff(rows) >= 1).all()
    np.testing.assert_array_equal(rows, np.arange(last + 1))  # all of them


def test_the_quadratic_spacing_grows_linearly():
    rows = diffusion.subgrid(diffusion.cosine_schedule(64), 8, spacing="quadratic").time
    np.testing.assert_array_equal(rows + 1, np.arange(9) ** 2)


def test_the_spacing_by_log_snr_divides_noise_by_equal_factors():
    """The noise of a geometric schedule doubles with every row."""
    ratio = np.append(0, 2.0 ** np.arange(13))
    size = np.sqrt(1 + ratio**2)
    levels = diffusion.NoiseLevels(
        time=np.arange(14.0), alpha=1 / size, sigma=ratio / size
    )
    rows = diffusion.subgrid(levels, 5, spacing="logsnr").time
    np.testing.assert_array_equal(rows, [0, 1, 4, 7, 10, 13])


def test_an_unknown_spacing_is_refused():
    with pytest.raises(ValueError, match="even, quadratic, logsnr"):
        diffusion.subgrid(diffusion.cosine_schedule(10), 5, spacing="cubic")


def test_linear_betas_have_the_same_ends_for_any_number_of_steps():
    for num_steps, alpha in ((20, 0.90), (50, 0.78), (1000, 0.0064)):
        levels = diffusion.linear_schedule(num_steps)
        betas = 1 - (levels.alpha[1:] / levels.alpha[:-1]) ** 2
        np.testing.assert_allclose(betas[[0, -1]], [1e-4, 0.02], rtol=1e-9)
        np.testing.assert_allclose(levels.alpha[-1], alpha, atol=0.005)
        # Rescaled, all of them hide about as much as a thousand steps do.
        rescaled = diffusion.linear_schedule(num_steps, rescale=True)
        assert rescaled.alpha[-1] < 0.01


def test_shifted_noise_averages_out_to_the_noise_before():
    levels = diffusion.cosine_schedule(20)
    shifted = diffusion.shift_noise(levels, np.sqrt(9))
    np.testing.assert_allclose(shifted.alpha**2 + shifted.sigma**2, 1, rtol=1e-12)
    assert (shifted.alpha[0], shifted.sigma[0]) == (1, 0)
    np.testing.assert_array_equal(shifted.time, levels.time)
    # The mean of nine equal numbers, each with noise of its own.
    mean_of_nine = shifted.alpha[1:] / (shifted.sigma[1:] / 3)
    np.testing.assert_allclose(mean_of_nine, levels.alpha[1:] / levels.sigma[1:])
    twice = diffusion.shift_noise(diffusion.shift_noise(levels, 6), 0.5)
    np.testing.assert_allclose(twice.alpha, shifted.alpha, rtol=1e-12)
    with pytest.raises(ValueError, match="positive"):
        diffusion.shift_noise(levels, 0)


KINDS = ("noise", "x0", "v", "score")


@pytest.mark.parametrize("kind", KINDS)
def test_conversions_round_trip_and_agree_with_definitions(kind):
    rng = np.random.default_rng(0)
    x0, noise = rng.normal(size=(2, 5, 4, 3))
    level = diffusion.vp_level(np.array([0.01, 0.1, 0.3, 0.6, 0.9]))
    x_t = diffusion.add_noise(x0, noise, level)
    alpha, sigma = level.alpha[:, None, None], level.sigma[:, None, None]
    definition = {
        "noise": noise,
        "x0": x0,
        "v": alpha * noise - sigma * x0,
        "score": -noise / sigma,
    }[kind]
    output = diffusion.from_x0(x0, x_t, level, prediction=kind)
    np.testing.assert_allclose(output, definition, rtol=1e-9, atol=1e-9)
    back = diffusion.to_x0(output, x_t, level, prediction=kind)
    np.testing.assert_allclose(back, x0, rtol=1e-9, atol=1e-9)
    other = rng.normal(size=x0.shape)  # any output, not only a consistent one
    again = diffusion.to_x0(other, x_t, level, prediction=kind)
    again = diffusion.from_x0(again, x_t, level, prediction=kind)
    np.testing.assert_allclose(again, other, rtol=1e-9, atol=1e-9)


def test_score_is_the_gradient_of_the_log_density():
    x0, level = jnp.array([0.3, -0.7]), diffusion.vp_level(jnp.array(0.4))

    def log_density(x_t):
        return -jnp.sum((x_t - level.alpha * x0) ** 2) / (2 * level.sigma**2)

    x_t = jnp.array([0.9, 0.1])
    score = diffusion.from_x0(x0, x_t, level, prediction="score")
    np.testing.assert_allclose(score, jax.grad(log_density)(x_t), rtol=1e-5)


def test_noised_data_have_the_level_s_moments():
    level = NoiseLevels(time=np.array(0.0), alpha=np.array(0.6), sigma=np.array(0.8))
    x0, noise = np.full((3,), 2.0), np.array([1.0, 0.0, -1.0])
    np.testing.assert_allclose(
        diffusion.add_noise(x0, noise, level), [2.0, 1.2, 0.4], rtol=1e-12
    )


@pytest.mark.parametrize("convert", [diffusion.to_x0, diffusion.from_x0])
def test_unknown_prediction_is_refused_with_the_choices(convert):
    with pytest.raises(ValueError, match=r"noise.*x0.*v.*score"):
        convert(np.ones(2), np.ones(2), diffusion.vp_level(0.5), prediction="eps")
