import dataclasses
from typing import Literal

import pytest

from jaxdiff.errors import UserError, reason, writing
from jaxdiff.options import check_options, from_plain, to_plain


@dataclasses.dataclass(frozen=True)
class Options:
    count: int = 3
    rate: float = 0.5
    widths: tuple[int, ...] = (1, 2)
    kind: Literal["left", "right"] = "left"
    limit: float | None = None
    wide: bool = False
    name: str = "x"

    def __post_init__(self):
        check_options(self, count=1, widths=1, limit=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": 0}, "--count is 0; it must be at least 1"),
        ({"count": 2.0}, "--count is 2.0; it must be a whole number"),
        ({"count": True}, "--count is True; it must be a whole number"),
        ({"rate": "fast"}, "--rate is 'fast'; it must be a finite number"),
        ({"rate": True}, "--rate is True; it must be a finite number"),
        ({"rate": float("inf")}, "--rate is inf; it must be a finite number"),
        ({"widths": (1, 0)}, r"--widths is \(1, 0\); it must be at least 1"),
        ({"widths": (1, "2")}, "--widths is .*; it must be a list, each a whole"),
        ({"widths": 4}, "--widths is 4; it must be a list"),
        ({"kind": "up"}, "--kind is 'up'; it must be one of left, right"),
        ({"limit": -0.1}, "--limit is -0.1; it must be at least 0"),
        ({"limit": "none"}, "--limit is 'none'; it must be a finite number or none"),
        ({"wide": 1}, "--wide is 1; it must be true or false"),
        ({"name": None}, "--name is None; it must be a word"),
    ],
)
def test_unsound_option_is_named(change, words):
    with pytest.raises(UserError, match=f"^{words}"):
        Options(**change)


def test_sound_options_pass_through_json():
    for options in (
        Options(),
        Options(count=1, rate=2, widths=(3,), kind="right", limit=0.0, wide=True),
    ):
        assert from_plain(Options, to_plain(options)) == options


def test_unknown_name_is_refused():
    with pytest.raises(TypeError, match="colour"):
        from_plain(Options, {"colour": "red"})


def test_reason_is_one_line():
    assert reason(ValueError("first\nsecond")) == "first"
    assert reason(AssertionError()) == "AssertionError"
    assert reason(OSError(28, "No space left on device", "x")) == (
        "No space left on device"
    )


def test_writing_makes_the_folder_and_lets_user_errors_through(tmp_path):
    with writing(tmp_path / "a" / "b" / "file", "do this"):
        (tmp_path / "a" / "b" / "file").write_text("x")
    with (
        pytest.raises(UserError, match=r"file/c cannot be written \(.+\); do this$"),
        writing(tmp_path / "a" / "b" / "file" / "c", "do this"),
    ):
        pass
    with (
        pytest.raises(UserError, match=r"^inner$"),
        writing(tmp_path / "x", "do this"),
    ):
        raise UserError("inner")
