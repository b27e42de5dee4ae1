import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussians import Gaussian

from jaxdiff import diffusion

KINDS = ("noise", "x0", "v", "score")
DRAW = diffusion.uniform_time(diffusion.vp_level, 1e-2, 1.0)
MASK = np.zeros((4, 3), bool)
MASK[0, 1:] = True


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def batch(count):
    return jax.random.normal(jax.random.key(9), (count, 4, 3))


def perfect(x0, kind):
    """A network that knows each example, and gets its level from time alone."""

    def network(x_t, time):
        level = diffusion.vp_level(time)
        return diffusion.from_x0(x0, x_t, level, prediction=kind)

    return network


def zeros(x_t, time):
    return jnp.zeros_like(x_t)


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_network_costs_nothing(kind, mask, norm):
    x0 = batch(16)
    losses = diffusion.denoising_loss(
        keys(16), perfect(x0, kind), DRAW, x0, prediction=kind, norm=norm, mask=mask
    )
    assert losses.shape == (16,)
    np.testing.assert_allclose(losses, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("norm", "expected"), [("l2", 1.0), ("l1", (2 / np.pi) ** 0.5)]
)
def test_predicting_no_noise_costs_the_moment_of_a_normal(norm, expected):
    losses = diffusion.denoising_loss(
        keys(2000), zeros, DRAW, batch(2000), prediction="noise", norm=norm
    )
    assert losses.mean() == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_the_exact_denoiser_costs_the_bayes_risk(kind):
    data = Gaussian(np.array([0.5, -1.0]), np.diag([0.25, 2.0]))
    level = diffusion.vp_level(jnp.asarray(0.3))
    x0 = data.mean + jax.random.normal(jax.random.key(1), (50_000, 2)) * np.sqrt(
        np.diag(data.cov)
    )

    def network(x_t, time):
        x0_hat = data.denoise(x_t, level)
        return diffusion.from_x0(x0_hat, x_t, level, prediction=kind)

    losses = diffusion.denoising_loss(
        keys(50_000), network, lambda key: level, x0, prediction=kind
    )
    risk = float(np.trace(data.posterior_cov(level))) / 2
    alpha, sigma = float(level.alpha), float(level.sigma)
    per_kind = {
        "x0": 1.0,
        "noise": (alpha / sigma) ** 2,
        "v": 1 / sigma**2,
        "score": (alpha / sigma**2) ** 2,
    }
    assert losses.mean() == pytest.approx(risk * per_kind[kind], rel=0.03)


def test_clamped_entries_are_shown_clean_and_others_noised():
    x0, seen = batch(8), []

    def network(x_t, time):
        seen.append(x_t)
        return x_t

    diffusion.denoising_loss(keys(8), network, DRAW, x0, prediction="x0", mask=MASK)
    (x_t,) = seen
    np.testing.assert_array_equal(x_t[:, MASK], x0[:, MASK])
    assert not np.any(x_t[:, ~MASK] == x0[:, ~MASK])


@pytest.mark.parametrize("kind", KINDS)
def test_clamped_entries_cost_nothing_and_teach_nothing(kind):
    x0 = batch(8)

    def loss(output):
        def network(x_t, time):
            return jnp.broadcast_to(output, x_t.shape)

        return diffusion.denoising_loss(
            keys(8), network, DRAW, x0, prediction=kind, mask=MASK
        ).sum()

    gradient = jax.grad(loss)(jnp.ones((4, 3)))
    np.testing.assert_array_equal(gradient[MASK], 0)
    assert np.all(gradient[~MASK] != 0)
    far = jnp.where(MASK, 1e6, 1.0)
    assert loss(far) == loss(jnp.ones((4, 3)))


def test_a_loss_that_counts_clamped_noise_is_larger_by_a_constant():
    """As the released code of Diffuser does: clamp what is known into the output."""
    x0, options = batch(6), {"prediction": "noise"}

    def ours(slope):
        def network(x_t, time):
            return slope * x_t

        losses = diffusion.denoising_loss(
            keys(6), network, DRAW, x0, mask=MASK, **options
        )
        return losses.mean()

    def theirs(slope):
        def network(x_t, time):
            return jnp.where(MASK, x0, slope * x_t)

        return diffusion.denoising_loss(keys(6), network, DRAW, x0, **options).mean()

    x_t, level = diffusion.noise_examples(keys(6), DRAW, x0)
    noise = diffusion.from_x0(x0, x_t, level, **options)
    constant = jnp.where(MASK, (x0 - noise) ** 2, 0.0).mean()
    for slope in (0.3, -1.0):
        np.testing.assert_allclose(theirs(slope) - ours(slope), constant, rtol=1e-4)
        gradients = [jax.grad(loss)(slope) for loss in (ours, theirs)]
        np.testing.assert_allclose(*gradients, rtol=1e-5)


