from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

# Minutes each: they train networks whose pictures are worth a look.
LONG = (
    *("01_diffusion_and_a_maze", "02_planning_for_reward"),
    *("03_imitation_at_the_claw", "05_decision_diffuser"),
)
NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in LONG))
        for path in NOTEBOOKS
    ],
)
def test_notebook_runs_and_is_stored_without_outputs(path, tmp_path, monkeypatch):
    # A notebook trains, and is a reader's: one device, and programs that are fast.
    monkeypatch.delenv("XLA_FLAGS")
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        assert not cell.get("outputs")
    # Raises with the failing cell's traceback.
    NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()


def test_there_is_a_notebook():
    assert NOTEBOOKS
