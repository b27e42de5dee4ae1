"""What is drawn is what was given: panels, walls, points, intervals, frames."""

import copy

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from PIL import Image

from jaxdiff import figures
from jaxdiff.errors import UserError
from jaxdiff.tasks.pointmaze.world import GOAL_RADIUS, MAZES, cell_to_xy, free_cells

UMAZE = MAZES["umaze"]


def straight(maze, horizon, shift=0.0):
    """A path [H, 2] through two opposite free cells."""
    start, goal = cell_to_xy(maze, free_cells(maze)[[0, -1]])
    return np.linspace(start, goal, horizon) + shift


def artists(axes, gid):
    return [artist for artist in axes.get_children() if artist.get_gid() == gid]


def panels(figure):
    return [axes for axes in figure.axes if artists(axes, "walls")]


@pytest.mark.parametrize("name", MAZES)
def test_a_polygon_for_every_wall_cell_and_none_on_free_ones(name):
    maze = MAZES[name]
    (axes,) = panels(figures.plot_plans(maze, [straight(maze, 8)]))
    (walls,) = artists(axes, "walls")
    centres = np.array([path.vertices[:4].mean(0) for path in walls.get_paths()])
    assert len(centres) == sum(row.count("#") for row in maze.map)
    for centre in cell_to_xy(maze, free_cells(maze)):
        assert np.abs(centres - centre).max(-1).min() == pytest.approx(1.0)
    rows, columns = maze.shape
    assert np.abs(axes.get_xlim()).max() <= columns / 2
    assert np.abs(axes.get_ylim()).max() <= rows / 2
    # The upper left cell of the map lies at the upper left of the picture.
    assert axes.get_xlim()[0] < axes.get_xlim()[1]
    assert axes.get_ylim()[0] < axes.get_ylim()[1]
    assert axes.get_aspect() == 1.0


def test_regions_and_waypoints_stand_where_they_are():
    avoid, via = [(0.5, -1.0, 0.3), (1.0, 1.0, 0.2)], [(1.0, 0.0), (-1.0, 1.0)]
    plans = [straight(UMAZE, 4)] * 2
    figure = figures.plot_plans(UMAZE, plans, avoid=avoid, via=via)
    for axes, region, point in zip(panels(figure), avoid, via, strict=True):
        (disc,), (mark,) = artists(axes, "avoid"), artists(axes, "via")
        assert (*disc.center, disc.radius) == region
        np.testing.assert_array_equal(mark.get_offsets(), [point])
    (axes, _) = panels(figures.plot_plans(UMAZE, plans))
    assert not artists(axes, "avoid") + artists(axes, "via")


def test_plans_have_a_panel_each_with_points_coloured_by_time():
    plans = [straight(UMAZE, horizon) for horizon in (5, 9, 17)]
    figure = figures.plot_plans(UMAZE, plans, titles=["a", "b", "c"], columns=2)
    assert [axes.get_title() for axes in panels(figure)] == ["a", "b", "c"]
    for axes, plan in zip(panels(figure), plans, strict=True):
        (points,) = artists(axes, "plan")
        np.testing.assert_allclose(points.get_offsets(), plan)
        time = np.asarray(points.get_array())
        assert time.shape == (len(plan),)
        assert (time[0], time[-1]) == points.get_clim() == (0.0, 1.0)
        assert (np.diff(time) > 0).all()
        figure.canvas.draw()
        # Lightness rises with time, so the order is readable without colour.
        light = points.get_facecolors()[:, :3] @ [0.2126, 0.7152, 0.0722]
        assert (np.diff(light) > 0).all()


def test_plans_show_what_was_driven_the_start_and_the_goal():
    plans = np.stack([straight(UMAZE, 6), straight(UMAZE, 6, 0.1)])
    executed = plans + 0.05
    figure = figures.plot_plans(
        UMAZE, plans, executed=executed, starts=plans[:, 0], goals=plans[:, -1]
    )
    for axes, plan, driven in zip(panels(figure), plans, executed, strict=True):
        (line,) = artists(axes, "executed")
        np.testing.assert_allclose(line.get_xydata(), driven)
        (start,), (goal,) = artists(axes, "start"), artists(axes, "goal")
        np.testing.assert_allclose(start.get_offsets()[0], plan[0])
        np.testing.assert_allclose(goal.get_offsets()[0], plan[-1])
        (disc,) = artists(axes, "reached")
        assert disc.get_center() == pytest.approx(plan[-1])
        assert disc.get_radius() == GOAL_RADIUS


