"""The reader of HDF5 files in D4RL's layout, see `jaxdiff.data.readers.d4rl`."""

import pathlib
from typing import Any

import numpy as np

from jaxdiff.data.readers import d4rl
from jaxdiff.data.recording import Recording
from jaxdiff.errors import UserError, reason

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def holds(path: pathlib.Path) -> bool:
    """Whether a path is a file that begins as HDF5 files do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_SIGNATURE)) == _SIGNATURE


def read(path: pathlib.Path, timeouts: d4rl.Timeouts | None = None) -> Recording:
    """Read an HDF5 file.

    Args:
      path: the file.
      timeouts: see `jaxdiff.data.readers.d4rl.recording_of`.

    Raises:
      UserError: the file cannot be read, refers to other files, or its fields do not
        fit.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            refuse_other_files(file, path)
            fields = {
                name: np.asarray(file[name]) for name in d4rl.FIELDS if name in file
            }
    except (OSError, KeyError, RuntimeError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read as HDF5 ({reason(error)}); it may be truncated: "
            "fetch it again"
        ) from error
    return d4rl.recording_of(fields, str(path), timeouts)


def refuse_other_files(file: Any, path: pathlib.Path) -> None:
    """Refuse an HDF5 file whose contents lie in other files.

    Args:
      file: an open `h5py.File`.
      path: its name in messages.

    Raises:
      UserError: it has an external link, external storage or a virtual source. Such a
        file reads whatever else lies on the machine.
    """
    import h5py

    def visit(group: Any) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                refuse(f"{group.name}/{name}")
            if not isinstance(link, h5py.HardLink):
                continue
            value = group[name]
            if isinstance(value, h5py.Group):
                visit(value)
            elif isinstance(value, h5py.Dataset) and (
                value.external or value.is_virtual
            ):
                refuse(str(value.name))

    def refuse(name: str) -> None:
        raise UserError(
            f"{path}: {name.replace('//', '/')} lies in another file, which is not "
            "read; write a file that holds its own data"
        )

    visit(file)
