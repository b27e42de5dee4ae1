"""What a fault came to: nothing bad, or something lost, wrong, silent or a traceback.

A case is something that a user does while something is amiss. It ends well if it is
refused in one sentence (a `UserError`, or exit code 2 with one line), or if it succeeds
and its result is the truth; what succeeds in spite of a fault must be said. And what
the user had before must still be there.
"""

import contextlib
import dataclasses
import io
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis
from hypothesis import strategies as st

from jaxdiff.errors import UserError

COLUMNS = ("tried", "lost", "wrong", "traceback", "silent")

# What says nothing of a fault: what will be trained, how far it is, and libraries.
_PLAIN = re.compile(
    r"^\S+ on \S+ \(.* steps\), preset |^[\w-]+: [\d,]+/[\d,]+ \[|.*Warning: |^  "
)


@dataclasses.dataclass
class Case:
    """One try.

    Attributes:
      what: the fault, in words.
      act: what the user does; returns a result.
      truth: whether a result is right.
      sound: True if it must succeed, False if it must be refused or mentioned, None if
        either will do, as long as the result is right or the fault is mentioned.
      mended: whether a result is right once the fault was mentioned.
      kept: whether what was there before is there still, and nothing half-written.
      codes: exit codes that are no fault beside 0 and 2: 128 and a signal's number.
      says: what the sentence must name.
    """

    what: str
    act: Callable[[], Any]
    truth: Callable[[Any], bool] = lambda result: True
    mended: Callable[[Any], bool] = lambda result: True
    sound: bool | None = None
    kept: Callable[[], bool] = lambda: True
    codes: Sequence[int] = ()
    says: Sequence[str] = ()


@dataclasses.dataclass
class Tally:
    """How many cases were tried, how many ended badly, and the stories of those."""

    tried: int = 0
    lost: int = 0
    wrong: int = 0
    traceback: int = 0
    silent: int = 0
    stories: list[str] = dataclasses.field(default_factory=list)

    def add(self, case: Case, verdicts: set[str], story: str) -> None:
        self.tried += 1
        for verdict in verdicts:
            setattr(self, verdict, getattr(self, verdict) + 1)
            self.stories.append(f"{verdict}: {case.what}\n{story}")

    def row(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in COLUMNS}


def judge(case: Case) -> tuple[set[str], str]:
    """Let a case happen; return what was bad about it, and the story."""
    verdicts: set[str] = set()
    crash, refused, result = "", None, None
    with spoken() as said:
        try:
            result = case.act()
        except UserError as error:
            refused = str(error)
        except SystemExit as end:
            if end.code in (0, None):
                pass
            elif end.code == 2:
                refused = said().strip().splitlines()[-1:] or [""]
                refused = refused[0]
                if not refused.startswith("jaxdiff: "):
                    crash = f"no sentence: {refused!r}"
            elif end.code in case.codes:
                refused = f"exit code {end.code}"
            else:
                crash = f"exit code {end.code}"
        except BaseException:
            crash = traceback.format_exc()
        text = said()
    notes = [x for x in text.splitlines() if x.strip() and not _PLAIN.match(x)]
    if "Traceback" in text:
        crash = crash or text
    if crash:
        verdicts.add("traceback")
    elif refused is not None:
        if case.sound or not all(word in refused for word in case.says):
            verdicts.add("wrong")
    elif not notes:
        # Nobody said a word, so that all must be well.
        if not holds(case.truth, result):
            verdicts.add("wrong")
        elif case.sound is False:
            verdicts.add("silent")
    elif not holds(case.truth if case.sound else case.mended, result):
        verdicts.add("wrong")
    if not holds(case.kept):
        verdicts.add("lost")
    return verdicts, f"  refused: {refused}\n  said: {text[-2000:]}\n  crash: {crash}"


def holds(check: Callable[..., bool], *arguments: Any) -> bool:
    """Whether a check passes; one that raises does not."""
    try:
        return bool(check(*arguments))
    except Exception:
        return False


@contextlib.contextmanager
def spoken(encoding: str = "utf-8"):
    """Catch what is printed; yield a function that gives the errors so far."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
    with (
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
    ):

        def said() -> str:
            # A lost pipe is replaced for good, and what came before is kept.
            streams[1].flush()
            sys.stderr.flush()
            return streams[1].buffer.getvalue().decode(encoding)

        yield said


def fuzz(draw_case: Callable[..., Case], count: int) -> Tally:
    """Judge `count` cases that `draw_case(draw)` makes, the same ones every time."""
    tally = Tally()

    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(data=st.data())
    def run(data):
        case = draw_case(data.draw)
        tally.add(case, *judge(case))

    run()
    return tally