def test_nothing_is_drawn_that_was_not_given():
    (axes,) = panels(figures.plot_plans(UMAZE, [straight(UMAZE, 4)]))
    for gid in ("executed", "start", "goal", "reached"):
        assert not artists(axes, gid)


def test_plans_of_a_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"\[H, 2\]"):
        figures.plot_plans(UMAZE, np.zeros((1, 4, 6)))
    with pytest.raises(ValueError, match="no plans"):
        figures.plot_plans(UMAZE, [])


def test_denoising_goes_from_the_first_sample_to_the_last():
    path = np.stack([straight(UMAZE, 7) + 0.01 * step for step in range(21)])
    shown = panels(figures.plot_denoising(UMAZE, path, frames=5, goal=path[-1, -1]))
    titles = [axes.get_title() for axes in shown]
    assert titles == [f"step {step} of 20" for step in (0, 5, 10, 15, 20)]
    for axes, step in zip(shown, (0, 5, 10, 15, 20), strict=True):
        np.testing.assert_allclose(artists(axes, "plan")[0].get_offsets(), path[step])
        assert artists(axes, "goal")
        assert not artists(axes, "start")


def test_denoising_of_few_steps_shows_each_once():
    path = np.stack([straight(UMAZE, 7)] * 3)
    assert len(panels(figures.plot_denoising(UMAZE, path))) == 3


def test_denoising_noise_does_not_widen_the_panels():
    (axes,) = panels(figures.plot_denoising(UMAZE, np.full((1, 4, 2), 40.0)))
    assert np.abs(axes.get_xlim()).max() <= UMAZE.shape[1] / 2


def test_horizons_are_panels_in_order_with_one_goal():
    plans = {16: straight(UMAZE, 16), 4: straight(UMAZE, 4), 8: straight(UMAZE, 8)}
    shown = panels(figures.plot_horizons(UMAZE, plans, (1.0, -1.0)))
    for axes, horizon in zip(shown, (4, 8, 16), strict=True):
        assert str(horizon) in axes.get_title()
        assert len(artists(axes, "plan")[0].get_offsets()) == horizon
        (start,), (goal,) = artists(axes, "start"), artists(axes, "goal")
        np.testing.assert_allclose(goal.get_offsets(), [[1.0, -1.0]])
        np.testing.assert_allclose(start.get_offsets(), plans[4][:1])


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
    assert len({to_rgba(colour) for colour in figures._OKABE_ITO}) == 8
    before = copy.deepcopy(dict(matplotlib.rcParams))
    figures.plot_scores(RESULTS)
    figures.plot_plans(UMAZE, [straight(UMAZE, 4)])
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_save_makes_folders_and_writes(tmp_path, ending):
    path = tmp_path / "new" / "folder" / f"plan.{ending}"
    figures.save(figures.plot_scores(RESULTS), path)
    assert path.stat().st_size > 1000


def test_saved_picture_has_a_white_ground(tmp_path):
    figures.save(figures.plot_plans(UMAZE, [straight(UMAZE, 4)]), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.convert("RGBA").getpixel((1, 1)) == (255, 255, 255, 255)


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
    with pytest.raises(UserError, match="cannot be written"):
        figures.animate_episode(
            UMAZE, np.zeros((2, 4)), straight(UMAZE, 4), (1, 1), tmp_path / "file/a.gif"
        )


def test_animation_has_a_frame_every_few_steps_and_the_last(tmp_path):
    path = tmp_path / "new" / "episode.gif"
    drive = straight(UMAZE, 23)
    observations = np.concatenate([drive, np.zeros_like(drive)], axis=-1)
    figures.animate_episode(UMAZE, observations, drive, drive[-1], path, every=5)
    with Image.open(path) as image:
        assert image.n_frames == 6  # steps 0, 5, 10, 15, 20 and 22
        assert image.info["duration"] == 50  # 5 steps of 0.01 s
        first = np.asarray(image.convert("RGB")).astype(int)
        image.seek(5)
        last = np.asarray(image.convert("RGB")).astype(int)
    assert (first[0, 0] == 255).all()
    ink_first, ink_last = first.sum(-1) < 180, last.sum(-1) < 180
    assert ink_last[ink_first].mean() < 0.7  # the ball has left
    extent_first = np.ptp(np.argwhere(ink_first), axis=0).max()
    extent_last = np.ptp(np.argwhere(ink_last), axis=0).max()
    assert extent_last > 4 * extent_first  # its trail leads back


def test_animation_of_a_long_episode_is_small(tmp_path):
    drive = straight(UMAZE, 301)
    figures.animate_episode(UMAZE, drive, drive, drive[-1], tmp_path / "a.gif")
    assert (tmp_path / "a.gif").stat().st_size < 1_000_000


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
