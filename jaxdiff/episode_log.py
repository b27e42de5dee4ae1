"""Finished episodes of an evaluation, on disk as they end.

An evaluation may take hours. Each of its episodes is one file that is whole or is not
there, so an evaluation that was killed can go on where it stopped.
"""

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.errors import writing
from jaxdiff.files import write_whole


class EpisodeLog:
    """Keeps episodes in a folder, one NPZ file for each seed.

    Args:
      folder: where they lie. It is made with the first episode.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> dict[int, dict[str, Any]]:
        """Return the values of all episodes by seed, without files that are damaged."""
        found = {}
        for path in self.folder.glob("*.npz"):
            try:
                with np.load(path, allow_pickle=False) as file:
                    found[int(path.stem)] = {name: file[name] for name in file.files}
            except (OSError, ValueError, EOFError, zipfile.BadZipFile):
                continue  # it is played again
        return found

    def write(self, seed: int, values: Mapping[str, Any]) -> None:
        """Keep an episode.

        Args:
          seed: of its reset.
          values: arrays and numbers; None is not stored.

        Raises:
          UserError: the folder cannot be written.
        """
        path = self.folder / f"{seed}.npz"
        known = {k: v for k, v in values.items() if v is not None}
        with writing(path, "check the permissions of the folder or free some space"):
            write_whole(path, lambda file: np.savez(file, **known))

    def remove(self) -> None:
        """Forget all episodes."""
        shutil.rmtree(self.folder, ignore_errors=True)
