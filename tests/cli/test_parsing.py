"""Flags come from options classes, and faults become one sentence."""

import dataclasses
from typing import Annotated, Literal

import pytest

from jaxdiff.cli.parsing import (
    Flag,
    flags_of,
    helps,
    parse,
    table,
    value_of,
    values_of,
    without_flag,
)
from jaxdiff.errors import UserError
from jaxdiff.options import Named, Options

SHAPES = {"round": 0, "square": 1}


@dataclasses.dataclass(frozen=True)
class Base(Options):
    """The base.

    Attributes:
      size: how large it is, in a text
        of two lines.
      shape: what it looks like.
    """

    size: int = 3
    shape: Annotated[str, Named(SHAPES)] = "round"


@dataclasses.dataclass(frozen=True)
class Own(Base):
    """What is made of it.

    Attributes:
      names: words.
      limit: the most; none for no limit.
      loud: make noise.
      pace: fast or slow.
    """

    names: tuple[str, ...] = ()
    limit: float | None = 1.0
    loud: bool = True
    pace: Literal["fast", "slow"] = "fast"


def read(*args, flags=None):
    return parse("prog", list(args), flags or flags_of(Own()), "Do it.")


def test_texts_are_those_of_the_attributes_and_of_the_bases():
    assert helps(Own) == {
        "size": "how large it is, in a text of two lines.",
        "shape": "what it looks like.",
        "names": "words.",
        "limit": "the most; none for no limit.",
        "loud": "make noise.",
        "pace": "fast or slow.",
    }
    assert {each.name: each.text for each in flags_of(Own())} == helps(Own)


def test_defaults_are_the_values_of_an_instance():
    found = {each.name: each.default for each in flags_of(Own(size=7, limit=None))}
    assert found == {
        "size": 7, "shape": "round", "names": (), "limit": None, "loud": True,
        "pace": "fast",
    }  # fmt: skip
    assert [each.name for each in flags_of(Own, without=("names", "pace", "loud"))] == [
        "size", "shape", "limit",
    ]  # fmt: skip


def test_a_field_without_a_default_must_be_given():
    @dataclasses.dataclass(frozen=True)
    class Needed(Options):
        """Attributes: place: Where."""

        place: str

    assert read("--place", "here", flags=flags_of(Needed)) == {"place": "here"}
    with pytest.raises(UserError, match="--place must be given; see `prog --help`"):
        read(flags=flags_of(Needed))


def test_words_become_values():
    assert read() == dataclasses.asdict(Own())
    words = ("--size", "4", "--shape", "square", "--names", "a", "b", "--limit", "None")
    assert read(*words, "--no-loud", "--pace=slow") == {
        "size": 4, "shape": "square", "names": ("a", "b"), "limit": None,
        "loud": False, "pace": "slow",
    }  # fmt: skip


def test_names_of_a_table_are_choices_however_it_grew(monkeypatch, capsys):
    with pytest.raises(
        UserError, match=r"'oval' for argument '--shape'.*'round', 'square'"
    ):
        read("--shape", "oval")
    monkeypatch.setitem(SHAPES, "oval", 2)
    assert read("--shape", "oval")["shape"] == "oval"
    with pytest.raises(SystemExit):
        read("--help")
    assert "{round,square,oval}" in capsys.readouterr().out


def test_flags_of_a_learner_have_its_name():
    flags = [Flag("policy.num_steps", int | None, "Updates.", None)]
    assert read("--policy.num-steps", "5", flags=flags) == {"policy.num_steps": 5}
    assert read(flags=flags) == {"policy.num_steps": None}


def test_positional_words_have_their_name_in_help_and_errors(capsys):
    flags = [Flag("run_folder", str, "Where.", positional=True)]
    assert read("here", flags=flags) == {"run_folder": "here"}
    with pytest.raises(UserError, match="RUN-FOLDER must be given"):
        read(flags=flags)
    with pytest.raises(SystemExit):
        read("--help", flags=flags)
    assert "RUN-FOLDER" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "big"], "--size"),
        (["--sise", "3"], "did you mean --size"),
        (["--size"], "--size"),
        (["more"], "more"),
        (["--limit", "much"], "--limit"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(words, said):
    with pytest.raises(UserError) as refused:
        read(*words)
    text = str(refused.value)
    assert said in text
    assert text.endswith("see `prog --help`")
    assert not set(text) & set("\n│╭╮╰╯─")


def test_one_flag_can_be_read_before_the_others_are_known():
    words = ["train", "--a", "1", "--b=2", "--a=3", "--c"]
    assert values_of(words, "--a") == ["1", "3"]
    assert value_of(words, "--a") == "3"
    assert value_of(words, "--b") == "2"
    assert value_of(words, "--c") is value_of(words, "--d") is None
    assert without_flag(words, "--a") == ["train", "--b=2", "--c"]
    with pytest.raises(UserError, match="--a is given without a value; write"):
        without_flag([*words, "--a"], "--a")
    assert without_flag(words, "--b") == ["train", "--a", "1", "--a=3", "--c"]


def test_a_table_has_a_line_for_each_value(capsys):
    inner = {"inner": {"x": 1}, "list": [{"x": 1}, {"x": 2}]}
    table({"a": 1, "long name": 0.123456, "span": (1.0, 2.5), **inner})
    assert capsys.readouterr().out == (
        "a          1\nlong name  0.1235\nspan       1 to 2.5\nlist       2\n"
    )
