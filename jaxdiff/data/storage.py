"""How recipes store datasets, and how a new dataset replaces an old one."""

import contextlib
import io
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jaxdiff.errors import UserError, writing

_NO_ROOM = "free some space or choose another folder with MINARI_DATASETS_PATH"


def datasets_root(root: str | os.PathLike | None = None) -> pathlib.Path:
    """Return the folder of datasets: `root`, or else the one that Minari uses.

    Raises:
      UserError: `root` is empty.
    """
    if root is not None and not os.fspath(root):
        raise UserError("`root` is empty; name a folder, or leave it out")
    default = pathlib.Path.home() / ".minari" / "datasets"
    chosen = root or os.environ.get("MINARI_DATASETS_PATH") or default
    return pathlib.Path(chosen).absolute()  # Minari mistakes the size of relative ones


@contextlib.contextmanager
def replacing(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield an empty hidden sibling of `folder` that replaces it on success.

    Minari ignores hidden folders, so that a killed run leaves nothing that looks like a
    dataset. The next run removes what is left.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    old = folder.with_name(f".{folder.name}.old")
    try:
        with writing(folder, _NO_ROOM):
            if old.exists() and not folder.exists():
                # A run was killed between the two renames below.
                old.rename(folder)
            for leftover in (partial, old):
                shutil.rmtree(leftover, ignore_errors=True)
            partial.mkdir()
            yield partial
            if folder.exists():
                folder.rename(old)
            partial.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_minari(
    folder: pathlib.Path,
    episodes: Iterable[Mapping[str, Any]],
    *,
    observation_space: Any,
    action_space: Any,
    env_spec: Any,
    metadata: Mapping[str, Any],
) -> None:
    """Write episodes as the Minari dataset `folder`.

    The HDF5 file is made in memory, which takes no more of it than reading the dataset
    does, because the HDF5 library crashes the process if a write to the disk fails.

    Args:
      folder: an empty folder, such as `replacing` yields.
      episodes: for each the observations `[T + 1, ...]` (or a dict of them), actions,
        rewards, terminations and truncations `[T, ...]`. They are written one by one,
        so that a generator saves memory.
      observation_space: Gymnasium space of an observation.
      action_space: Gymnasium space of an action.
      env_spec: Gymnasium specification of the environment that was recorded.
      metadata: `dataset_id`, and further entries for Minari or for readers; read after
        all episodes are written, so that these may add to it.
    """
    import minari
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    storage: Any = MinariStorage.new(
        folder / "data",
        observation_space=observation_space,
        action_space=action_space,
        env_spec=env_spec,
        jpeg_encoding=False,  # it would change pictures
    )
    buffer: Any = EpisodeBuffer  # its annotation asks for lists; arrays work too
    path, storage._file_path = storage._file_path, io.BytesIO()
    storage.update_episodes(buffer(**episode) for episode in episodes)
    path.write_bytes(storage._file_path.getbuffer())
    size = storage.get_size()
    storage.update_metadata(
        {"minari_version": minari.__version__, "dataset_size": size, **metadata}
    )
