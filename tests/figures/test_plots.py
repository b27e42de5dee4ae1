"""What is drawn is what was given: returns and heat maps."""

import copy

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from jaxdiff import figures
from jaxdiff.errors import UserError
from jaxdiff.figures.style import PALETTE


def artists(axes, gid):
    return [artist for artist in axes.get_children() if artist.get_gid() == gid]


def drawn():
    return figures.plot_returns([1, 2], [0, 1, 2], low=0.0, high=2.0, target=1.0)


def test_guidance_is_a_heat_map_a_number_of_steps():
    returns = np.arange(12.0).reshape(2, 2, 3)
    returns[0, 1, 2] = np.nan
    returns[1, 0, 1] = 99.0
    named = {"scales": [0.0, 0.1, 1.0], "stops": [0, 4], "steps": [1, 2]}
    figure = figures.plot_guidance(returns, **named)
    one, two, bar = figure.axes
    titles = ["1 step of guidance", "2 steps of guidance"]
    assert [axes.get_title() for axes in (one, two)] == titles
    for axes, wanted in zip((one, two), returns, strict=True):
        (image,) = axes.images
        np.testing.assert_array_equal(image.get_array().filled(np.nan), wanted)
        # Both panels have the same colours, and the first stop level is at the bottom.
        assert image.get_clim() == (0.0, 99.0)
        assert axes.get_ylim()[0] < axes.get_ylim()[1]
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "0.1", "1"]
        assert [tick.get_text() for tick in axes.get_yticklabels()] == ["0", "4"]
        shown = {text.get_position(): text.get_text() for text in axes.texts}
        assert shown == {
            (column, row): f"{value:g}"
            for (row, column), value in np.ndenumerate(wanted)
            if np.isfinite(value)
        }
    (failed,), (best,) = artists(one, "failed"), artists(two, "best")
    assert failed.get_center().tolist() == [2, 1]
    assert failed.get_hatch()
    assert best.get_center().tolist() == [1, 0]
    assert not artists(two, "failed")
    assert not artists(one, "best")
    assert bar.get_ylabel() == "mean return"


def test_guidance_that_failed_everywhere_has_no_best():
    named = {"scales": [1.0], "stops": [0], "steps": [1]}
    (axes,) = figures.plot_guidance([[[np.nan]]], **named).axes
    assert artists(axes, "failed")
    assert not artists(axes, "best")
    with pytest.raises(ValueError, match="1 panels of 1 rows and 1 columns"):
        figures.plot_guidance([[np.nan]], **named)


def test_categories_differ_and_readers_settings_are_left_alone():
    assert len({to_rgba(colour) for colour in PALETTE}) == 8
    before = copy.deepcopy(dict(matplotlib.rcParams))
    drawn()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_save_makes_folders_and_writes(tmp_path, ending):
    path = tmp_path / "new" / "folder" / f"plan.{ending}"
    figures.save(drawn(), path)
    assert path.stat().st_size > 1000


def test_unwritable_paths_are_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    figure = drawn()
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "file" / "a.png", tmp_path / "folder.png"):
        with pytest.raises(UserError, match="cannot be written"):
            figures.save(figure, path)
    for name in ("a.xyz", "a"):
        with pytest.raises(UserError, match="no known format"):
            figures.save(figure, tmp_path / name)


def test_returns_are_a_histogram_with_their_scale_and_target():
    counts, edges = np.arange(10.0), np.linspace(-5, 5, 11)
    figure = figures.plot_returns(counts, edges, low=-4.0, high=4.0, target=0.75)
    (axes,) = figure.axes
    (stairs,) = [patch for patch in axes.patches if hasattr(patch, "get_data")]
    values, drawn, _ = stairs.get_data()
    np.testing.assert_allclose(values, counts / counts.sum())
    np.testing.assert_allclose(drawn, edges)
    lines = sorted(line.get_xdata()[0] for line in axes.lines)
    np.testing.assert_allclose(lines, [-4, 2, 4])
    assert {text.get_text() for text in axes.texts} == {"0", "1", "asked for, 0.75"}
