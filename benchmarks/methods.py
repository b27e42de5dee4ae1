"""Runs as methods of a table: each has a name and acting options of its own."""

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro

from jaxdiff.errors import UserError
from jaxdiff.run import Run, load_run

DEMONSTRATOR = "demonstrator"  # the row of the recorded demonstrator


@dataclasses.dataclass(frozen=True)
class MethodOptions:
    """Runs to compare, and their names."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders."""
    methods: tuple[str, ...] = ()
    """Name of each run; by default that of its algorithm."""
    overrides: tuple[str, ...] = ()
    """Acting options to change in each run: "NAME=VALUE NAME=VALUE"."""


def asked(options: MethodOptions) -> Iterator[tuple[str, Run]]:
    """Load the runs one after another, each with the name of its method.

    The options are checked at once, before the first run is loaded.

    Raises:
      UserError: more or fewer methods or overrides than runs, a method called
        "demonstrator", or an override that is no option of acting.
    """
    count = len(options.runs)
    for name in ("methods", "overrides"):
        given = getattr(options, name)
        if given and len(given) != count:
            raise UserError(
                f"`{name}` has {len(given)} entries for {count} runs; give one for "
                "each, in their order"
            )
    if DEMONSTRATOR in options.methods:
        raise UserError(
            f"`methods` has {DEMONSTRATOR!r}, which is a row of its own; choose "
            "another name"
        )
    methods = options.methods or ("",) * count
    changes = [parse_overrides(text) for text in options.overrides or ("",) * count]
    runs = (
        load_run(path, overrides=overrides)
        for path, overrides in zip(options.runs, changes, strict=True)
    )
    return ((name or run.name, run) for name, run in zip(methods, runs, strict=True))


def parse_overrides(text: str) -> dict[str, Any]:
    """Read "name=value name=value"; a value that is no Python literal is a word.

    Raises:
      UserError: a part has no "=".
    """
    found: dict[str, Any] = {}
    for part in text.split():
        name, equals, value = part.partition("=")
        if not (name and equals and value):
            raise UserError(
                f"`overrides` has {part!r}; write NAME=VALUE, such as sampling_steps=10"
            )
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found
