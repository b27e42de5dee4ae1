"""The study in the plane: what it extracts and measures, where both are known."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import bandit, offline_figures
from jaxdiff.algorithms.base import TrainState
from jaxdiff.diffusion import vp_level

TARGETS = np.array([[2.0, -1.0], [0.5, 3.0]])
KAPPA = 0.141068  # of a normal behaviour of spread 1 and omega = sigma^2
BEHAVIOUR = TrainState(step=jnp.int32(0), params={}, slow={"ema": ()}, opt_state=())


@pytest.fixture
def normal(monkeypatch):
    """The exact noise of N(0, I) in place of the network."""

    def apply(self, params, x, time, inputs, keys=None):
        return vp_level(time).sigma[:, None] * x

    monkeypatch.setattr(bandit.PlaneScore, "apply", apply)


def test_policies_rest_between_the_data_and_their_target(normal):
    betas = (0.0, 0.05, 0.5)
    found = bandit.extract(BEHAVIOUR, TARGETS, betas=betas, steps=500)
    assert found.shape == (3, 6, 2, 2)
    share = np.array([2 * beta / (2 * beta + KAPPA) for beta in betas])
    expected = share[:, None, None] * TARGETS
    # What is left of the noise is a little, and less in the mean over shapes.
    np.testing.assert_allclose(found.mean(1), expected, atol=0.1)
    assert found.std(1).max() < 0.2


@pytest.mark.parametrize("baseline", [True, False])
def test_the_variance_of_the_gradient_is_known(normal, baseline):
    # The prediction is sigma (alpha a + sigma eps): of the noise sigma^2 is left, and
    # of it less the noise alpha^2.
    level = vp_level(jnp.float32(0.3))
    actions = np.broadcast_to(TARGETS, (6, 2, 2))
    found = bandit.gradient_variance(
        BEHAVIOUR, actions, lambda key: level, kind="one", baseline=baseline, count=400
    )
    left = level.alpha if baseline else level.sigma
    np.testing.assert_allclose(found.mean(), left**4, rtol=0.1)


def test_a_regression_goes_from_the_mean_to_the_best():
    points = bandit.make_points(200, 0)
    mean, best = (bandit.regression(points, TARGETS, beta) for beta in (0.0, 1e4))
    for i, data in enumerate(points.values()):
        np.testing.assert_allclose(mean[i], [data.mean(0)] * 2, atol=1e-5)
        squares = ((TARGETS[:, None] - data) ** 2).sum(-1)
        np.testing.assert_allclose(best[i], data[squares.argmin(1)], atol=1e-2)


def test_measures_are_of_the_nearest_data():
    points = {name: data[:50] for name, data in bandit.make_points(50, 0).items()}
    far = np.full((6, 2, 2), 100.0)
    measured = bandit._measured(points, TARGETS, far)
    assert not measured["inside"].any()
    assert (measured["distance"] > 100).all()
    np.testing.assert_allclose(measured["q"][:2], -((TARGETS - 100) ** 2).sum(-1))
    kept = np.stack([np.stack([data.mean(0)] * 2) for data in points.values()])
    kept[0] = bandit.fit_support(points["moons"]).states[:2]
    measured = bandit._measured(points, TARGETS, kept)
    np.testing.assert_array_equal(measured["inside"][:2], 1)
    np.testing.assert_allclose(measured["distance"][:2], 0, atol=2e-3)


@pytest.mark.slow
def test_a_small_study_writes_rows_and_pictures(monkeypatch, tmp_path):
    monkeypatch.setattr(bandit, "OMEGAS", ("variance", "ratio"))
    small = bandit.Options(points=64, updates=2, steps=2)
    bandit.main(small, directory=tmp_path)
    rows = json.loads((tmp_path / "bandit.json").read_text())
    named = {(row["setting"], row["method"], row["metric"]) for row in rows}
    assert len(named) == len(rows) == 3 * 6 * 3 + 4 * 4 + 6 * 3
    assert ("omega, beta 0.1", "ratio, no baseline", "gradient_variance") in named
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "bandit.png",
        "bandit-noise.png",
    }


def test_a_picture_has_a_panel_for_each_shape_and_method():
    points = bandit.make_points(20, 0)
    found = {name: np.zeros((6, 2, 2)) for name in ("one", "two")}
    figure = offline_figures.plot_extraction(points, TARGETS, found)
    assert len(figure.axes) == 12
    assert [axes.get_title() for axes in figure.axes[:6]] == list(points)
    reached = [
        artist for axes in figure.axes for artist in axes.collections
        if artist.get_gid() == "policies"
    ]  # fmt: skip
    assert [len(artist.get_offsets()) for artist in reached] == [2] * 12
    noise = offline_figures.plot_gradient_noise(
        np.arange(3), {"a": np.ones(3), "b": np.ones(3)}
    )
    assert len(noise.axes[0].lines) == 2
