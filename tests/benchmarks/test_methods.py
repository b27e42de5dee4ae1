"""Runs as methods of a table: their names, and what they act with."""

import types
from pathlib import Path

import pytest

from benchmarks import methods
from benchmarks.methods import MethodOptions, asked, parse_overrides
from jaxdiff.errors import UserError


@pytest.fixture
def loaded(monkeypatch):
    seen = []

    def load(path, overrides):
        seen.append((path, overrides))
        return types.SimpleNamespace(name="diffusion-bc", path=path)

    monkeypatch.setattr(methods, "load_run", load)
    return seen


def test_runs_have_names_and_overrides_of_their_own(loaded):
    options = MethodOptions(
        runs=(Path("a"), Path("b")), methods=("D", ""), overrides=("", "clip=None x=ab")
    )
    found = [(name, run.path) for name, run in asked(options)]
    assert found == [("D", Path("a")), ("diffusion-bc", Path("b"))]
    assert loaded == [(Path("a"), {}), (Path("b"), {"clip": None, "x": "ab"})]


def test_a_run_is_loaded_when_its_turn_comes(loaded):
    runs = asked(MethodOptions(runs=(Path("a"), Path("b"))))
    assert not loaded
    next(runs)
    assert len(loaded) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"methods": ("D", "E")}, "`methods` has 2 entries for 1 runs"),
        ({"overrides": ("", "")}, "`overrides` has 2 entries"),
        ({"methods": ("demonstrator",)}, "a row of its own"),
        ({"overrides": ("steps",)}, "write NAME=VALUE"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(loaded, options, words):
    with pytest.raises(UserError, match=words):
        asked(MethodOptions(runs=(Path("a"),), **options))
    assert not loaded


def test_values_of_overrides_are_literals_or_words():
    found = parse_overrides("sampling_steps=10 clip=1.5 sampler=ddim warm=True")
    assert found == {
        "sampling_steps": 10, "clip": 1.5, "sampler": "ddim", "warm": True,
    }  # fmt: skip
