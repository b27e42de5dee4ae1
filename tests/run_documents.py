"""A run folder that nothing was trained into."""

import numpy as np

from jaxdiff import run_folder

DOCUMENT = {
    "algorithm": "diffuser",
    "config": {"horizon": 16},
    "acting": {"candidates": 2},
    "spec": {"action_dim": 2},
    "training": {},
    "seed": 0,
    "dataset": {
        "name": "d",
        "environment": None,
        "evaluation": None,
        "fingerprint": "f",
        "references": {},
        "metadata": {},
        "stream": False,
    },
}


def made_run(path, **changes):
    run_folder.create_run(path, {**DOCUMENT, **changes}, {"mean": np.arange(6.0)})
    return path
