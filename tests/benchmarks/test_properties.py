"""The experiments about properties of planning: their problems and their judges."""

import numpy as np
import pytest

from benchmarks import stitching
from benchmarks.properties import detours, pairs, shortest_way
from jaxdiff.errors import UserError
from jaxdiff.tasks.pointmaze.world import MAZES, free_cells

MEDIUM = MAZES["medium"]


def test_a_shortest_way_is_a_way_and_its_length_is_symmetric():
    for moves, pair in pairs(MEDIUM):
        way = shortest_way(MEDIUM, pair.start, pair.goal)
        assert (way[0], way[-1], len(way) - 1) == (pair.start, pair.goal, moves)
        assert all(MEDIUM.map[row][column] == "." for row, column in way)
        assert (np.abs(np.diff(way, axis=0)).sum(1) == 1).all()
        assert len(shortest_way(MEDIUM, pair.goal, pair.start)) == len(way)
    count = len(free_cells(MEDIUM))
    assert len(pairs(MEDIUM)) == count * (count - 1)
    assert shortest_way(MAZES["umaze"], (1, 1), (3, 1)) == [
        *((1, 1), (1, 2), (1, 3), (2, 3), (3, 3), (3, 2), (3, 1))
    ]


def test_a_detour_keeps_out_of_a_cell_that_lay_on_the_way():
    problems = detours(MEDIUM, longest=10)
    assert len(problems) > 100
    for problem in problems:
        way = shortest_way(MEDIUM, problem.start, problem.goal)
        assert problem.avoid in way[2:-2]
        left = shortest_way(MEDIUM, problem.start, problem.goal, without=problem.avoid)
        assert len(left) - 1 <= 10
        assert problem.avoid not in left
        assert problem.via in left[1:-1]


def test_a_maze_without_ways_round_is_refused():
    with pytest.raises(UserError, match="no way round"):
        detours(MAZES["umaze"], longest=99)


def test_paths_of_the_data_succeed_and_shortcuts_do_not():
    episodes = stitching.make_paths(6, np.random.default_rng(0))
    paths = episodes.observations.reshape(6, -1, 2)
    assert stitching.succeeds(paths[::2], "A", "C'").all()
    assert stitching.succeeds(paths[1::2], "A'", "C").all()
    assert not stitching.succeeds(paths, "A", "C").any()
    # The first half of the one and the second of the other is what stitching means.
    here, there = (np.abs(path[:, 0]).argmin() for path in paths[:2])
    stitched = np.concatenate([paths[0, :here], paths[1, there:]])
    assert stitching.succeeds(stitched[None], "A", "C").all()
    share = np.linspace(0, 1, 50)[:, None]
    line = (1 - share) * stitching.ENDS["A"] + share * np.array(stitching.ENDS["C"])
    assert not stitching.succeeds(line[None], "A", "C").any()
    # A jump from one leg to another is none, nor is stopping short.
    jump = np.concatenate([paths[0, :-5], paths[1, -5:]])
    assert not stitching.succeeds(jump[None], "A", "C").any()
    assert not stitching.succeeds(stitched[None, :-20], "A", "C").any()
