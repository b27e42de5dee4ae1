"""Where a dataset lies: Minari ids and paths become files or folders."""

import os
import pathlib
import re

from jaxdiff.data.readers import READERS, reader_of
from jaxdiff.data.storage import datasets_root
from jaxdiff.errors import UserError, reason

# Name with a version, perhaps in namespaces: "D4RL/door/human-v2".
_MINARI_ID = re.compile(r"([-\w]+/)*[-\w]+-v\d+")


def locate(
    name: str, root: str | os.PathLike | None = None, download: bool = False
) -> pathlib.Path:
    """Find the file or folder of a path or of a Minari id.

    Args:
      name: what to look for.
      root: folder of local datasets; `MINARI_DATASETS_PATH`, or else Minari's own.
      download: fetch a Minari id that is not stored locally.

    Raises:
      UserError: there is no such dataset; the message says what to do.
    """
    path, stored = pathlib.Path(name).expanduser(), dataset_folder(name, root)
    for place in (path, stored):
        if reader_of(place) is not None:
            return place
    if path.exists():
        return path  # `readers.read` says what it should hold
    suffixes = {end for reader in READERS.values() for end in reader.suffixes}
    if path.suffix in suffixes or path.is_absolute():
        raise UserError(f"there is no file or folder {path}; check the path")
    if _MINARI_ID.fullmatch(name) is None:
        raise UserError(
            f"there is no dataset {name!r} in {datasets_root(root)}; name a recipe "
            "(see `jaxdiff list`), a Minari id or a path"
        )
    if not download:
        raise UserError(
            f"there is no dataset {name!r} in {datasets_root(root)}; fetch it with "
            "`download=True`"
        )
    return _download(name, root)


def dataset_folder(
    dataset_id: str, root: str | os.PathLike | None = None
) -> pathlib.Path:
    """Return the folder that a Minari id is stored in, whether it is there or not."""
    return datasets_root(root) / dataset_id


def local_datasets(root: str | os.PathLike | None = None) -> list[str]:
    """List the Minari ids stored in the folder of datasets."""
    root = datasets_root(root)
    folders = [file.parent.parent for file in root.glob("**/data/metadata.json")]
    names = [folder.relative_to(root) for folder in folders]
    # A hidden folder is a dataset that is not complete.
    return sorted(
        name.as_posix()
        for name in names
        if not any(part.startswith(".") for part in name.parts)
    )


def _download(name: str, root: str | os.PathLike | None) -> pathlib.Path:
    """Fetch a dataset from Minari's server into the folder of datasets."""
    import minari

    previous = os.environ.get("MINARI_DATASETS_PATH")
    # Minari reads its folder from the environment and nowhere else.
    os.environ["MINARI_DATASETS_PATH"] = str(datasets_root(root))
    try:
        minari.download_dataset(name)
    except Exception as error:
        # Minari lets the errors of several HTTP clients through; to a user they all
        # mean that the dataset did not come.
        raise UserError(
            f"could not download {name!r} ({reason(error)}); check the name and the "
            "network"
        ) from error
    finally:
        if previous is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = previous
    return dataset_folder(name, root)
