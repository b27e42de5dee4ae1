"""Readers of stored datasets: a folder or a file becomes a `Recording`.

A reader is chosen by what a path holds, such as the first bytes of a file. Register
another format with a reader of your own:

    from jaxdiff.data.readers import READERS, Reader
    READERS["mine"] = Reader(holds=is_mine, read=read_mine)
"""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

from jaxdiff.data.readers import hdf5, minari, npz
from jaxdiff.data.recording import Recording
from jaxdiff.errors import UserError
from jaxdiff.registry import Registry


class Reader(NamedTuple):
    """How one format is recognised and read.

    Attributes:
      holds: `(path) -> bool`, whether the path holds the format; it reads little.
      read: `(path) -> Recording`, raises a `UserError` if the data are damaged.
      suffixes: names of files that this reader takes when no reader recognises the
        contents, so that its message can name the damage.
    """

    holds: Callable[[pathlib.Path], bool]
    read: Callable[[pathlib.Path], Recording]
    suffixes: tuple[str, ...] = ()


READERS: Registry[Reader] = Registry(
    "reader",
    {
        "minari": Reader(minari.holds, minari.read),
        "hdf5": Reader(hdf5.holds, hdf5.read, (".hdf5", ".h5")),
        "npz": Reader(npz.holds, npz.read, (".npz",)),
    },
    group="jaxdiff.readers",
)
"""Name of a format -> `Reader`."""


def reader_of(path: pathlib.Path) -> Reader | None:
    """Find the reader of a path, or None if no reader takes it."""
    for reader in READERS.values():
        if reader.holds(path):
            return reader
    if path.is_file():
        for reader in READERS.values():
            if path.suffix in reader.suffixes:
                return reader
    return None


def read(path: pathlib.Path) -> Recording:
    """Read the dataset that a path holds.

    Raises:
      UserError: the path holds no dataset, or a damaged one.
    """
    reader = reader_of(path)
    if reader is None:
        raise UserError(
            f"{path} is no dataset; name a Minari dataset folder, an HDF5 file in "
            "D4RL's layout, or an NPZ file with the fields of Episodes or of D4RL"
        )
    return reader.read(path)
