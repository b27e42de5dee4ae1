"""Dispatch: the first words choose a command, and errors end in one sentence.

Importing this module starts no JAX device and no simulator, so that options can still
decide on both.
"""

import io
import os
import signal
import sys
import traceback

import jax

from jaxdiff import __version__
from jaxdiff.cli.commands import Command, commands
from jaxdiff.cli.parsing import in_flags, values_of, without_flag
from jaxdiff.errors import UserError, reason
from jaxdiff.registry import import_modules

_HELP = ("--help", "-h")


def run(args: list[str] | None = None) -> None:
    """Run the command; a user's error is one sentence on stderr and exit code 2."""
    args = list(sys.argv[1:] if args is None else args)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # such as names in ASCII
    debug = "--debug" in args
    args = [value for value in args if value != "--debug"]
    try:
        _require_unicode(args)
        # Imported modules add algorithms, tasks and samplers: commands and flags.
        import_modules(values_of(args, "--import"))
        _dispatch(without_flag(args, "--import"))
        sys.stdout.flush()  # here, where a lost reader is met
        return
    except KeyboardInterrupt:
        message, code = "interrupted", 130
    except BrokenPipeError:
        # The reader of the output has closed it; Python must not flush it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None
    except (UserError, OSError, MemoryError, jax.errors.JaxRuntimeError) as error:
        if debug:
            traceback.print_exc()
        message, code = _sentence(error), 2
    print("jaxdiff:", *message.split(), file=sys.stderr)
    raise SystemExit(code)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename} cannot be used" if error.filename else "failed"
        return f"{where} ({reason(error)}); --debug shows where"
    if isinstance(error, MemoryError | jax.errors.JaxRuntimeError):
        advice = "if memory ran out, choose smaller sizes; --debug shows where"
        return f"the machine cannot do this ({reason(error)}); {advice}"
    return in_flags(str(error))


def _require_unicode(args: list[str]) -> None:
    for arg in args:
        if not arg.isascii() and any("\ud800" <= letter <= "\udfff" for letter in arg):
            raise UserError(
                f"{arg!a} is not written in UTF-8; rename the file or folder"
            )


def _dispatch(args: list[str]) -> None:
    known = commands()
    for words in (2, 1):
        name = " ".join(args[:words])
        if name in known and len(args) >= words:
            known[name].run(f"jaxdiff {name}", args[words:])
            return
    if args and args[0] in ("--version", "-V"):
        print(__version__)
        return
    group = {
        name: command
        for name, command in known.items()
        if args and name.startswith(f"{args[0]} ")
    }
    if args and not group and args[0] not in _HELP:
        raise UserError(
            f"there is no command {args[0]!r}; choose one of {', '.join(known)}, "
            "and add --help for its options"
        )
    if group and args[1:] and args[1] not in _HELP:
        raise UserError(
            f"there is no command {' '.join(args[:2])!r}; choose one of "
            f"{', '.join(group)}"
        )
    _print_commands(group or known)


def _print_commands(shown: dict[str, Command]) -> None:
    print("usage: jaxdiff COMMAND [OPTIONS]\n")
    width = max(map(len, shown))
    for name, command in shown.items():
        print(f"  {name:<{width}}  {command.summary}")
    print("\n`jaxdiff COMMAND --help` lists the options of a command.")
    print("--import MODULE, in any command, adds what the module registers.")
    print("--debug, in any command, shows where an error came from.")
