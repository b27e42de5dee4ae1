"""A few cases of every kind; `python -m tests.faults` tries hundreds."""

import sys

import pytest

from tests.faults.__main__ import KINDS
from tests.faults.tally import Case, judge

COUNTS = {
    "datasets": 16,
    "windows and normalizers": 6,
    "run folders": 12,
    "kills and signals": 1,
    "full disk": 12,
    "command lines": 6,
    "evaluation": 8,
}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_or_wrong_or_silent(kind, tmp_path):
    tally, _ = KINDS[kind]
    found = tally(tmp_path, COUNTS[kind])
    assert found.tried >= COUNTS[kind] / 2
    assert not found.stories, "\n".join(found.stories)


def ends(code):
    def act():
        print("jaxdiff: this; that", file=sys.stderr)
        raise SystemExit(code)

    return act


def crash():
    raise ValueError("nobody expects this")


@pytest.mark.parametrize(
    ("case", "verdicts"),
    [
        (Case("a good end", lambda: 1, lambda x: x == 1, sound=True), set()),
        (Case("a sentence", ends(2), sound=False), set()),
        (Case("another result", lambda: 1, lambda x: x == 2), {"wrong"}),
        (Case("good data refused", ends(2), sound=True), {"wrong"}),
        (Case("the wrong sentence", ends(2), says=["--dim"]), {"wrong"}),
        (Case("an error", crash), {"traceback"}),
        (Case("an exit", ends(1)), {"traceback"}),
        (Case("a signal", ends(130), codes=[130]), set()),
        (Case("not a word", lambda: 1, sound=False), {"silent"}),
        (Case("gone", ends(2), kept=lambda: False), {"lost"}),
        (Case("gone", ends(2), kept=crash), {"lost"}),
    ],
    ids=lambda x: x.what if isinstance(x, Case) else "",
)
def test_the_judge(case, verdicts):
    assert judge(case)[0] == verdicts


def test_what_was_mentioned_is_not_silent():
    def mention():
        print("the newest is damaged; step 2 is used", file=sys.stderr)
        return 2

    fault = {"act": mention, "truth": lambda x: x == 3, "sound": False}
    assert judge(Case("a note", **fault))[0] == set()
    assert judge(Case("a note", **fault, mended=lambda x: x == 1))[0] == {"wrong"}
