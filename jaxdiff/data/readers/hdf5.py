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
        refuse_other_files(path)
        with h5py.File(path, "r") as file:
            fields = {
                name: np.asarray(file[name]) for name in d4rl.FIELDS if name in file
            }
            kinds = [(str(name), file.get(name, getclass=True)) for name in file]
            arrays = [name for name, kind in kinds if kind is h5py.Dataset]
            d4rl.mention_unread(path, arrays, d4rl.FIELDS)
    except (OSError, KeyError, RuntimeError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read as HDF5 ({reason(error)}); it may be truncated: "
            "fetch it again"
        ) from error
    return d4rl.recording_of(fields, str(path), timeouts)


def refuse_other_files(path: pathlib.Path) -> None:
    """Refuse an HDF5 file whose contents lie in other files.

    Raises:
      UserError: it has an external link, external storage or a virtual source. Such a
        file reads whatever else lies on the machine.
    """
    import h5py

    def elsewhere(_: str, value: Any) -> str | None:
        """Return the name of what lies in another file, if any."""
        if isinstance(value, h5py.Dataset):
            return value.name if value.external or value.is_virtual else None
        for name in value:
            if isinstance(value.get(name, getlink=True), h5py.ExternalLink):
                return f"{value.name}/{name}".replace("//", "/")
        return None

    with h5py.File(path, "r") as file:
        # Each object is visited once, whatever links there are among them.
        found = elsewhere("/", file) or file.visititems(elsewhere)
    if found:
        raise UserError(
            f"{path}: {found} lies in another file, which is not read; write a file "
            "that holds its own data"
        )
