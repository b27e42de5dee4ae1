"""Pictures of a kitchen show what was given."""

import numpy as np

from jaxdiff import figures
from jaxdiff.tasks.kitchen.figures import plot_times


def test_the_picture_has_a_panel_a_task(tmp_path):
    steps = np.array([[10.0, 20.0], [30.0, np.nan]])
    both = {"demonstrator": np.array([[5.0, 9.0]]), "policy": steps}
    figure = plot_times(both, shaded="demonstrator", horizon=40)
    assert len(figure.axes) == 2
    for axes, expected in zip(figure.axes, ([0, 0.5, 1.0], [0, 0, 0.5]), strict=True):
        (line,) = (one for one in axes.lines if one.get_gid() == "policy")
        np.testing.assert_allclose(line.get_ydata()[[5, 15, 40]], expected)
        (area,) = (one for one in axes.collections if one.get_gid() == "demonstrator")
        assert area.get_paths()[0].contains_point((20, 0.5))
    figures.save(figure, tmp_path / "times.png")
