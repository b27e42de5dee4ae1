"""How makers store their datasets, and how one takes another's place."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jaxdiff.errors import writing


def datasets_root(root: str | os.PathLike | None = None) -> pathlib.Path:
    """Give the folder that holds datasets: `root`, or the one that Minari uses."""
    default = pathlib.Path.home() / ".minari" / "datasets"
    chosen = root or os.environ.get("MINARI_DATASETS_PATH") or default
    return pathlib.Path(chosen).absolute()  # Minari mistakes the size of relative ones


@contextlib.contextmanager
def replacing(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give an empty hidden sibling of `folder` that takes its place on success.

    Minari ignores hidden folders, so a killed run leaves nothing that looks like a
    dataset; the leftover is removed by the next run.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    old = folder.with_name(f".{folder.name}.old")
    try:
        with writing(folder, "choose another folder with MINARI_DATASETS_PATH"):
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

    Args:
      folder: an empty folder, such as `replacing` gives.
      episodes: of each the observations `[T + 1, ...]` (or a dict of them), actions,
        rewards, terminations and truncations `[T, ...]`; each is taken when those
        before it have been written.
      observation_space: of Gymnasium.
      action_space: of Gymnasium.
      env_spec: of the environment they were recorded in.
      metadata: `dataset_id`, and what else Minari or a reader may ask for; read when
        all episodes have been written.
    """
    import minari
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    storage = MinariStorage.new(
        folder / "data",
        observation_space=observation_space,
        action_space=action_space,
        env_spec=env_spec,
        jpeg_encoding=False,  # it would change pictures
    )
    buffer: Any = EpisodeBuffer  # annotated for lists; arrays are as good
    storage.update_episodes(buffer(**episode) for episode in episodes)
    storage.update_metadata({"minari_version": minari.__version__, **metadata})
