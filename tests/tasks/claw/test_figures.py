"""Pictures of the claw machine show what was given."""

import numpy as np

from jaxdiff import figures
from jaxdiff.tasks.claw import TASK
from jaxdiff.tasks.claw.figures import plot_actions
from jaxdiff.tasks.claw.play import ClawPlayed
from jaxdiff.tasks.claw.scores import demonstrations


def test_the_picture_shows_hits_and_misses(tmp_path):
    truth = demonstrations("uniform", samples=30)
    missed = np.zeros_like(truth) + 0.01
    figure = plot_actions("uniform", {"truth": truth, "missed": missed})
    assert len(figure.axes) == 14

    def count(axes, name):
        (dots,) = (one for one in axes.collections if one.get_gid() == name)
        return len(dots.get_offsets())

    for i, axes in enumerate(figure.axes):
        hits, misses = (30, 0) if i < 7 else (0, 30)
        assert (count(axes, "hit"), count(axes, "miss")) == (hits, misses)
        assert axes.get_ylim() == (1, 0)  # rows go down
    assert [figure.axes[i].get_ylabel() for i in (0, 7)] == ["truth", "missed"]
    figures.save(figure, tmp_path / "claw.png")


def test_what_a_run_did_is_drawn():
    played = ClawPlayed("biased", demonstrations("biased", samples=10))

    class run:
        name = "mine"

    assert TASK.draw(run, played).axes[0].get_ylabel() == "mine"
