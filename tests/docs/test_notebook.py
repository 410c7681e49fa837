"""The notebook runs from its first cell to its last, here with a small training."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs/notebooks/quickstart.ipynb"
SMALL = {"iterations": 2, "num_tasks": 2, "num_episodes": 2, "env.horizon": 6}


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_stored_without_results(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell for cell in code if cell.outputs or cell.execution_count] == []


def test_it_runs(notebook, tmp_path):
    (settings,) = [cell for cell in notebook.cells if cell.source.startswith("settings = ")]
    settings.source += f"\nsettings |= {SMALL}"
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}})
    client.execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = "".join(output.get("text", "") for output in shown)
    assert "after 2 adaptations: return" in texts
    assert "return of an episode after adaptation: -" in texts
    assert any("image/gif" in output.get("data", {}) for output in shown)
    assert list(tmp_path.iterdir()) == []
