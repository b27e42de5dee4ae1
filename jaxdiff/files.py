"""Files that are whole or not there, and that show when a byte of them has changed."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from jaxdiff.errors import UserError


def write_whole(path: Path, fill: Callable[[BinaryIO], Any]) -> None:
    """Write a file under another name and rename it: all of it or nothing.

    What is no regular file, such as /dev/stdout, is written to as it is.

    Args:
      path: the file; one that is there is replaced.
      fill: writes into the opened file.

    Raises:
      OSError: it cannot be written; what was there before is still there.
      UserError: a link stands where the other name would be.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            fill(file)
        return
    partial = path.with_name(f".{path.name}.partial")
    refuse_link(partial)
    try:
        with partial.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, see `write_whole`."""
    write_whole(path, lambda file: file.write(text.encode()))


def refuse_link(path: Path) -> None:
    """Refuse to write where a link in a run folder leads to.

    Raises:
      UserError: the path is a symbolic link.
    """
    if path.is_symlink():
        raise UserError(
            f"{path} is a link to {os.readlink(path)}, which jaxdiff does not write "
            "to; remove the link"
        )


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_sealed(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document that ends in its own SHA-256."""
    write_text(path, _sealed(document))


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote.

    Raises:
      ValueError: it is no such document, or a byte of it has changed.
    """
    document = parse(path)
    document.pop("sha256", None)
    if _sealed(document).encode() != path.read_bytes():
        raise ValueError("its SHA-256 differs from the one it ends in")
    return document


def parse(path: Path) -> dict[str, Any]:
    """Read a JSON document, whatever its digest; ValueError if it holds no table."""
    document = json.loads(path.read_bytes())
    if not isinstance(document, dict):
        raise ValueError("it holds no table")
    return document


def require(found: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Check that a document has entries of these types; else ValueError."""
    for name, kind in kinds.items():
        if not isinstance(found.get(name, ...), kind):
            raise ValueError(f"{name!r} is missing or of the wrong type")


def _sealed(document: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(document).encode()).hexdigest()
    return json.dumps({**document, "sha256": digest}, indent=2) + "\n"
