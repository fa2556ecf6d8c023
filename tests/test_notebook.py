"""Tests that the notebook runs in an empty folder, shows video and GIF, and is kept without outputs."""

import json
from pathlib import Path
from typing import Any

import pytest
from clips import Clip

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "Colab_demo.ipynb"
OPTIONAL = "needs the optional packages nbclient and ipykernel"


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of nbclient's event loop
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    nbformat: Any = pytest.importorskip("nbformat", reason=OPTIONAL)
    nbclient: Any = pytest.importorskip("nbclient", reason=OPTIONAL)
    pytest.importorskip("ipykernel", reason=OPTIONAL)
    for path in ROOT.iterdir():
        if not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [set(output.get("data", {})) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("text/html" in kinds for kinds in shown) == 2, "two videos are played"
    assert sum("image/gif" in kinds for kinds in shown) == 1
    assert len(Clip(tmp_path / "smooth.mp4").pictures) == 2 * 72 - 1
    assert len(Clip(tmp_path / "pair.gif").pictures) == 2**3 + 1
