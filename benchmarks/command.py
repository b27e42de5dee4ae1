"""Benchmarks as commands: options from flags, and the words of the command itself."""

import dataclasses
import re
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

from jaxdiff.cli.parsing import in_flags
from jaxdiff.devices import request_cpu_devices
from jaxdiff.errors import UserError


def run_command(
    main: Callable[[Any], None], options: type, *, cpu_devices: int | None = None
) -> None:
    """Read the options from the command line, run, and exit with 2 on a `UserError`.

    Args:
      main: takes an instance of `options`.
      options: a dataclass.
      cpu_devices: virtual devices to split a CPU into, before JAX is asked for any.
    """
    if cpu_devices is not None:
        request_cpu_devices(cpu_devices)
    try:
        main(tyro.cli(options))
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
