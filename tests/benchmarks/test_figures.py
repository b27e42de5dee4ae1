"""What is drawn is what was given: bars, sweeps and their intervals."""

import numpy as np
import pytest

from benchmarks import figures
from jaxdiff.errors import UserError


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


def test_nothing_to_draw_is_the_users_error():
    with pytest.raises(UserError, match="nope"):
        figures.plot_scores(RESULTS, metric="nope")


def test_rates_stand_over_the_batch_one_panel_a_kind():
    def rate(kind, batch, method, value):
        setting = f"umaze, {kind}, batch = {batch}"
        return result(setting, method, value, value, value, "steps_per_second")

    rows = [
        rate("physics", 64, "on device", 5e5),
        rate("physics", 1, "on device", 1e5),
        rate("physics", 1, "MuJoCo", 5e4),
        rate("8 steps", 1, "MuJoCo", 9e3),
        result("umaze, 8 steps, batch = 1", "MuJoCo", 200, 190, 210, "return"),
    ]
    physics, planning = figures.plot_rates(rows).axes
    assert [axes.get_title() for axes in (physics, planning)] == [
        "umaze, physics",
        "umaze, 8 steps",
    ]
    drawn = {line.get_label(): line.get_xydata().tolist() for line in physics.lines}
    assert drawn == {"on device": [[1, 1e5], [64, 5e5]], "MuJoCo": [[1, 5e4]]}
    lines = {line.get_label(): line.get_xydata().tolist() for line in planning.lines}
    assert lines == {"on device": [], "MuJoCo": [[1, 9e3]]}
