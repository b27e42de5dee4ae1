"""The reader of HDF5 files in D4RL's layout, see `jaxdiff.data.readers.d4rl`."""

import pathlib

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


def read(path: pathlib.Path) -> Recording:
    """Read an HDF5 file.

    Raises:
      UserError: the file cannot be read, or its fields do not fit.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            fields = {
                name: np.asarray(file[name]) for name in d4rl.FIELDS if name in file
            }
    except (OSError, KeyError, RuntimeError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read as HDF5 ({reason(error)}); it may be truncated: "
            "fetch it again"
        ) from error
    return d4rl.recording_of(fields, str(path))
