"""Options: frozen dataclasses of plain values, checked when made, stored as JSON."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from jaxdiff.errors import UserError


def check_options(options: Any, **at_least: float) -> None:
    """Check that every option has the type it was declared with, and its lower bound.

    Meant for `__post_init__`, so that options are sound whether they come from the
    command line, a file or a program.

    Args:
      options: a dataclass.
      **at_least: smallest value by name; an option that is None, or a tuple none of
        whose entries is smaller, passes.

    Raises:
      UserError: an option of the wrong type, not finite or too small, by its name.
    """
    for name, hint in typing.get_type_hints(type(options)).items():
        value, flag = getattr(options, name), f"--{name.replace('_', '-')}"
        if not _fits(value, hint):
            raise UserError(f"{flag} is {value!r}; it must be {_words(hint)}")
        low = at_least.get(name)
        entries = value if isinstance(value, tuple) else (value,)
        if low is not None and any(x is not None and x < low for x in entries):
            raise UserError(f"{flag} is {value!r}; it must be at least {low}")


def to_plain(options: Any) -> dict[str, Any]:
    """A dataclass as JSON would give it back: lists for tuples."""
    return json.loads(json.dumps(dataclasses.asdict(options)))


def from_plain(kind: type, values: Mapping[str, Any]) -> Any:
    """Build options from JSON values.

    Raises:
      TypeError: names that `kind` does not have.
      UserError: values that it does not take.
    """
    return kind(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    )


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value may be stored under an annotation."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple:
        # Every tuple among the options is `tuple[kind, ...]`.
        kind = arguments[0]
        return isinstance(value, tuple) and all(_fits(x, kind) for x in value)
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    """An annotation in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(argument) for argument in arguments)
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        return f"a list, each {_words(arguments[0])}"
    words = {
        int: "a whole number",
        float: "a finite number",
        bool: "true or false",
        str: "a word",
        types.NoneType: "none",
    }
    return words.get(hint, str(hint))
