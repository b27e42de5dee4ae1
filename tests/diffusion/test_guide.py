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
)

from jaxdiff import diffusion

SMALL = diffusion.subgrid(diffusion.cosine_schedule(30), 6)
SLOPE = np.array([1.0, -0.5, 0.3])
CURVATURE = np.array([[2.0, 0.3, 0.0], [0.3, 0.5, -0.2], [0.0, -0.2, 1.0]])


def linear(x, level):
    return x @ SLOPE


def quadratic(x, level):
    return x @ SLOPE - jnp.einsum("bi,ij,bj->b", x, CURVATURE, x) / 2


def run(key, denoise, steps, shape, **options):
    return jax.jit(lambda key: diffusion.sample(key, denoise, steps, shape, **options))(
        jax.random.key(key)
    ).x


# Linear and quadratic values: the exact recursion.


def affine_guide(curved, scale, scale_by="variance", stop_time=None):
    """`(G, g)` of x <- x + scale f (SLOPE - CURVATURE x), derived by hand."""

    def guide(step):
        power = {"variance": 1.0, "std": 0.5, "none": 0.0}[scale_by]
        factor = scale * step.variance**power
        if stop_time is not None and step.level.time < stop_time:
            factor = 0.0
        matrix = CURVATURE if curved else np.zeros((3, 3))
        return np.eye(3) - factor * matrix, factor * SLOPE

    return guide


CASES = [  # options of the guide, how often it acts in a step
    ({}, 1),
    ({"scale_by": "std"}, 3),
    ({"scale_by": "none", "scale": 0.1}, 2),
    ({"stop_time": 10.0}, 2),
    ({"stop_time": 9.0, "scale_by": "none", "scale": 0.1}, 1),
]


@pytest.mark.parametrize("num_steps", [1, 6])
@pytest.mark.parametrize("guide_at", ["x_t", "mean"])
@pytest.mark.parametrize("value", [linear, quadratic])
def test_guided_map_is_the_exact_recursion_at_every_number_of_steps(
    value, guide_at, num_steps
):
    # DDIM adds no noise, so the image of one point is exact; its variance column is
    # not zero, or the guide would be silent.
    levels = diffusion.subgrid(diffusion.cosine_schedule(30), num_steps)
    steps = diffusion.ddim(levels)
    init = jnp.array([[0.0, 0.0, 0.0], [1.0, -2.0, 0.5]])
    for options, guide_steps in CASES:
        options = {"scale": 0.4, **options}
        places = {"guide_at": guide_at, "guide_steps": guide_steps}
        guide = diffusion.value_guide(value, **options)
        x = run(0, DATA.denoise, steps, (2, 3), init=init, guide=guide, **places)
        guide = affine_guide(value is quadratic, **options)
        for point, image in zip(np.asarray(init), x, strict=True):
            start = Gaussian(point, np.zeros((3, 3)))
            expected = moments(DATA, steps, guide=guide, init=start, **places)
            np.testing.assert_allclose(image, expected.mean, atol=2e-5)


@pytest.mark.parametrize("guide_at", ["x_t", "mean"])
@pytest.mark.parametrize("value", [linear, quadratic])
def test_guided_ddpm_has_the_moments_of_the_recursion(value, guide_at):
    steps = diffusion.ddpm(SMALL)
    options = {"guide_at": guide_at, "guide_steps": 2}
    guide = diffusion.value_guide(value, scale=0.5)
    x = run(1, DATA.denoise, steps, (50_000, 3), guide=guide, **options)
    guide = affine_guide(value is quadratic, 0.5)
    assert_moments(x, moments(DATA, steps, guide=guide, **options))


def test_the_two_places_of_guidance_differ():
    steps = diffusion.ddim(SMALL)
    init = jnp.zeros((1, 3))
    guide = diffusion.value_guide(linear, scale=1.0)
    before, after = (
        run(0, DATA.denoise, steps, (1, 3), init=init, guide=guide, guide_at=place)
        for place in ("x_t", "mean")
    )
    assert np.abs(before - after).max() > 0.05


def test_guides_read_the_level_their_step_starts_at():
    times = np.asarray(diffusion.ddim(SMALL).level.time)

    def guide(x, step):
        return x + step.level.time

    for place in ("x_t", "mean"):
        # A denoiser of nothing leaves c_x x; the sum of what was added survives.
        x, steps = 0.0, diffusion.ddim(SMALL)
        for index in range(len(times)):
            x = x + times[index] * (place == "x_t")
            x = steps.x[index] * x + times[index] * (place == "mean")
        out = run(
            0,
            lambda x, level: 0 * x,
            steps,
            (1, 1),
            init=jnp.zeros((1, 1)),
            guide=guide,
            guide_at=place,
        )
        np.testing.assert_allclose(out, x, rtol=1e-5)


