"""The reader of NPZ files with the fields of `Episodes` or with those of D4RL.

Beside the fields of `Episodes`, a JSON text "jaxdiff" may say how the data came.
"""

import json
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdiff.data.episodes import FIELDS, Episodes, as_float32, check_episodes
from jaxdiff.data.readers import d4rl
from jaxdiff.data.recording import Recording
from jaxdiff.errors import UserError, reason

_NEEDED = tuple(name for name in FIELDS if name != "goals")


def holds(path: pathlib.Path) -> bool:
    """Whether a path is a ZIP archive of NumPy arrays."""
    if not (path.is_file() and zipfile.is_zipfile(path)):
        return False
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def read(path: pathlib.Path, timeouts: d4rl.Timeouts | None = None) -> Recording:
    """Read an NPZ file.

    Only the arrays that are needed are loaded. Pickled objects are refused, not run.

    Args:
      path: the file.
      timeouts: see `jaxdiff.data.readers.d4rl.recording_of`.

    Raises:
      UserError: the file cannot be read, or its fields do not fit, or it states its
        episodes although `timeouts` is given.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            names = d4rl.FIELDS if "terminals" in file else FIELDS
            fields = {name: file[name] for name in names if name in file}
            about = json.loads(str(file["jaxdiff"])) if "jaxdiff" in file else {}
            if not isinstance(about, dict):
                raise ValueError("'jaxdiff' is no table in JSON")
            d4rl.mention_unread(path, set(file.files) - {"jaxdiff"}, names)
    except Exception as error:
        # NumPy passes on what zip files and pickles raise.
        raise UserError(
            f"{path} cannot be read as NPZ ({reason(error)}); it may be truncated or "
            "hold Python objects: write it again"
        ) from error
    if names is d4rl.FIELDS:
        return d4rl.recording_of(fields, str(path), timeouts)
    if timeouts is not None:
        raise UserError(d4rl.states_its_episodes(path))
    return _recording_of(fields, about, str(path))


def _recording_of(
    fields: Mapping[str, np.ndarray], about: Mapping[str, Any], where: str
) -> Recording:
    """Cut the fields of `Episodes` into episodes, after checking them."""
    for name in _NEEDED:
        if name not in fields:
            raise UserError(
                f"{where} has no field {name!r}; it needs {', '.join(_NEEDED)}, or, in "
                f"D4RL's layout, {', '.join(d4rl.NEEDED)}"
            )
    arrays = {
        name: as_float32(x) if np.issubdtype(x.dtype, np.floating) else x
        for name, x in fields.items()
    }
    observations = arrays["observations"]
    if observations.ndim > 2 and observations.size:
        arrays["observations"] = observations.reshape(len(observations), -1)
    check_episodes(Episodes(**arrays), where)
    spans = list(zip(arrays["starts"], arrays["lengths"], strict=True))
    return Recording(
        observations=[observations[start : start + n + 1] for start, n in spans],
        actions=[arrays["actions"][start : start + n] for start, n in spans],
        rewards=[arrays["rewards"][start : start + n] for start, n in spans],
        terminated=arrays["terminated"].tolist(),
        goals=[arrays["goals"][start : start + n + 1] for start, n in spans]
        if "goals" in arrays
        else (),
        metadata=about,
    )
