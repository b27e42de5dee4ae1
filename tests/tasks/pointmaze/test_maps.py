"""Maps that are mazes are read, and all others are refused in a sentence."""

import pytest

from jaxdiff.errors import UserError
from jaxdiff.tasks.pointmaze.maps import parse_map, read_map


def test_all_ways_to_write_a_map_are_one(tmp_path):
    expected = ("#####", "#...#", "###.#", "#####")
    for text in ("#####\n#...#\n###.#\n#####", "11111\r\n10 .1\r\n11101\r\n11111\n"):
        (tmp_path / "map.txt").write_text(text)
        assert read_map(tmp_path / "map.txt") == expected
    cells = [[1] * 5, [1, "r", 0, "g", 1], [1, 1, 1, "c", 1], [1] * 5]
    assert parse_map(cells) == expected


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["####", "#..#", "###"], "4, 4, 3 cells; all rows must have as many"),
        (["####", "#.x#", "####"], "row 1, column 2 of the map is 'x'"),
        (["#.##", "#..#", "####"], "border of the map is open"),
        (["####", "#..#", "#.##"], "border of the map is open"),
        (["####", "...#", "####"], "border of the map is open"),
        (["###", "#.#", "###"], "at least 2 free cells"),
        ([], "at least 2 free cells"),
        (["#####", "#.#.#", "#####"], "cell 1,3 of the map cannot be reached from 1,1"),
    ],
)
def test_what_is_no_maze_is_refused(cells, words):
    with pytest.raises(UserError, match=words):
        parse_map(cells)


def test_a_map_that_cannot_be_read_is_the_users_error(tmp_path):
    (tmp_path / "picture").write_bytes(bytes([137, 255, 0]))
    for name in ("picture", "nowhere"):
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            read_map(tmp_path / name)