# With the exact noise-conditional value the tilted posterior is reached.


def exact_value(slope, curvature):
    """log E[exp(slope x0 - curvature x0^2 / 2) | x_t] of independent entries."""

    def value(x, level):
        mean = DIAGONAL.denoise(x, level)
        variance = jnp.diagonal(DIAGONAL.posterior_cov(level))
        widen = 1 + curvature * variance
        exponent = mean * slope + (slope**2 * variance - curvature * mean**2) / 2
        return (exponent / widen - jnp.log(widen) / 2).sum(axis=-1)

    return value


TILTS = {
    "linear": (np.array([2.0, -1.0, 0.5]), np.zeros(3)),
    "quadratic": (np.array([2.0, -1.0, 0.5]), np.array([5.0, 1.0, 0.5])),
}


def distance(x, target):
    std = np.sqrt(np.diag(target.cov))
    x = np.asarray(x, np.float64)
    mean = np.abs(x.mean(axis=0) - target.mean) / std
    return max(mean.max(), np.abs(x.std(axis=0) / std - 1).max())


@pytest.mark.parametrize("guide_at", ["x_t", "mean"])
@pytest.mark.parametrize("tilt", TILTS)
def test_guided_ddpm_reaches_the_tilted_posterior(tilt, guide_at):
    slope, curvature = TILTS[tilt]
    target = DIAGONAL.tilt(slope, np.diag(curvature))
    guide = diffusion.value_guide(exact_value(slope, curvature), scale=1.0)
    errors = []
    for count in (8, 400):
        levels = diffusion.discretize(
            diffusion.vp_level, np.linspace(0.03, 1, count) ** 2
        )
        x = run(
            0,
            DIAGONAL.denoise,
            diffusion.ddpm(levels),
            (10_000, 3),
            guide=guide,
            guide_at=guide_at,
        )
        errors.append(distance(x, target))
    std = np.sqrt(np.diag(target.cov))  # untilted, the means would be far off
    assert np.abs((DIAGONAL.mean - target.mean) / std).max() > 0.45
    assert errors[1] < 0.06
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize("table", [diffusion.ddim, diffusion.dpm_solver_pp])
@pytest.mark.parametrize("tilt", TILTS)
def test_guided_prediction_is_the_denoiser_of_the_tilted_data(tilt, table):
    slope, curvature = TILTS[tilt]
    target = DIAGONAL.tilt(slope, np.diag(curvature))
    denoise = diffusion.guide_prediction(
        DIAGONAL.denoise, exact_value(slope, curvature), scale=1.0
    )
    x = jax.random.normal(jax.random.key(0), (20, 3))
    for time in (0.05, 0.3, 0.8):
        level = diffusion.vp_level(jnp.asarray(time))
        np.testing.assert_allclose(
            denoise(x, level), target.denoise(x, level), rtol=1e-3, atol=1e-3
        )
    # So at every N a deterministic solver does what it would do on the tilted data,
    # and in the end it takes N(0, I) to the tilted posterior, by an affine map.
    init = jnp.stack([jnp.zeros(3), jnp.ones(3)])
    for count in (5, 160):
        times = np.linspace(0.05, 1, count) ** 2
        steps = table(diffusion.discretize(diffusion.vp_level, times))
        x = run(0, denoise, steps, (2, 3), init=init)
        same = run(0, target.denoise, steps, (2, 3), init=init)
        np.testing.assert_allclose(x, same, atol=3e-3)
    std = np.sqrt(np.diag(target.cov))
    np.testing.assert_allclose((x[0] - target.mean) / std, 0, atol=0.04)
    np.testing.assert_allclose((x[1] - x[0]) / std, 1, atol=0.04)


def test_scale_multiplies_the_shift_of_the_prediction():
    level = diffusion.vp_level(jnp.asarray(0.5))
    x = jnp.ones((2, 3))
    shift = diffusion.guide_prediction(DATA.denoise, linear, scale=3.0)(x, level)
    shift = shift - DATA.denoise(x, level)
    expected = 3 * SLOPE * float(level.sigma) ** 2 / float(level.alpha)
    np.testing.assert_allclose(shift, np.tile(expected, (2, 1)), rtol=1e-4)


# Details of value guides.


