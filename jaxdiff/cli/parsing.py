"""Flags from options: dataclasses become flags, faults become one sentence.

Options classes are the only description of flags. Their `Attributes:` are the help
texts, and names from tables are offered as choices.
"""

import contextlib
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import docstring_parser
import tyro

from jaxdiff.errors import UserError
from jaxdiff.options import hints, names_of


class Flag(NamedTuple):
    """One flag.

    Attributes:
      name: as Python spells it; `policy.num_steps` belongs to the learner "policy".
      kind: type of its value.
      text: help.
      default: its value if it is not given; `tyro.MISSING` if it must be given.
      positional: it is given without its name.
    """

    name: str
    kind: Any
    text: str
    default: Any = tyro.MISSING
    positional: bool = False


def flags_of(options: Any, *, without: Sequence[str] = ()) -> list[Flag]:
    """Describe the fields of options as flags, with their values as defaults.

    Args:
      options: an instance of an options class, or the class, whose fields without a
        default must then be given.
      without: names to leave out.
    """
    kind = options if isinstance(options, type) else type(options)
    texts, annotations = helps(kind), hints(kind)
    found = []
    for field in dataclasses.fields(kind):
        if field.name in without:
            continue
        default = getattr(options, field.name, tyro.MISSING)
        if isinstance(options, type):
            missing = field.default is dataclasses.MISSING
            default = tyro.MISSING if missing else field.default
        text = texts.get(field.name, "")
        found.append(Flag(field.name, _kind(annotations[field.name]), text, default))
    return found


def helps(kind: type) -> dict[str, str]:
    """Read the help text of each field from the docstrings of a class and its bases."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        parsed = docstring_parser.parse(base.__doc__ or "")
        found |= {
            parameter.arg_name: " ".join((parameter.description or "").split())
            for parameter in parsed.params
        }
    return found


def _kind(hint: Any) -> Any:
    names = names_of(hint)
    if names is None:
        return hint
    return Literal[tuple(names)]  # type: ignore[valid-type]


def parse(
    prog: str, args: list[str], flags: Sequence[Flag], summary: str
) -> dict[str, Any]:
    """Read arguments as flags say; print help and exit if it is asked for.

    Args:
      prog: name of the command in messages.
      args: words to read.
      flags: what may be given.
      summary: what the command does.

    Returns:
      the value of each flag by name.

    Raises:
      UserError: arguments that do not fit.
    """
    fields = []
    for each in flags:
        spelled = each.name.replace("_", "-")
        metavar = spelled.upper() if each.positional else None
        about = tyro.conf.arg(name=spelled, help=each.text, metavar=metavar)
        kind: Any = Annotated[each.kind, about]
        if each.positional:
            kind = tyro.conf.Positional[kind]
        default = dataclasses.field(default=each.default)
        fields.append((each.name.replace(".", "__"), kind, default))
    options = dataclasses.make_dataclass("Options", fields, kw_only=True)
    found = _tyro(options, prog, args, description=summary)
    return {each.name: getattr(found, each.name.replace(".", "__")) for each in flags}


def _tyro(kind: Any, prog: str, args: list[str], **options: Any) -> Any:
    """Read arguments with tyro, and turn its picture of an error into one sentence."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(kind, prog=prog, args=args, **options)
    except SystemExit as end:
        if not end.code:
            raise
    # A title, then sections between rules: the fault, a guess at what was meant, help.
    _, _, text = re.sub("[│╭╮╰╯]", " ", box.getvalue()).partition("\n")
    sections = re.split(r"(?m)^ *[─-]{3,} *$", text)
    wrong, *rest = [section for section in sections if section.strip()]
    if "Missing from" in wrong:
        # Names are indented less than what they mean.
        names = re.findall(r"^ {6}(\S+)", wrong, re.MULTILINE)
        wrong = f"{', '.join(names)} must be given"
    wrong = " ".join(wrong.split()).rstrip(".").replace(". Expected", ", expected")
    meant = re.search(r"Perhaps you meant:\s+(--\S+)", "\n".join(rest))
    advice = f"did you mean {meant[1]}, or " if meant else ""
    first = wrong[:1] if wrong[:2].isupper() else wrong[:1].lower()
    raise UserError(f"{first}{wrong[1:]}; {advice}see `{prog} --help`") from None


def in_flags(message: str) -> str:
    """Spell the options that a message names as flags.

    `` `sampling_steps` `` becomes `--sampling-steps`, `` `lost=0` `` becomes
    `--lost 0`, and true or false become `--name` and `--no-name`.
    """

    def spelled(match: re.Match[str]) -> str:
        name, value = match[1].replace("_", "-"), match[2]
        if value is None or value == "True":
            return f"--{name}"
        if value == "False":
            head, dot, last = name.rpartition(".")
            return f"--{head}{dot}no-{last}"
        return f"--{name} {value.strip(chr(39))}"

    return re.sub(r"`([a-z_][\w.-]*)(?:=([^`\s]*))?`", spelled, message)


def value_of(args: Sequence[str], name: str) -> str | None:
    """Read the value of one flag before the others are known."""
    found = values_of(args, name)
    return found[-1] if found else None


def values_of(args: Sequence[str], name: str) -> list[str]:
    """Read all values of a flag that may be repeated."""
    found = []
    for i, arg in enumerate(args):
        if arg == name and i + 1 < len(args):
            found.append(args[i + 1])
        elif arg.startswith(f"{name}="):
            found.append(arg.partition("=")[2])
    return found


def words_of(args: Sequence[str], flags: Sequence[Flag]) -> list[str]:
    """Pick the words of some flags before the others are known."""
    found = []
    for each in flags:
        name = f"--{each.name.replace('_', '-')}"
        if each.kind is bool:
            found += [arg for arg in args if arg in (name, f"--no-{name[2:]}")]
        else:
            found += [word for value in values_of(args, name) for word in (name, value)]
    return found


def without_flag(args: Sequence[str], name: str) -> list[str]:
    """Drop a flag and its value wherever it stands.

    Raises:
      UserError: it stands at the end, without a value.
    """
    if args and args[-1] == name:
        raise UserError(f"{name} is given without a value; write one after it")
    kept, skip = [], False
    for arg in args:
        if skip:
            skip = False
        elif arg == name:
            skip = True
        elif not arg.startswith(f"{name}="):
            kept.append(arg)
    return kept


def table(record: Mapping[str, Any]) -> None:
    """Print a record, a line a value; of values that are records the number or none."""
    shown = {k: v for k, v in record.items() if not isinstance(v, Mapping)}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        if isinstance(value, list) and any(isinstance(v, Mapping) for v in value):
            value = len(value)
        elif isinstance(value, tuple | list):
            value = " to ".join(f"{v:.4g}" for v in value)
        elif isinstance(value, float):
            value = f"{value:.4g}"
        print(f"{name:<{width}}  {value}")


__all__ = [
    "Flag",
    "flags_of",
    "helps",
    "in_flags",
    "parse",
    "table",
    "value_of",
    "values_of",
    "without_flag",
    "words_of",
]
