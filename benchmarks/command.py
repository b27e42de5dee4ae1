"""Benchmarks as commands: options from flags, and the words of the command itself."""

import contextlib
import dataclasses
import re
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tyro

from benchmarks.rows import require_place
from jaxdiff.cli.parsing import in_flags
from jaxdiff.devices import request_cpu_devices
from jaxdiff.errors import UserError


def run_command(
    main: Callable[[Any], None], options: type, *, cpu_devices: int | None = None
) -> None:
    """Read the options from the command line and run, see `as_command`.

    Args:
      main: takes an instance of `options`.
      options: a dataclass.
      cpu_devices: virtual devices to split a CPU into, before JAX is asked for any.
    """
    if cpu_devices is not None:
        request_cpu_devices(cpu_devices)
    with as_command():
        main(tyro.cli(options))


@contextlib.contextmanager
def as_command() -> Iterator[None]:
    """End in one sentence and exit code 2 on a `UserError`.

    A folder of results that cannot be written is met before anything is measured.
    """
    try:
        require_place()
        yield
    except UserError as error:
        print(in_flags(str(error)), file=sys.stderr)
        sys.exit(2)


def command_of(name: str, options: Any, *, without: Sequence[str] = ()) -> str:
    """Write the command that measures the same again, as rows record it.

    A run folder is written as RUN, or as BC_RUN if its option is called `bc`, because
    another machine keeps it somewhere else. An option that is None or False is left
    out.

    Args:
      name: of the benchmark.
      options: a dataclass.
      without: options to leave out.
    """
    hints = typing.get_type_hints(type(options), include_extras=True)
    words = [f"python -m benchmarks.{name}"]
    for field in dataclasses.fields(options):
        value, flag = getattr(options, field.name), field.name
        if field.name in without or value is None or value is False or value == ():
            continue
        positional = tyro.conf.Positional in getattr(
            hints[field.name], "__metadata__", ()
        )
        words += [] if positional else [f"--{flag.replace('_', '-')}"]
        if value is not True:
            each = value if isinstance(value, tuple) else (value,)
            words += [_word(flag, x) for x in each]
    return " ".join(words)


def _word(flag: str, value: Any) -> str:
    if isinstance(value, Path):
        return "RUN" if flag in ("run", "runs") else f"{flag.upper()}_RUN"
    if isinstance(value, float):
        return f"{value:g}"
    plain = re.fullmatch(r"[\w./-]+", str(value))
    return str(value) if plain else f'"{value}"'
