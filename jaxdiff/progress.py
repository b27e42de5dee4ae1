"""One progress display for every long command: a bar, or plain lines in a log."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TextIO

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 10.0


class Update(Protocol):
    """Callable that advances a display by `n` units and shows the newest metrics."""

    def __call__(self, n: int = 1, **metrics: float) -> None:
        """Advance by `n`; metrics replace those shown before."""
        ...


@contextlib.contextmanager
def progress(
    total: int,
    label: str,
    *,
    unit: str = "step",
    initial: int = 0,
    file: TextIO | None = None,
) -> Iterator[Update]:
    """Show how far a loop of `total` units is, its rate and the time left.

    A terminal gets a bar; anything else (a pipe, a log file) gets a plain line about
    every ten seconds and one at the end, so that logs stay readable.

    Args:
      total: number of units until the loop is done.
      label: what is being done, shown first.
      unit: singular name of one unit.
      initial: units done before, by the run that this one resumes.
      file: where to write; standard error by default.

    Yields:
      `update(n, **metrics)`, to be called after every `n` units.
    """
    out = sys.stderr if file is None else file
    interactive = out.isatty()
    start = last_line = time.monotonic()
    # tqdm keeps the count and formats rate and time left; only the drawing differs.
    bar = tqdm(
        total=total,
        initial=initial,
        desc=label,
        unit=f" {unit}",
        file=out,
        disable=not interactive,
        dynamic_ncols=True,
    )
    done, shown = initial, ""

    def line() -> str:
        text = tqdm.format_meter(
            n=done,
            total=total,
            initial=initial,
            elapsed=time.monotonic() - start,
            prefix=label,
            unit=f" {unit}",
            postfix=shown,
            bar_format="{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, "
            "{rate_fmt}{postfix}]",
        )
        return text + "\n"

    def write(text: str) -> None:
        with _unless_lost():
            out.write(text)
            out.flush()

    def update(n: int = 1, **metrics: float) -> None:
        nonlocal done, shown, last_line
        done += n
        if metrics:
            shown = ", ".join(f"{name}={value:.4g}" for name, value in metrics.items())
            bar.set_postfix_str(shown, refresh=False)
        with contextlib.suppress(OSError):
            bar.update(n)
        now = time.monotonic()
        if not interactive and now - last_line >= _SECONDS_BETWEEN_LINES:
            last_line = now
            write(line())

    try:
        yield update
    finally:
        with contextlib.suppress(OSError):
            bar.close()
        if not interactive:
            write(line())


def note(message: str) -> None:
    """Say one thing on standard error without breaking a progress bar."""
    with _unless_lost():
        tqdm.write(message, file=sys.stderr)


@contextlib.contextmanager
def waiting(what: str | Callable[[], str | None], *, after: float = 2.0) -> Iterator:
    """Say what is waited for in the block, if that takes more than `after` seconds.

    Args:
      what: a line, or a function that gives it, or None as long as there is nothing to
        say.
      after: seconds that need no word.
    """
    over, started = threading.Event(), time.monotonic()
    line = what if callable(what) else lambda: f"{what} ..."

    def watch() -> None:
        while not over.wait(after / 4):
            said = line() if time.monotonic() - started > after else None
            if said is not None:
                note(said)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


@contextlib.contextmanager
def _unless_lost() -> Iterator[None]:
    """Write nothing more once the terminal or the pipe is gone: the work goes on."""
    try:
        yield
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (for the rest of the process)