def test_each_example_climbs_its_own_value():
    step = jax.tree.map(lambda leaf: leaf[2], diffusion.ddpm(SMALL))
    x = jnp.array([[1.0, 2.0, 3.0], [-1.0, 0.0, 2.0]])
    guide = diffusion.value_guide(
        lambda x, level: (x**3).sum(axis=1) / 3, scale=1.0, scale_by="none"
    )
    np.testing.assert_allclose(guide(x, step), x + x**2, rtol=1e-6)


def test_a_stopped_guide_does_nothing_even_where_its_gradient_is_infinite():
    step = jax.tree.map(lambda leaf: leaf[-1], diffusion.ddpm(SMALL))
    time = float(step.level.time)
    x = jnp.zeros((1, 3))
    value = lambda x, level: jnp.sqrt(x).sum(axis=1)  # noqa: E731
    stopped = diffusion.value_guide(value, scale=1.0, stop_time=time + 1)
    np.testing.assert_array_equal(stopped(x, step), x)
    at_the_stop = diffusion.value_guide(
        linear, scale=1.0, scale_by="none", stop_time=time
    )
    np.testing.assert_allclose(at_the_stop(x, step)[0], SLOPE, rtol=1e-6)


def test_value_sees_the_level_of_the_step():
    step = jax.tree.map(lambda leaf: leaf[1], diffusion.ddpm(SMALL))
    guide = diffusion.value_guide(
        lambda x, level: level.time * level.alpha * level.sigma * x.sum(axis=1),
        scale=1.0,
        scale_by="none",
    )
    level = step.level
    np.testing.assert_allclose(
        guide(jnp.zeros((1, 2)), step),
        level.time * level.alpha * level.sigma,
        rtol=1e-5,
    )


def test_chain_applies_guides_in_order():
    step = jax.tree.map(lambda leaf: leaf[0], diffusion.ddpm(SMALL))
    guide = diffusion.chain(lambda x, step: x + 1, lambda x, step: 2 * x)
    np.testing.assert_array_equal(guide(jnp.ones(3), step), 4 * np.ones(3))
    np.testing.assert_array_equal(diffusion.chain()(jnp.ones(3), step), np.ones(3))


def test_unknown_scaling_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="'variance', 'std' or 'none'"):
        diffusion.value_guide(linear, scale=1.0, scale_by="sigma")  # pyright: ignore


# Choosing and projecting.


def test_select_by_returns_the_best_candidate_and_all_values():
    candidates = (
        jnp.arange(24.0).reshape(4, 3, 2) * jnp.array([1, -1, 2, 1])[:, None, None]
    )
    select = diffusion.select_by(lambda x: x.sum(axis=(1, 2)))
    best, values = jax.jit(select)(candidates)
    assert best.shape == (3, 2)
    np.testing.assert_allclose(values, candidates.sum(axis=(1, 2)))
    np.testing.assert_array_equal(best, candidates[2])
    first, _ = select(jnp.zeros((4, 3, 2)).at[:, 0, 0].set(jnp.array([1, 5, 5, 2])))
    assert first[0, 0] == 5


def test_clip_box_is_a_projection():
    box = diffusion.clip_box(np.array([-1.0, 0.0]), 2.0)
    x = jnp.array([[-3.0, -3.0], [0.5, 0.5], [9.0, 9.0]])
    np.testing.assert_array_equal(box(x), [[-1, 0], [0.5, 0.5], [2, 2]])
    np.testing.assert_array_equal(box(box(x)), box(x))


# Classifier-free guidance.


def test_weight_zero_is_unconditional_and_one_is_conditional():
    calls = []

    def network(x, time, keep):
        calls.append(x.shape)
        assert keep.shape == time.shape == x.shape[:1]
        return jnp.where(keep[:, None], 3 * x, x) + time[:, None]

    x, time = jnp.array([[1.0], [2.0]]), jnp.array([10.0, 20.0])
    for weight, expected in ((0.0, [11, 22]), (1.0, [13, 26]), (2.5, [16, 32])):
        output = diffusion.classifier_free(network, weight=weight)(x, time)
        np.testing.assert_allclose(output[:, 0], expected)
    assert calls == [(4, 1)] * 3


# Pearce et al. 2023, grid world: of three equally likely observations two always ask
# for "straight"; the third asks for "straight" 9 times in 10 and for "right" once.
CONDITIONAL = np.array([0.9, 0.1])
UNCONDITIONAL = np.array([2.9, 0.1]) / 3


def grid_world(paper_weight):
    """P(right | third observation); log-probabilities guide like scores."""

    def network(x, time, keep):
        return jnp.log(jnp.where(keep[:, None], CONDITIONAL, UNCONDITIONAL))

    guided = diffusion.classifier_free(network, weight=1 + paper_weight)
    return float(jax.nn.softmax(guided(jnp.zeros((1, 2)), jnp.zeros(1)))[0, 1])


