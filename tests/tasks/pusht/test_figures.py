"""Pictures of PushT show what was given."""

import numpy as np

from jaxdiff.tasks.pusht.figures import plot_pushes


def test_the_picture_has_a_path_for_each_episode():
    line = np.linspace([400, 400, 200, 200, 0.8], [300, 100, 256, 256, 0.8], 20)
    other = line.copy()
    other[:, 0] = 420
    panels = {"two": [line, other, line], "one": [other]}
    figure = plot_pushes(panels, {"two": [1, -1, 1], "one": [-1]})
    assert [axes.get_title() for axes in figure.axes] == ["two", "one"]
    assert len([one for one in figure.axes[1].lines if one.get_gid() == "agent"]) == 1
    paths = [one for one in figure.axes[0].lines if one.get_gid() == "agent"]
    assert len(paths) == 3
    assert paths[0].get_color() == paths[2].get_color() != paths[1].get_color()
    np.testing.assert_allclose(paths[1].get_xdata(), 420)
    low, high = figure.axes[0].get_ylim()
    assert low > high  # y goes down
