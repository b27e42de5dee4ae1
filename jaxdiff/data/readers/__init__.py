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
from jaxdiff.data.readers.d4rl import Timeouts, states_its_episodes
from jaxdiff.data.recording import Recording
from jaxdiff.errors import UserError
from jaxdiff.registry import Registry


class Reader(NamedTuple):
    """How one format is recognised and read.

    Attributes:
      holds: `(path) -> bool`, whether the path holds the format; it reads little.
      read: `(path) -> Recording`, raises a `UserError` if the data are damaged; with
        `cuts`, `(path, timeouts) -> Recording`.
      suffixes: names of files that this reader takes when no reader recognises the
        contents, so that its message can name the damage.
      cuts: whether the format may leave open where episodes end, so that `read` is told
        what a timeout means, see `jaxdiff.data.readers.d4rl.Timeouts`.
    """

    holds: Callable[[pathlib.Path], bool]
    read: Callable[..., Recording]
    suffixes: tuple[str, ...] = ()
    cuts: bool = False


READERS: Registry[Reader] = Registry(
    "reader",
    {
        "minari": Reader(minari.holds, minari.read),
        "hdf5": Reader(hdf5.holds, hdf5.read, (".hdf5", ".h5"), cuts=True),
        "npz": Reader(npz.holds, npz.read, (".npz",), cuts=True),
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


def read(path: pathlib.Path, timeouts: Timeouts | None = None) -> Recording:
    """Read the dataset that a path holds.

    Args:
      path: a file or a folder.
      timeouts: what a timeout means; by default what the data look like.

    Raises:
      UserError: the path holds no dataset, or a damaged one, or one that states its
        episodes although `timeouts` is given.
    """
    reader = reader_of(path)
    if reader is None:
        raise UserError(
            f"{path} is no dataset; name a Minari dataset folder, an HDF5 file in "
            "D4RL's layout, or an NPZ file with the fields of Episodes or of D4RL"
        )
    if reader.cuts:
        return reader.read(path, timeouts)
    if timeouts is not None:
        raise UserError(states_its_episodes(path))
    return reader.read(path)