def test_classifier_free_guidance_flips_the_grid_world():
    for weight, expected in {0: 0.1, 1: 0.264, 2: 0.536, 4: 0.923, 8: 0.999}.items():
        assert grid_world(weight) == pytest.approx(expected, abs=1e-3)
    flip = np.log(9) / np.log(2.9 / 0.9)  # odds 1/9 times (2.9 / 0.9)^w
    assert flip == pytest.approx(1.878, abs=1e-3)
    assert grid_world(1.877) < 0.5 < grid_world(1.879)


def test_classifier_free_diffusion_raises_the_rare_action_monotonically():
    means, levels = np.array([[-0.5], [0.5]]), diffusion.cosine_schedule(50)

    def network(x, time, keep):
        level = diffusion.take(levels, time.astype(int)[0] + 1)
        half = x.shape[0] // 2
        x0 = jnp.concatenate(
            [
                mixture_denoise(means, 0.1, CONDITIONAL, x[:half], level),
                mixture_denoise(means, 0.1, UNCONDITIONAL, x[half:], level),
            ]
        )
        return diffusion.from_x0(x0, x, level, prediction="noise")

    shares = []
    for paper_weight in (0, 1, 2, 4, 8):
        guided = diffusion.classifier_free(network, weight=1 + paper_weight)
        denoise = diffusion.denoiser(guided, prediction="noise")
        x = run(0, denoise, diffusion.ddpm(levels, variance="beta"), (4000, 1))
        shares.append(float((x > 0).mean()))
    assert shares[0] == pytest.approx(0.1, abs=0.03)
    assert np.all(np.diff(shares) > 0.03)
    assert 0.5 < shares[-1] < 0.9  # far from the closed form's 0.999
    np.testing.assert_allclose(shares, [0.109, 0.205, 0.3, 0.468, 0.71], atol=0.05)


# Several conditions at once. A condition "entry i of a sample was seen to be v, with an
# error of variance ERROR" makes of DIAGONAL data a Gaussian again, and conditions on
# different entries are independent given x_t.

ERROR = 0.3
SEEN = {0: 1.2, 1: 0.5}


def told(data, seen):
    """The data, given what was seen of some entries."""
    information = np.diag([1 / ERROR if i in seen else 0.0 for i in range(3)])
    values = np.array([seen.get(i, 0.0) for i in range(3)])
    return data.tilt(information @ values, information)


def telling(data, conditions, *, prediction="x0", levels):
    """A network that knows the exact denoiser of each condition and of none."""
    known = [told(data, seen) for seen in conditions] + [data]

    def network(x, time, keep):
        level = diffusion.take(levels, time.astype(int)[0] + 1)
        copies = jnp.split(x, len(known))
        assert keep.tolist() == [True] * (len(x) - len(copies[0])) + [False] * len(
            copies[0]
        )
        x0 = jnp.concatenate(
            [
                each.denoise(copy, level)
                for each, copy in zip(known, copies, strict=True)
            ]
        )
        return diffusion.from_x0(x0, x, level, prediction=prediction)

    return network


@pytest.mark.parametrize("prediction", ["x0", "noise", "v", "score"])
@pytest.mark.parametrize("row", [1, 9, 20])
def test_independent_conditions_compose_to_both_at_every_level(row, prediction):
    levels = diffusion.cosine_schedule(20)
    level = diffusion.take(levels, row)
    network = telling(
        DIAGONAL, [{0: 1.2}, {1: 0.5}], prediction=prediction, levels=levels
    )
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    out = diffusion.compose(network, [1.0, 1.0])(x, jnp.full(4, row - 1.0))
    found = diffusion.to_x0(out, x, level, prediction=prediction)
    # Where noise is little or nearly all, to_x0 divides by a small number.
    slack = 2e-2 if row == 20 else 1e-3
    np.testing.assert_allclose(
        found, told(DIAGONAL, SEEN).denoise(x, level), atol=slack
    )


def test_composed_samples_are_those_of_both_conditions():
    levels = diffusion.cosine_schedule(30)
    known = [told(DIAGONAL, {i: value}) for i, value in SEEN.items()]

    def denoise(x, level):
        def network(x, time, keep):
            each = zip([*known, DIAGONAL], jnp.split(x, 3), strict=True)
            return jnp.concatenate([data.denoise(part, level) for data, part in each])

        return diffusion.compose(network, [1.0, 1.0])(x, jnp.zeros(len(x)))

    x = run(2, denoise, diffusion.ddpm(levels), (20_000, 3))
    assert_moments(x, moments(told(DIAGONAL, SEEN), diffusion.ddpm(levels)))


