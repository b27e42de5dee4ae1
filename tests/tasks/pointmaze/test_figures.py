"""What is drawn of a maze is what was given: walls, points, plans, frames."""

import copy

import matplotlib
import numpy as np
import pytest
from PIL import Image

from jaxdiff.errors import UserError
from jaxdiff.figures import save
from jaxdiff.tasks.pointmaze.figures import (
    animate_episode,
    plot_denoising,
    plot_episodes,
    plot_horizons,
    plot_plans,
)
from jaxdiff.tasks.pointmaze.scores import MazeRollouts
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
    (axes,) = panels(plot_plans(maze, [straight(maze, 8)]))
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
    figure = plot_plans(UMAZE, plans, avoid=avoid, via=via)
    for axes, region, point in zip(panels(figure), avoid, via, strict=True):
        (disc,), (mark,) = artists(axes, "avoid"), artists(axes, "via")
        assert (*disc.center, disc.radius) == region
        np.testing.assert_array_equal(mark.get_offsets(), [point])
    (axes, _) = panels(plot_plans(UMAZE, plans))
    assert not artists(axes, "avoid") + artists(axes, "via")


def test_plans_have_a_panel_each_with_points_coloured_by_time():
    plans = [straight(UMAZE, horizon) for horizon in (5, 9, 17)]
    figure = plot_plans(UMAZE, plans, titles=["a", "b", "c"], columns=2)
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
    figure = plot_plans(
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
    (axes,) = panels(plot_plans(UMAZE, [straight(UMAZE, 4)]))
    for gid in ("executed", "start", "goal", "reached"):
        assert not artists(axes, gid)


def test_plans_of_a_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"\[H, 2\]"):
        plot_plans(UMAZE, np.zeros((1, 4, 6)))
    with pytest.raises(ValueError, match="no plans"):
        plot_plans(UMAZE, [])


def test_denoising_goes_from_the_first_sample_to_the_last():
    path = np.stack([straight(UMAZE, 7) + 0.01 * step for step in range(21)])
    shown = panels(plot_denoising(UMAZE, path, frames=5, goal=path[-1, -1]))
    titles = [axes.get_title() for axes in shown]
    assert titles == [f"step {step} of 20" for step in (0, 5, 10, 15, 20)]
    for axes, step in zip(shown, (0, 5, 10, 15, 20), strict=True):
        np.testing.assert_allclose(artists(axes, "plan")[0].get_offsets(), path[step])
        assert artists(axes, "goal")
        assert not artists(axes, "start")


def test_denoising_of_few_steps_shows_each_once():
    path = np.stack([straight(UMAZE, 7)] * 3)
    assert len(panels(plot_denoising(UMAZE, path))) == 3


def test_denoising_noise_does_not_widen_the_panels():
    (axes,) = panels(plot_denoising(UMAZE, np.full((1, 4, 2), 40.0)))
    assert np.abs(axes.get_xlim()).max() <= UMAZE.shape[1] / 2


def test_horizons_are_panels_in_order_with_one_goal():
    plans = {16: straight(UMAZE, 16), 4: straight(UMAZE, 4), 8: straight(UMAZE, 8)}
    shown = panels(plot_horizons(UMAZE, plans, (1.0, -1.0)))
    for axes, horizon in zip(shown, (4, 8, 16), strict=True):
        assert str(horizon) in axes.get_title()
        assert len(artists(axes, "plan")[0].get_offsets()) == horizon
        (start,), (goal,) = artists(axes, "start"), artists(axes, "goal")
        np.testing.assert_allclose(goal.get_offsets(), [[1.0, -1.0]])
        np.testing.assert_allclose(start.get_offsets(), plans[4][:1])


def test_animation_has_a_frame_every_few_steps_and_the_last(tmp_path):
    path = tmp_path / "new" / "episode.gif"
    drive = straight(UMAZE, 23)
    observations = np.concatenate([drive, np.zeros_like(drive)], axis=-1)
    animate_episode(UMAZE, observations, drive, drive[-1], path, every=5)
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
    animate_episode(UMAZE, drive, drive, drive[-1], tmp_path / "a.gif")
    assert (tmp_path / "a.gif").stat().st_size < 1_000_000


def test_readers_settings_are_left_alone():
    before = copy.deepcopy(dict(matplotlib.rcParams))
    plot_plans(UMAZE, [straight(UMAZE, 4)])
    assert dict(matplotlib.rcParams) == before


def test_saved_picture_has_a_white_ground(tmp_path):
    save(plot_plans(UMAZE, [straight(UMAZE, 4)]), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.convert("RGBA").getpixel((1, 1)) == (255, 255, 255, 255)


def test_an_animation_that_cannot_be_written_is_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        animate_episode(
            UMAZE, np.zeros((2, 4)), straight(UMAZE, 4), (1, 1), tmp_path / "file/a.gif"
        )


def test_several_discs_and_points_are_all_drawn():
    discs, points = [(0.5, -1.0, 0.3), (1.0, 1.0, 0.2)], [(1.0, 0.0), (-1.0, 1.0)]
    figure = plot_plans(UMAZE, [straight(UMAZE, 4)], avoid=[discs], via=[points])
    (axes,) = panels(figure)
    found = [(*disc.center, disc.radius) for disc in artists(axes, "avoid")]
    assert found == discs
    marks = [tuple(mark.get_offsets()[0]) for mark in artists(axes, "via")]
    assert marks == points


@pytest.mark.parametrize("planned", [True, False])
def test_episodes_show_the_path_and_the_plan_if_there_is_one(planned):
    driven = np.zeros((3, 10, 4), np.float32)
    driven[..., :2] = np.stack([straight(UMAZE, 10)] * 3)
    plans = np.concatenate([np.ones((3, 10, 2)), driven], axis=-1)
    plans[:, 6:] = plans[:, 5:6]  # a plan that arrives early repeats its last row
    played = MazeRollouts(
        returns=np.arange(3.0), peaks=None, successes=None, lengths=None,
        observations=driven, goals=driven[:, -1, :2], plans=plans if planned else None,
        maze=UMAZE, expert=None, chance=None,
    )  # fmt: skip
    shown = panels(plot_episodes(None, played, count=2))
    assert [axes.get_title() for axes in shown] == ["return 0", "return 1"]
    for axes in shown:
        (line,) = artists(axes, "executed")
        np.testing.assert_allclose(line.get_xydata(), driven[0, :, :2])
        (points,) = artists(axes, "plan")
        expected = driven[0, :6, :2] if planned else driven[0, :1, :2]
        np.testing.assert_allclose(points.get_offsets(), expected)
