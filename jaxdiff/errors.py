"""The error that tells a user what to change, in one sentence."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


class UserError(Exception):
    """Something a user asked for cannot be done.

    The message is one sentence that starts in lower case and ends without a period:
    what is wrong and where; what to do about it. The command line prints it on standard
    error and exits with code 2; from Python it is an ordinary exception.
    """


def reason(error: BaseException) -> str:
    """Give the first line of an error's message, or its type if it has none."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().split("\n")[0] or type(error).__name__


def require_at_least(least: int, **counts: int) -> None:
    """Check that counts are not too small, and below 2^31, which arrays can count.

    Args:
      least: smallest value.
      **counts: values by the name of their parameter.

    Raises:
      UserError: the first one that is outside, by its name.
    """
    for name, count in counts.items():
        if count < least:
            raise UserError(f"`{name}` is {count}; it must be at least {least}")
        if count >= 2**31:
            raise UserError(f"`{name}` is {count}; it must be below 2^31")


@contextlib.contextmanager
def writing(path: str | os.PathLike, advice: str) -> Iterator[None]:
    """Make the folder of `path`, and explain errors of the file system in a sentence.

    Args:
      path: the file or folder being written.
      advice: what the user can do, the second half of the sentence.

    Raises:
      UserError: no permission, no space, or no such place.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(
            f"{os.fspath(path)} cannot be written ({reason(error)}); {advice}"
        ) from error
