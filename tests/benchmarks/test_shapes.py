"""Shapes in the plane: where they are, and the gaps they leave."""

import numpy as np
import pytest

from benchmarks.shapes import NOISE, SHAPES

COUNT = 4_000
POINTS = {name: draw(COUNT, np.random.default_rng(0)) for name, draw in SHAPES.items()}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_fill_the_square_and_keep_to_it(name):
    points = POINTS[name]
    assert points.shape == (COUNT, 2)
    assert np.abs(points).max() < 0.9 + 5 * NOISE
    assert (np.ptp(points, axis=0) > 1).all()
    np.testing.assert_array_equal(points, SHAPES[name](COUNT, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("name", "center", "radius"),
    [
        ("rings", (0, 0), 0.25),
        ("rings", (0.62, 0), 0.05),
        ("clusters", (0, 0), 0.4),
        ("moons", (0.3, 0.4), 0.1),
        ("checkerboard", (-0.675, -0.225), 0.2),
        ("pinwheel", (0, 0), 0.1),
    ],
)
def test_gaps_are_empty(name, center, radius):
    assert np.linalg.norm(POINTS[name] - center, axis=-1).min() > radius


@pytest.mark.parametrize("name", ["moons", "rings", "spirals", "clusters"])
def test_what_mirrors_itself_does_so(name):
    # As many points on one side of the origin as on the other.
    share = (POINTS[name] @ np.array([0.6, 0.8]) > 0).mean()
    np.testing.assert_allclose(share, 0.5, atol=0.04)


def test_eight_clusters_share_alike():
    angle = np.arctan2(*POINTS["clusters"].T[::-1])
    counts = np.bincount(np.round(angle / (np.pi / 4)).astype(int) % 8, minlength=8)
    np.testing.assert_allclose(counts / COUNT, 1 / 8, atol=0.03)
