"""Any folder of jaxdiff/tasks can be deleted, and the rest goes on."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import jaxdiff

PACKAGE = pathlib.Path(jaxdiff.__file__).parent
OWN = pathlib.Path(__file__).parent / "extensions"
FOLDERS = sorted(path.parent.name for path in (PACKAGE / "tasks").glob("*/__init__.py"))

# What is asked of the package without the task; flags of the task are gone.
HELP = """
import contextlib, io, sys
import jaxdiff
from jaxdiff.cli import main
from jaxdiff.tasks.lookup import TASKS, recipes
gone = sys.argv[1]
assert jaxdiff.__file__.startswith(sys.argv[2]), jaxdiff.__file__
assert gone not in TASKS and len(TASKS) == int(sys.argv[3]), list(TASKS)
assert all(recipe.make for recipe in recipes().values())
shown = io.StringIO()
with contextlib.redirect_stdout(shown):
    main(["--help"])
    main(["evaluate", "--help"])
    main(["list"])
assert f"task {gone}" not in shown.getvalue()
assert f"presets of {gone}" not in shown.getvalue()
"""

# Another task is trained and scored; the dataset is one of the user's own.
WORK = """
import sys
import numpy as np
import own_environment
from jaxdiff.cli import main
episodes = own_environment.record(4)
ends = np.arange(400) % 100 == 99
np.savez(
    "own.npz",
    observations=np.concatenate([rows[:-1] for rows, _, _ in episodes]),
    next_observations=np.concatenate([rows[1:] for rows, _, _ in episodes]),
    actions=np.concatenate([actions for _, actions, _ in episodes]),
    rewards=np.concatenate([rewards for _, _, rewards in episodes]),
    terminals=np.zeros(400, bool),
    timeouts=ends,
)
environment = ("--environment", "own_environment:Reach-v0", "--devices", "1")
main(["train", "bc", "--dataset", "own.npz", "--run", "run", *environment,
      "--num-steps", "2", "--batch-size", "8"])
main(["evaluate", "run", "--episodes", "2", *environment])
"""


def without(folder, place):
    """Copy the package without one task; return what a process needs to find it."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, place / "jaxdiff", ignore=ignored)
    shutil.rmtree(place / "jaxdiff" / "tasks" / folder)
    path = os.pathsep.join([str(place), str(OWN)])
    return {**os.environ, "PYTHONPATH": path, "MINARI_DATASETS_PATH": str(place)}


def run(code, place, environment, *args):
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        cwd=place, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_task_can_be_deleted(folder, tmp_path):
    # The demo, which is of one task, imports it when it is asked for.
    environment = without(folder, tmp_path)
    run(HELP, tmp_path, environment, folder, str(tmp_path), str(len(FOLDERS) - 1))
    if folder == "pointmaze":
        assert "mean_return" in run(WORK, tmp_path, environment)
        assert (tmp_path / "run" / "evaluations" / "000.json").is_file()
