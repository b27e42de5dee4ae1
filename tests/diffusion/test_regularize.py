"""Score regularisation against answers in closed form, at fixed levels and noises."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import vp_level
from jaxdiff.diffusion.regularize import omega, score_gradient, unit_rms

# E_t [omega alpha sigma / (alpha^2 s^2 + sigma^2)] for t uniform on [0.02, 0.98].
KAPPA = {
    "variance": {0.1: 0.230057, 0.2: 0.219335, 0.5: 0.184900, 1.0: 0.141068},
    "one": {0.1: 0.789422, 0.2: 0.627224, 0.5: 0.387902, 1.0: 0.235650},
    "ratio": {0.1: 2.606737, 0.2: 1.615587, 0.5: 0.639580, 1.0: 0.266709},
    "variance-squared": {0.1: 0.140169, 0.2: 0.137807, 0.5: 0.126457, 1.0: 0.105807},
}
# E_t [omega].
MEAN_OMEGA = {"variance": 0.7333, "ratio": 0.9447, "variance-squared": 0.6477, "one": 1}
MEAN, TARGET = 0.3, 0.9


def levels(count=20_000, low=0.02, high=0.98):
    """The midpoints of equal shares of the times."""
    share = (np.arange(count) + 0.5) / count
    return vp_level(low + (high - low) * share)


def normal_noise(level, mean, std):
    """The exact eps of a behaviour N(mean, std^2): `(a_t, time) -> noise`."""
    alpha, sigma = level.alpha[:, None], level.sigma[:, None]
    variance = alpha**2 * std**2 + sigma**2
    return lambda a_t, time: sigma * (a_t - alpha * mean) / variance


def mean_gradient(action, std, *, kind="variance", baseline=True):
    """The mean over levels and over two opposite noises, which is that over all."""
    level = levels()
    predict = normal_noise(level, MEAN, std)
    mean = np.full((len(level.time), 1), action)
    return np.mean(
        [
            score_gradient(
                predict, level, sign * np.ones_like(mean), mean,
                kind=kind, baseline=baseline,
            )
            for sign in (-1.0, 1.0)
        ]
    )  # fmt: skip


@pytest.mark.parametrize("kind", KAPPA)
@pytest.mark.parametrize("std", [0.1, 0.2, 0.5, 1.0])
def test_a_normal_behaviour_pulls_as_a_spring(kind, std):
    # Linear in the action, zero at the mean of the behaviour, outwards as a cost's
    # gradient; the baseline changes nothing of it.
    for baseline in (True, False):
        for action in (MEAN, TARGET, -0.5):
            found = mean_gradient(action, std, kind=kind, baseline=baseline)
            expected = KAPPA[kind][std] * (action - MEAN)
            np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("beta", [0.02, 0.2, 2.0])
def test_the_policy_rests_between_behaviour_and_target(beta):
    # Q(a) = -(a - target)^2: the weighted mean of both, beta against kappa.
    kappa = KAPPA["variance"][0.2]
    rest = (2 * beta * TARGET + kappa * MEAN) / (2 * beta + kappa)
    pull = beta * -2 * (rest - TARGET)
    np.testing.assert_allclose(mean_gradient(rest, 0.2), pull, atol=2e-6)


@pytest.mark.parametrize("kind", MEAN_OMEGA)
def test_the_mean_weight_is_known(kind):
    np.testing.assert_allclose(
        omega(kind, levels()).mean(), MEAN_OMEGA[kind], atol=6e-5
    )


def test_another_weight_is_refused():
    with pytest.raises(ValueError, match="omega must be one of variance"):
        omega("sigma", levels(2))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", KAPPA)
def test_the_baseline_leaves_no_noise_where_the_behaviour_is_one_point(kind):
    level = vp_level(np.full(20_000, 0.4))
    noise = np.random.default_rng(0).standard_normal((len(level.time), 1))
    mean = np.full_like(noise, TARGET)
    point = normal_noise(level, MEAN, 0.0)
    quiet, loud = (
        score_gradient(point, level, noise, mean, kind=kind, baseline=baseline)
        for baseline in (True, False)
    )
    weight = float(omega(kind, level)[0])
    assert quiet.std() < 1e-12
    np.testing.assert_allclose(loud.std(), weight, rtol=0.03)
    # Of one mean: within five standard errors.
    error = 5 * weight / np.sqrt(len(noise))
    np.testing.assert_allclose(loud.mean(), quiet.mean(), atol=error)
    spring = weight * level.alpha[0] / level.sigma[0] * (TARGET - MEAN)
    np.testing.assert_allclose(quiet.mean(), spring)


@pytest.mark.parametrize("std", [0.1, 0.5])
def test_the_baseline_leaves_the_share_of_the_data(std):
    # eps* - eps keeps the share alpha^2 s^2 / (alpha^2 s^2 + sigma^2) of the noise.
    for time in (0.05, 0.3, 0.9):
        level = vp_level(np.full(2_000, time))
        noise = np.random.default_rng(0).standard_normal((len(level.time), 1))
        predict = normal_noise(level, MEAN, std)
        quiet, loud = (
            score_gradient(
                predict, level, noise, np.zeros_like(noise), kind="one", baseline=b
            ).std()
            for b in (True, False)
        )
        data, added = (level.alpha[0] * std) ** 2, level.sigma[0] ** 2
        np.testing.assert_allclose(quiet / noise.std(), data / (data + added))
        np.testing.assert_allclose(loud / noise.std(), added / (data + added))


def test_a_policy_that_is_the_behaviour_feels_nothing():
    # Not in the mean only: at every level and draw.
    level = levels(200)
    rng = np.random.default_rng(0)
    noise, xi = rng.standard_normal((2, len(level.time), 3))
    std = np.array([0.1, 0.5, 1.0])
    mean = np.full_like(noise, MEAN)
    found = score_gradient(
        normal_noise(level, MEAN, std), level, noise, mean, std * xi, std
    )
    np.testing.assert_allclose(found, 0, atol=1e-12)


@pytest.mark.parametrize(("std", "sign"), [(0.1, -1), (0.5, 1)])
def test_the_spread_of_a_policy_grows_to_that_of_the_behaviour(std, sign):
    # The gradient of the cost by S is the mean of the gradient by a times xi; here
    # over four pairs of signs of xi and eps, exact for what is quadratic.
    level = levels(2_000)
    predict = normal_noise(level, MEAN, 0.2)
    mean = np.full((len(level.time), 1), MEAN)
    total = np.mean(
        [
            xi * score_gradient(predict, level, eps + 0 * mean, mean, std * xi, std)
            for xi in (-1.0, 1.0)
            for eps in (-1.0, 1.0)
        ]
    )
    alpha2, sigma2 = level.alpha**2, level.sigma**2
    expected = np.mean(
        sigma2 * level.alpha * level.sigma * std
        * (1 / (alpha2 * 0.2**2 + sigma2) - 1 / (alpha2 * std**2 + sigma2))
    )  # fmt: skip
    np.testing.assert_allclose(total, expected, rtol=1e-9)
    assert np.sign(total) == sign


def test_a_narrow_policy_is_a_dirac_one():
    level = levels(50)
    noise, xi = np.random.default_rng(0).standard_normal((2, 50, 2))
    predict = normal_noise(level, MEAN, 0.3)
    dirac = score_gradient(predict, level, noise, 0 * noise)
    narrow = score_gradient(predict, level, noise, 0 * noise, 1e-7 * xi, 1e-7)
    np.testing.assert_allclose(narrow, dirac, atol=1e-5)


# Two clusters of actions of one number.
CENTRES, WIDTHS, SHARES = (
    np.array([-0.6, 0.5]),
    np.array([0.2, 0.3]),
    np.array([0.3, 0.7]),
)


def log_mixture(a_t, alpha, sigma):
    """log mu_t of the two clusters, and the exact eps = -sigma d log mu_t / d a_t."""
    variance = alpha**2 * WIDTHS**2 + sigma**2
    offset = a_t[..., None] - alpha * CENTRES
    terms = SHARES / np.sqrt(2 * np.pi * variance) * np.exp(-(offset**2) / 2 / variance)
    density = terms.sum(-1)
    score = -(terms * offset / variance).sum(-1) / density
    return np.log(density), -sigma * score


@pytest.mark.parametrize("action", [-0.9, -0.1, 0.4])
@pytest.mark.parametrize("time", [0.05, 0.3, 0.8])
def test_it_is_the_gradient_of_the_divergence(action, time):
    # KL(pi_t || mu_t) by quadrature over the noise; the entropy of pi_t does not move.
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    weights = weights / weights.sum()
    level = vp_level(np.full(len(nodes), time))
    alpha, sigma = level.alpha[0], level.sigma[0]

    def surrogate(a):
        log_density, _ = log_mixture(alpha * a + sigma * nodes, alpha, sigma)
        return sigma / alpha * sigma**2 * -(weights @ log_density)

    def predict(a_t, _):
        return log_mixture(a_t[:, 0], alpha, sigma)[1][:, None]

    step = 1e-5
    by_differences = (surrogate(action + step) - surrogate(action - step)) / (2 * step)
    for baseline in (True, False):
        found = score_gradient(
            predict, level, nodes[:, None], np.full((len(nodes), 1), action),
            baseline=baseline,
        )  # fmt: skip
        np.testing.assert_allclose(weights @ found[:, 0], by_differences, rtol=1e-5)


def test_gradients_of_one_size():
    gradient = jnp.asarray([[3.0, 4.0], [-3e-3, 4e-3], [0.0, 0.0]])
    found = np.asarray(unit_rms(gradient))
    np.testing.assert_allclose((found**2).mean(-1), [1, 1, 0], rtol=1e-5)
    np.testing.assert_allclose(found[0], np.array([3.0, 4.0]) / np.sqrt(12.5))
    assert (found[1] * np.array([-1, 1]) > 0).all()
