"""Command lines: any option with any value, and some that once ended badly.

Runs are asked for in /proc, where nothing can be written, so that every command ends
before it trains. A value that is not of its option's kind must be named, and no other
fault in its place.
"""

import dataclasses
import math
import pathlib
import sys
import typing
from typing import Annotated

import numpy as np
from hypothesis import strategies as st

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.base import TrainConfig
from jaxdiff.cli import main
from jaxdiff.options import hints
from tests.faults.datasets import flat, record
from tests.faults.tally import Case, Tally, fuzz, judge, spoken

HUGE = str(10**30)
# What to say; what the sentence must name.
ONCE = [
    (["train", "iql", "--widths", HUGE], ["--widths", "below 2^31"]),
    (["train", "diffuser", "--diffusion-steps", HUGE], ["--diffusion-steps"]),
    (["train", "td3-bc", "--policy-delay", str(2**63)], ["--policy-delay"]),
    (["train", "diffuser", "--candidates", str(2**63)], ["--candidates"]),
    (["train", "bc", "--clusters", str(2**63)], ["--clusters"]),
    (["train", "bc", "--hidden", HUGE], ["--hidden"]),
    (["train", "bc", "--learning-rate", "0"], ["--learning-rate is 0"]),
    (["train", "bc", "--learning-rate", "nan"], ["--learning-rate"]),
    (["train", "bc", "--batch-size", "0"], ["--batch-size is 0"]),
    (["train", "iql", "--policy.num-steps", "-1"], ["num-steps is -1"]),
    (["train", "bc", "--seed", HUGE], ["--seed"]),
    (["train", "bc", "--devices", HUGE], ["devices"]),
    (["data", "make", "pointmaze-umaze", "--noise", "1e30"], ["noise"]),
    (["data", "make", "pointmaze-umaze", "--noise=-1"], ["noise"]),
    (["data", "make", "pointmaze-umaze", "--steps", HUGE], ["steps"]),
    (["data", "make", "pointmaze-umaze", "--root="], ["--root is empty"]),
    (["data", "info", "{data}", "--root="], ["--root is empty"]),
    (["data", "info", "\udcff.npz"], ["not written in UTF-8"]),
    (["data", "info", ""], []),
    (["data", "info", "\0"], []),
    (["list", "--root="], ["--root is empty"]),
    (["demo", "--episodes", "0", "--out", "/proc/demo"], []),
    (["evaluate", "/proc/run"], ["no run folder"]),
    (["evaluate", "\udcff"], ["not written in UTF-8"]),
    (["plan", ""], []),
    (["plan"], ["RUN must be given"]),
    (["tune-guidance", "{data}"], ["no run folder"]),
    ([""], []),
    (["--import", "nothing_of_that_name", "list"], ["nothing_of_that_name"]),
    (["--import"], []),
]
DEFAULTS = {"train": ["--dataset", "{data}", "--run", "/proc/run"]}


def once_case(data, words, says):
    words = [*words, *DEFAULTS.get(words[0], [])]
    words = [word.format(data=data) for word in words]
    return Case(" ".join(map(ascii, words)), lambda: main(words), sound=False,
                says=says)  # fmt: skip


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
NUMBERS = st.one_of(
    st.integers(-1000, 1000).map(str),
    st.sampled_from([HUGE, str(2**31), str(2**63), f"-{HUGE}", "0", "-1", "1"]),
)
FLOATS = st.one_of(
    st.floats(-1e3, 1e3).map(str),
    st.sampled_from(["nan", "inf", "-inf", "1e999", "1e30", "1e-300", "0", "-0.0"]),
)
NONSENSE = st.sampled_from(
    ["x", "", "0x10", "1,2", "--", "é", "\u0663\u0663x", "True?", "1_", "None?", "[]"]
)


def kinds_of(hint):
    """Plain types that a hint names."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return {str}
    if typing.get_origin(hint) is Annotated:
        return kinds_of(inner[0])
    if typing.get_origin(hint) is tuple:
        return {tuple, *kinds_of(inner[0])}
    return set().union(*map(kinds_of, inner)) if inner else {hint}


def options_of(name):
    entry, found = ALGORITHMS[name], {}
    for kind in (TrainConfig, entry.config, entry.acting):
        for field in dataclasses.fields(kind):
            found[field.name] = kinds_of(hints(kind)[field.name])
    return found


def line_case(draw, data):
    name = draw(st.sampled_from(sorted(ALGORITHMS)))
    options = options_of(name)
    words, given, named = [], [], []
    for option in draw(
        st.lists(st.sampled_from(sorted(options)), min_size=1, max_size=2, unique=True)
    ):
        kinds, flag = options[option], f"--{option.replace('_', '-')}"
        given.append(flag)
        if kinds == {bool}:
            words.append(draw(st.sampled_from([flag, f"--no-{flag[2:]}"])))
            continue
        value = draw(st.one_of(NUMBERS, FLOATS, NONSENSE, WORDS))
        words.append(f"{flag}={value}")
        if not fits(value, kinds):
            named.append(flag)
    words = ["train", name, *words, "--dataset", str(data), "--run", "/proc/run"]
    # Of several faults one is enough.
    flags = [flag for flag in given if named]
    return Case(" ".join(map(ascii, words)), lambda: blame(words, flags), sound=False)


def fits(value, kinds):
    """Whether a word may be a value of any of the kinds, as Python reads them."""
    if str in kinds:
        return True
    if type(None) in kinds and value == "None":
        return True
    try:
        number = float(value) if float in kinds else int(value)
    except (ValueError, OverflowError):
        return tuple in kinds or not kinds & {int, float}
    return isinstance(number, int) or math.isfinite(number)


def blame(words, named):
    """Run a command that must end in a sentence about one of the named flags."""
    with spoken() as said:
        try:
            main(words)
        except SystemExit as end:
            text, code = said(), end.code
        else:
            return
    if named and code == 2 and not any(flag in text for flag in named):
        return  # another fault in its place: this one was accepted in silence
    print(text, file=sys.stderr)
    raise SystemExit(code)


def tally(folder: pathlib.Path, count: int) -> Tally:
    """Judge the lines that once ended badly, and `count` that are drawn."""
    data = folder / "with a space.npz"
    np.savez(data, **flat(record([30, 20])))
    once = Tally()
    for words, says in ONCE:
        case = once_case(data, words, says)
        once.add(case, *judge(case))
    drawn = fuzz(lambda draw: line_case(draw, data), count)
    for name, value in drawn.row().items():
        setattr(once, name, getattr(once, name) + value)
    once.stories += drawn.stories
    return once
