import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize(
    "notebook",
    [pytest.param(nbformat.read(path, 4), id=path.stem) for path in NOTEBOOKS],
)


# A minute or more each: they train networks whose pictures are worth a look.
@pytest.mark.slow
@each
def test_notebook_runs(notebook, tmp_path, monkeypatch):
    # A notebook trains, and is a reader's: one device, and programs that are fast.
    monkeypatch.delenv("XLA_FLAGS")
    # Raises with the failing cell's traceback.
    NotebookClient(
        notebook, timeout=3600, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()


@each
def test_notebook_is_stored_without_outputs_and_imports_what_exists(notebook):
    for cell in notebook.cells:
        assert not cell.get("outputs")
    code = "\n".join(
        line
        for cell in notebook.cells
        if cell.cell_type == "code"
        for line in _imports(cell.source)
    )
    assert "jaxdiff" in code
    exec(code, {})


def _imports(source):
    """Statements of a cell that import something, as written."""
    tree = ast.parse(
        "\n".join(f"#{x}" if x[:1] in "%!" else x for x in source.split("\n"))
    )
    return [
        ast.unparse(node)
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]


def test_there_is_a_notebook():
    assert NOTEBOOKS
