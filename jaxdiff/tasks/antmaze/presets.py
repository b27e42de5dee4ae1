"""Presets in AntMaze: those of offline reinforcement learning in D4RL's three mazes.

The environment names the maze. Whether the data wander between fixed or diverse starts
and goals is said by `kind` in the metadata of the dataset, or by a word of its id, as
in "D4RL/antmaze/large-play-v1".
"""

import re

from jaxdiff.data.episodes import Dataset
from jaxdiff.tasks.offline import Numbers, offline_presets

# Maze, and perhaps kind of data -> temperature of SRPO, bound of the gradient of
# Diffusion-QL's policy, and its eta. Other mazes get the numbers of Large.
_OFFLINE = {
    ("UMaze", "diverse"): (0.04, 3.0, 2.0),
    ("UMaze", ""): (0.02, 2.0, 0.5),
    ("Medium", "play"): (0.08, 2.0, 2.0),
    ("Medium", ""): (0.05, 1.0, 3.0),
    ("Large", "play"): (0.06, 10.0, 4.5),
    ("Large", ""): (0.05, 7.0, 3.5),
}


def maze_of(dataset: Dataset) -> str:
    """Return the maze of a dataset, such as "UMaze"."""
    assert dataset.evaluation is not None
    found = re.match(r"AntMaze_([A-Za-z]+?)(Dense)?[-_]", dataset.evaluation.id)
    assert found is not None
    return found[1]


def kind_of(dataset: Dataset) -> str:
    """Return the kind of the data, "play" or "diverse"; "" if unknown."""
    if "kind" in dataset.metadata:
        return str(dataset.metadata["kind"])
    words = re.split("[-/]", str(dataset.metadata.get("dataset_id", "")).lower())
    return next((kind for kind in ("play", "diverse") if kind in words), "")


def _numbers(dataset: Dataset) -> Numbers:
    maze, kind = maze_of(dataset), kind_of(dataset)
    known = maze if (maze, "") in _OFFLINE else "Large"
    row = _OFFLINE.get((known, kind), _OFFLINE[known, ""])
    temperature, max_gradient, eta = row
    medium_play = (maze, kind) == ("Medium", "play")
    return Numbers(
        sparse=True,
        srpo_temperature=temperature,
        eta=eta,
        max_gradient=max_gradient,
        backup_candidates=1 if maze == "UMaze" else 10,
        learning_rate=1e-3 if medium_play else 3e-4,
        alpha=3.0 if maze == "Large" else 10.0,
        smooth=True,
    )


PRESETS = offline_presets(_numbers)
