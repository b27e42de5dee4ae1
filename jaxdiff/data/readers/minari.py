"""The reader of Minari dataset folders, of any of their storage formats."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdiff.data.readers.hdf5 import refuse_other_files
from jaxdiff.data.recording import Recording
from jaxdiff.data.spec import Environment
from jaxdiff.errors import UserError, reason
from jaxdiff.progress import note

# Entries of dictionary observations that tasks read.
_KEYS = ("observation", "achieved_goal", "desired_goal")


def holds(path: pathlib.Path) -> bool:
    """Whether a path is a Minari dataset folder."""
    return (path / "data" / "metadata.json").is_file()


def read(folder: pathlib.Path) -> Recording:
    """Read a Minari dataset folder.

    Stored environments keep their id, keyword arguments and time limit. Their entry
    points and wrappers are never followed, because these are code.

    Raises:
      UserError: the folder cannot be read, is empty, or has observations or actions
        that are not supported.
    """
    import minari

    try:
        metadata = json.loads((folder / "data" / "metadata.json").read_text())
        for file in (folder / "data").rglob("*.hdf5"):
            refuse_other_files(file)
        dataset = minari.MinariDataset(folder / "data")
        records = list(dataset.iterate_episodes())
        about = {"dataset_id": metadata["dataset_id"]}
        environment = _environment(metadata.get("env_spec"))
        evaluation = _environment(metadata.get("eval_env_spec"))
    except UserError:
        raise
    except Exception as error:
        # h5py, pyarrow and Minari itself raise a dozen types for a damaged folder.
        raise UserError(
            f"{folder} cannot be read as a Minari dataset ({reason(error)}); make or "
            "download it again"
        ) from error
    _check_spaces(dataset.observation_space, dataset.action_space, str(folder))
    if not records:
        raise UserError(f"{folder} holds no episodes; make or download it again")
    about |= {name: metadata[name] for name in ("description",) if name in metadata}
    return Recording(
        observations=[_observations(record.observations) for record in records],
        actions=[np.asarray(record.actions) for record in records],
        rewards=[np.asarray(record.rewards) for record in records],
        terminated=[bool(np.any(record.terminations)) for record in records],
        environment=environment,
        evaluation=evaluation,
        references=_references(metadata),
        metadata=about | metadata.get("jaxdiff", {}),
    )


def _environment(text: str | None) -> Environment | None:
    """Read the three parts of a stored specification that may be used."""
    if not text:
        return None
    spec = json.loads(text)
    kwargs = dict(spec.get("kwargs") or {})
    kwargs.pop("render_mode", None)  # it would open windows while scoring
    return Environment(spec["id"], kwargs, spec.get("max_episode_steps"))


def _check_spaces(observed: Any, acted: Any, where: str) -> None:
    """Refuse what no algorithm can be trained on; name entries that are left out."""
    from gymnasium import spaces

    if isinstance(observed, spaces.Dict):
        if "observation" not in observed.spaces:
            raise UserError(
                f"{where}: observations are a dict without the key 'observation'; its "
                f"keys are {', '.join(observed.spaces)}"
            )
        others = [name for name in observed.spaces if name not in _KEYS]
        if others:
            note(
                f"{where}: {', '.join(others)} of the observations are left out; only "
                f"{', '.join(_KEYS)} are read"
            )
        observed = observed["observation"]
    if not isinstance(observed, spaces.Box):
        raise UserError(
            f"{where}: observations of {type(observed).__name__} are not supported; "
            "they must be a Box, or a dict whose 'observation' is a Box"
        )
    if not isinstance(acted, spaces.Box) or len(acted.shape) != 1:
        raise UserError(
            f"{where}: actions of {acted} are not supported; they must be a vector of "
            "real numbers"
        )


def _observations(stored: Any) -> Any:
    if not isinstance(stored, Mapping):
        return np.asarray(stored)
    return {name: stored[name] for name in _KEYS if name in stored}


def _references(metadata: Mapping[str, Any]) -> dict[str, float]:
    names = {"random": "ref_min_score", "expert": "ref_max_score"}
    if any(metadata.get(name) is None for name in names.values()):
        return {}
    return {policy: float(metadata[name]) for policy, name in names.items()}
