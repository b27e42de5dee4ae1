import dataclasses
from typing import Annotated, Literal

import pytest

from jaxdiff.cli.parsing import in_flags
from jaxdiff.errors import UserError, reason, writing
from jaxdiff.options import (
    Named,
    Options,
    above,
    at_least,
    at_most,
    from_plain,
    override,
    to_plain,
)

SHAPES = {"round": 1, "square": 2}


@dataclasses.dataclass(frozen=True)
class Own(Options):
    count: int = 3
    rate: float = 0.5
    widths: tuple[int, ...] = (1, 2)
    kind: Literal["left", "right"] = "left"
    limit: float | None = None
    wide: bool = False
    name: str = "x"
    shape: Annotated[str, Named(SHAPES)] = "round"

    def faults(self):
        yield from super().faults()
        yield from at_least(self, 1, "count", "widths")
        yield from at_least(self, 0, "limit")
        yield from at_most(self, 10, "count")
        yield from above(self, 0, "rate")


@dataclasses.dataclass(frozen=True)
class More(Own):
    extra: int = 0

    def faults(self):
        yield from super().faults()
        yield from at_least(self, 0, "extra")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": 0}, "`count` is 0; it must be at least 1"),
        ({"count": 11}, "`count` is 11; it must be at most 10"),
        ({"count": 2.0}, "`count` is 2.0; it must be a whole number"),
        ({"count": True}, "`count` is True; it must be a whole number"),
        ({"rate": 0}, "`rate` is 0; it must be above 0"),
        ({"rate": "fast"}, "`rate` is 'fast'; it must be a finite number"),
        ({"rate": True}, "`rate` is True; it must be a finite number"),
        ({"count": 2**31}, "`count` is 2147483648; it must be a whole number below"),
        ({"rate": 1e30}, "`rate` is 1e.30; it must be a finite number up to 1e12"),
        ({"rate": float("inf")}, "`rate` is inf; it must be a finite number"),
        ({"widths": (1, 0)}, r"`widths` is \(1, 0\); it must be at least 1"),
        ({"widths": (1, "2")}, "`widths` is .*; it must be a list, each a whole"),
        ({"widths": 4}, "`widths` is 4; it must be a list"),
        ({"kind": "up"}, "`kind` is 'up'; it must be one of left, right"),
        ({"limit": -0.1}, "`limit` is -0.1; it must be at least 0"),
        ({"limit": "none"}, "`limit` is 'none'; it must be .* up to 1e12 or none"),
        ({"wide": 1}, "`wide` is 1; it must be true or false"),
        ({"name": None}, "`name` is None; it must be a word"),
        ({"shape": "oval"}, "`shape` is 'oval'; it must be one of round, square"),
    ],
)
def test_unsound_option_is_named(change, words):
    with pytest.raises(UserError, match=f"^{words}"):
        Own(**change)


def test_all_faults_are_named_at_once_those_of_the_base_too():
    with pytest.raises(UserError) as caught:
        More(count=0, limit=-1.0, extra=-1)
    for name in ("count", "limit", "extra"):
        assert f"`{name}` is" in str(caught.value)
    with pytest.raises(UserError) as caught:
        More(count="many", rate="fast")
    assert "`count`" in str(caught.value)
    assert "`rate`" in str(caught.value)


def test_a_name_that_is_added_to_a_table_may_be_chosen():
    SHAPES["oval"] = 3
    try:
        assert Own(shape="oval").shape == "oval"
    finally:
        del SHAPES["oval"]


def test_sound_options_pass_through_json():
    for options in (
        Own(),
        Own(count=1, rate=2, widths=(3,), kind="right", limit=0.0, wide=True),
    ):
        assert from_plain(Own, to_plain(options)) == options


def test_unknown_name_is_refused():
    with pytest.raises(TypeError, match="colour"):
        from_plain(Own, {"colour": "red"})
    with pytest.raises(UserError, match="acting has no option `colour`, `size`; its"):
        override(Own(), {"size": 1, "colour": "red", "count": 2}, "acting")
    assert override(Own(), {"count": 2}, "acting") == Own(count=2)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("`sampling_steps` is 3", "--sampling-steps is 3"),
        ("choose `lost=0`", "choose --lost 0"),
        ("choose `controller='action'`", "choose --controller action"),
        ("pass `resume=True`", "pass --resume"),
        ("or `drop_timeouts=False`", "or --no-drop-timeouts"),
        ("`policy.num_steps` is 1", "--policy.num-steps is 1"),
        ("run `jaxdiff list`", "run `jaxdiff list`"),
    ],
)
def test_the_command_line_spells_options_as_flags(said, shown):
    assert in_flags(said) == shown


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