@pytest.mark.parametrize("weights", [(1.0, 1.0), (2.5, 0.5), (1.0, -0.6), (-0.3, -0.2)])
def test_composed_score_is_that_of_the_weighted_product(weights):
    # p p1^w1 p2^w2 / p^(w1 + w2) of Gaussians: precisions and their means add up, also
    # where entries hang together and the conditions are not independent.
    levels = diffusion.cosine_schedule(20)
    level = jax.tree.map(np.float64, diffusion.take(levels, 7))
    conditions = [{0: 1.2}, {1: 0.5, 2: 1.0}]

    def noised(data):
        cov = level.alpha**2 * data.cov + level.sigma**2 * np.eye(3)
        precision = np.linalg.inv(cov)
        return precision, precision @ (level.alpha * data.mean)

    shares = (1 - sum(weights), *weights)
    parts = [noised(each) for each in (DATA, *(told(DATA, s) for s in conditions))]
    precision, linear = (
        sum(share * part[i] for share, part in zip(shares, parts, strict=True))
        for i in (0, 1)
    )
    network = telling(DATA, conditions, prediction="score", levels=levels)
    x = np.random.default_rng(1).normal(size=(5, 3))
    score = diffusion.compose(network, weights)(jnp.asarray(x), jnp.full(5, 6.0))
    np.testing.assert_allclose(score, linear - x @ precision, rtol=2e-3, atol=2e-3)


def test_both_conditions_lead_to_where_labels_are_as_likely():
    """Points at four places; one has the first label, one the other, two may have both.

    p p(c_1 | x) p(c_2 | x), the exact answer, is the two in the middle, half and half.
    """
    places, std = np.array([-1.0, -0.3, 0.3, 1.0]), 0.1
    levels = diffusion.cosine_schedule(100)

    def exactly(share, x, level):
        variance = level.alpha**2 * std**2 + level.sigma**2
        offset = x - level.alpha * places
        weight = jax.nn.softmax(jnp.log(share) - offset**2 / (2 * variance))
        each = places + level.alpha * std**2 / variance * offset
        return (weight * each).sum(-1, keepdims=True)

    @jax.jit
    def between(first, weight):
        """Those between, to the left and to the right, of samples for both labels."""
        first, none = jnp.array([1, first, first, 1e-6]), jnp.ones(4)
        labels = [first, 1 + 1e-6 - first, none]

        def denoise(x, level):
            def network(x, time, keep):
                each = zip(labels, jnp.split(x, 3), strict=True)
                return jnp.concatenate([exactly(p, part, level) for p, part in each])

            return diffusion.compose(network, [weight] * 2)(x, jnp.zeros(len(x)))

        steps = diffusion.ddpm(levels)
        x = diffusion.sample(jax.random.key(0), denoise, steps, (4_000, 1)).x
        nearest = jnp.abs(x - places).argmin(-1)
        return jnp.array([(nearest == 1).mean(), (nearest == 2).mean()])

    # Labels drawn alike for what may have either: right, whatever the weight.
    for weight in (1.0, 4.0):
        np.testing.assert_allclose(between(0.5, weight), (0.5, 0.5), atol=0.04)
    # Labels that are mostly the first's: still both, but leaning to the other's side.
    found = [between(0.7, weight) for weight in (1.0, 2.0, 4.0)]
    assert all(each.sum() > 0.98 for each in found)
    assert 0.58 < found[0][1] < found[1][1] - 0.05 < found[2][1] - 0.1
    # Labels that nearly always are: some samples are not both any more.
    assert between(0.95, 1.0).sum() < 0.95
    assert between(0.3, 1.0)[0] > 0.58


def test_a_condition_ruled_out_pushes_away():
    levels = diffusion.cosine_schedule(30)
    seen = told(DIAGONAL, {0: 1.2})

    def denoise(x, level):
        def network(x, time, keep):
            return jnp.where(
                keep[:, None], seen.denoise(x, level), DIAGONAL.denoise(x, level)
            )

        return diffusion.compose(network, [-0.5])(x, jnp.zeros(len(x)))

    x = run(0, denoise, diffusion.ddim(levels), (4_000, 3))
    # The mean of p p / p(x | c) to the power of a half lies on the other side.
    assert x[:, 0].mean() < DIAGONAL.mean[0] - 0.05 < seen.mean[0]
    np.testing.assert_allclose(x[:, 1:].mean(0), DIAGONAL.mean[1:], atol=0.1)
