"""Pictures of Doom show what was given."""

import numpy as np

from benchmarks.doom_figures import plot_first_turns, plot_sights
from jaxdiff.tasks.doom.world import Monster


def test_sights_show_which_monster_is_aimed_at():
    picture = np.zeros((150, 280, 3), np.uint8)
    one, other = Monster(4, 150, 65, 20, 20), Monster(5, 85, 65, 20, 20)
    figure = plot_sights([(picture, [one, other], 5), (picture, [], -1)])
    boxes = {patch.get_gid(): patch for patch in figure.axes[0].patches}
    assert boxes["target"].get_xy() == (other.left, other.top)
    assert boxes["other"].get_xy() == (one.left, one.top)
    assert not figure.axes[1].patches


def test_turns_are_drawn_on_one_scale():
    picture = np.zeros((150, 280, 3), np.uint8)
    turns = {"two ways": np.array([-70.0, -71, 72]), "none": np.zeros(3)}
    figure = plot_first_turns(picture, turns, seconds=1.0)
    _, two, none = figure.axes
    assert two.get_xlim() == none.get_xlim()
    heights = [patch.get_height() for patch in two.patches]
    middles = [patch.get_x() + patch.get_width() / 2 for patch in two.patches]
    assert np.dot(heights, np.array(middles) < 0) == 2
    assert sum(heights) == 3
