"""What is drawn is what was given: bars, curves, bands, intervals, heat maps."""

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


def result(setting, method, value, low, high, metric="score"):
    return {
        "setting": setting, "method": method, "metric": metric,
        "value": value, "low": low, "high": high,
    }  # fmt: skip


RESULTS = [
    result("umaze", "diffuser", 118.0, 112.0, 120.0),
    result("umaze", "random", -1.0, -2.0, 0.5),
    result("large", "diffuser", 60.0, 55.0, 70.0),
    result("large", "diffuser", 0.5, 0.4, 0.6, metric="success"),
]


def test_scores_are_bars_with_intervals():
    (axes,) = figures.plot_scores(RESULTS).axes
    assert [bar.get_width() for bar in axes.patches] == [118.0, -1.0, 60.0]
    intervals = artists(axes, "interval")
    ends = [tuple(line.get_xdata()) for line in intervals]
    assert ends == [(112.0, 120.0), (-2.0, 0.5), (55.0, 70.0)]
    middles = [bar.get_y() + bar.get_height() / 2 for bar in axes.patches]
    assert [line.get_ydata()[0] for line in intervals] == pytest.approx(middles)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["diffuser", "random", "diffuser"]
    assert axes.get_yticks() == pytest.approx(middles)
    bottom, top = axes.get_ylim()
    assert top < middles[0] < middles[-1] < bottom  # reads downwards
    first, other, again = (bar.get_facecolor() for bar in axes.patches)
    assert first == again != other


def test_scores_are_grouped_by_setting():
    mixed = [RESULTS[0], RESULTS[2], RESULTS[1]]
    (axes,) = figures.plot_scores(mixed).axes
    assert [bar.get_width() for bar in axes.patches] == [118.0, -1.0, 60.0]
    texts = {text.get_text(): text.get_position()[1] for text in axes.texts}
    middles = [bar.get_y() + bar.get_height() / 2 for bar in axes.patches]
    assert texts["umaze"] < middles[0] < middles[1] < texts["large"] < middles[2]


def test_only_scores_have_reference_lines():
    (axes,) = figures.plot_scores(RESULTS).axes
    where = {t.get_text(): t.get_position()[0] for t in axes.texts}
    assert (where["random"], where["expert"]) == (0, 100)
    lines = [line for line in axes.lines if line.get_gid() != "interval"]
    assert [line.get_xdata()[0] for line in lines] == [0, 100]
    (axes,) = figures.plot_scores(RESULTS, metric="success").axes
    assert [bar.get_width() for bar in axes.patches] == [0.5]
    assert [line.get_gid() for line in axes.lines] == ["interval"]


def test_scores_without_an_interval_are_bars_alone():
    (axes,) = figures.plot_scores([result("a", "b", 3.0, None, None)]).axes
    assert len(axes.patches) == 1
    assert not artists(axes, "interval")


def test_curve_is_a_line_a_learner_on_a_logarithmic_axis():
    records = [
        {"learner": learner, "step": step, "loss": scale / step}
        for step in (1, 10, 100)
        for learner, scale in (("diffusion", 1.0), ("value", 2.0))
    ] + [{"learner": "value", "step": 200, "score": 3.0}]
    (axes,) = figures.plot_curve(records).axes
    assert axes.get_yscale() == "log"
    data = {line.get_label(): line.get_xydata() for line in axes.lines}
    np.testing.assert_allclose(data["diffusion"], [(1, 1), (10, 0.1), (100, 0.01)])
    np.testing.assert_allclose(data["value"], [(1, 2), (10, 0.2), (100, 0.02)])
    (axes,) = figures.plot_curve(records, key="score").axes
    assert axes.lines[0].get_xydata().tolist() == [[200.0, 3.0]]


def test_a_sweep_has_a_panel_a_metric_with_points_and_bands_in_order():
    rows = [
        {"setting": f"k={k}", "metric": metric, "value": scale * k,
         "low": scale * k - 1, "high": scale * k + 2}
        for k in (8, 1, 2)
        for metric, scale in (("score", 10.0), ("plans_per_second", -3.0))
    ]  # fmt: skip
    figure = figures.plot_sweep(rows, label="levels")
    assert [axes.get_title() for axes in figure.axes] == ["score", "plans per second"]
    for axes, scale in zip(figure.axes, (10.0, -3.0), strict=True):
        (line,) = axes.lines
        np.testing.assert_allclose(
            line.get_xydata(), [(k, scale * k) for k in (1, 2, 8)]
        )
        (band,) = artists(axes, "band")
        corners = {tuple(corner) for corner in band.get_paths()[0].vertices}
        for k in (1, 2, 8):
            assert {(k, scale * k - 1), (k, scale * k + 2)} <= corners
        assert axes.get_xlabel() == "levels"
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "8"]
    with pytest.raises(ValueError, match="no results"):
        figures.plot_sweep([], label="levels")


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


def test_nothing_to_draw_is_the_users_error():
    with pytest.raises(UserError, match="nope"):
        figures.plot_scores(RESULTS, metric="nope")
    with pytest.raises(UserError, match="nope"):
        figures.plot_curve([{"learner": "a", "step": 1, "loss": 1.0}], key="nope")


def test_categories_differ_and_readers_settings_are_left_alone():
    assert len({to_rgba(colour) for colour in PALETTE}) == 8
    before = copy.deepcopy(dict(matplotlib.rcParams))
    figures.plot_scores(RESULTS)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_save_makes_folders_and_writes(tmp_path, ending):
    path = tmp_path / "new" / "folder" / f"plan.{ending}"
    figures.save(figures.plot_scores(RESULTS), path)
    assert path.stat().st_size > 1000


def test_unwritable_paths_are_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    figure = figures.plot_scores(RESULTS)
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


def test_a_sweep_may_be_linear():
    rows = [
        {"setting": f"{x:g}", "metric": "return", "value": x, "low": x, "high": x}
        for x in (0.0, 0.5, 1.0)
    ]
    figure = figures.plot_sweep(rows, label="asked for", logarithmic=False)
    assert figure.axes[0].get_xscale() == "linear"
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xdata(), [0, 0.5, 1])


def test_numbers_too_near_each_other_are_not_all_written():
    rows = [
        {"setting": f"w={x:g}", "metric": "return", "value": x, "low": x, "high": x}
        for x in (0.0, 1.0, 1.1, 4.0)
    ]
    (axes,) = figures.plot_sweep(rows, label="weight", logarithmic=False).axes
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["0", "1", "", "4"]
    np.testing.assert_allclose(axes.get_xticks(), [0, 1, 1.1, 4])
