"""Where a dataset lies: recipes, Minari ids and paths become files or folders."""

import os
import pathlib
import re

from jaxdiff.data.storage import datasets_root
from jaxdiff.errors import UserError, reason
from jaxdiff.tasks.recipes import RECIPES

# Name with a version, perhaps in namespaces: "D4RL/pointmaze/umaze-v2".
_MINARI_ID = re.compile(r"([-\w]+/)*[-\w]+-v\d+")


def locate_dataset(
    name: str, *, root: str | os.PathLike | None = None, download: bool = False
) -> pathlib.Path:
    """Find the file or folder of a recipe, a Minari id or a path.

    Args:
      name: what to look for.
      root: folder of local datasets; `MINARI_DATASETS_PATH`, or else Minari's own.
      download: fetch a Minari id that is not stored locally.

    Raises:
      UserError: there is no such dataset; the message says what to do.
    """
    if name in RECIPES:
        made = datasets_root(root) / RECIPES[name].dataset_id
        if (made / "data").is_dir():
            return made
        raise UserError(
            f"the dataset {name!r} has not been made yet; run "
            f"`jaxdiff data make {name}`"
        )
    path = pathlib.Path(name).expanduser()
    if path.is_dir() and (path / "data" / "metadata.json").is_file():
        return path
    if path.is_file() and path.suffix in (".hdf5", ".h5", ".npz"):
        return path
    stored = datasets_root(root) / name
    if (stored / "data" / "metadata.json").is_file():
        return stored
    if path.exists():
        raise UserError(
            f"{path} is no dataset; a path must be a Minari dataset folder, an HDF5 "
            "file in D4RL's layout or an NPZ file with the fields of Episodes"
        )
    if path.suffix in (".hdf5", ".h5", ".npz") or path.is_absolute():
        raise UserError(f"there is no file or folder {path}; check the path")
    remote = _MINARI_ID.fullmatch(name)
    if remote and download:
        return _download(name, root)
    advice = "allow the download" if remote else "name a recipe, a Minari id or a path"
    raise UserError(
        f"there is no dataset {name!r} in {datasets_root(root)}, and the recipes are "
        f"{', '.join(RECIPES)}; {advice}"
    )


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
    return datasets_root(root) / name