def test_the_mean_is_over_all_entries_and_weights_are_not_normalised():
    x0 = jnp.ones((5, 4, 3))
    loss = lambda **options: diffusion.denoising_loss(  # noqa: E731
        keys(5), zeros, DRAW, x0, prediction="x0", **options
    )
    np.testing.assert_allclose(loss(), 1)
    np.testing.assert_allclose(loss(mask=MASK), 10 / 12)
    np.testing.assert_allclose(loss(weight=3.0), 3)
    weights = diffusion.trajectory_weights(4, 3, first_action_weight=10, action_dim=1)
    np.testing.assert_allclose(loss(weight=weights), (11 + 10) / 12, rtol=1e-6)
    np.testing.assert_allclose(loss(weight=weights, mask=MASK), 19 / 12, rtol=1e-6)
    per_example = jnp.arange(5.0)[:, None, None]
    np.testing.assert_allclose(loss(weight=per_example), np.arange(5.0))


def test_a_mask_may_differ_between_examples():
    x0 = jnp.ones((2, 4, 3))
    mask = jnp.stack([jnp.asarray(MASK), jnp.zeros_like(MASK)])
    losses = diffusion.denoising_loss(
        keys(2), zeros, DRAW, x0, prediction="x0", mask=mask
    )
    np.testing.assert_allclose(losses, [10 / 12, 1])


def test_an_example_s_loss_does_not_depend_on_the_batch():
    x0, all_keys = batch(6), keys(6)

    def losses(rows):
        rows = np.asarray(rows)
        return diffusion.denoising_loss(
            all_keys[rows], zeros, DRAW, x0[rows], prediction="v"
        )

    whole = losses(range(6))
    np.testing.assert_allclose(losses([4]), whole[4:5], rtol=1e-6)
    np.testing.assert_allclose(losses([5, 0, 3]), whole[np.array([5, 0, 3])], rtol=1e-6)
    assert len(np.unique(np.asarray(whole))) == 6


def test_level_and_noise_are_drawn_independently():
    times, noises = [], []

    def network(x_t, time):
        times.append(time)
        noises.append(x_t)  # x0 is 0 and sigma about 1 at these times
        return x_t

    draw = diffusion.uniform_time(diffusion.vp_level, 0.5, 1.0)
    x0 = jnp.zeros((20_000, 1))
    diffusion.denoising_loss(keys(20_000), network, draw, x0, prediction="x0")
    correlation = np.corrcoef(times[0], noises[0][:, 0])[0, 1]
    assert abs(correlation) < 0.03


def test_uniform_row_draws_every_noisy_row_equally():
    levels = diffusion.cosine_schedule(4)
    drawn = jax.vmap(diffusion.uniform_row(levels))(keys(8000))
    counts = np.bincount(np.asarray(drawn.time, int), minlength=4)
    assert counts.shape == (4,)  # rows 1..4 are told as times 0..3
    np.testing.assert_allclose(counts / 8000, 0.25, atol=0.025)
    np.testing.assert_allclose(
        drawn.alpha, levels.alpha[np.asarray(drawn.time, int) + 1], rtol=1e-6
    )


def test_uniform_time_covers_its_interval():
    drawn = jax.vmap(diffusion.uniform_time(diffusion.vp_level, 0.2, 0.6))(keys(4000))
    assert 0.2 <= drawn.time.min() < 0.21
    assert 0.59 < drawn.time.max() < 0.6
    assert drawn.time.mean() == pytest.approx(0.4, abs=0.01)
    np.testing.assert_allclose(drawn.alpha, diffusion.vp_level(drawn.time).alpha)


def test_trajectory_weights():
    weights = diffusion.trajectory_weights(
        3, 3, discount=0.5, first_action_weight=10, action_dim=2, dim_weights=[1, 2, 4]
    )
    assert weights[0, :2].tolist() == [10, 10]
    assert weights[0, 2] == pytest.approx(4 * 3 / 1.75)
    np.testing.assert_allclose(weights[1:, 0] / weights[1, 0], [1, 0.5])
    np.testing.assert_allclose(weights[1] / weights[1, 0], [1, 2, 4])
    plain = diffusion.trajectory_weights(5, 2, discount=0.9)
    np.testing.assert_allclose(plain.mean(axis=0), 1)
    np.testing.assert_array_equal(diffusion.trajectory_weights(5, 2), np.ones((5, 2)))


def test_unknown_options_are_refused():
    arguments = (keys(2), zeros, DRAW, batch(2))
    with pytest.raises(ValueError, match="'l2' or 'l1'"):
        diffusion.denoising_loss(*arguments, prediction="x0", norm="huber")  # pyright: ignore
    with pytest.raises(ValueError, match="prediction must be one of"):
        diffusion.denoising_loss(*arguments, prediction="eps")  # pyright: ignore
