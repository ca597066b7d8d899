"""Every notebook runs from top to bottom in a fresh kernel, with shorter trainings than it shows."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SHORTER = {
    "01_quickstart": {
        "    folder=mkdtemp(),": """    "trainer.max_steps=6",
    "data.train.real.length=12",
    "data.train.synthetic.length=12",
    "data.val.length=4",
    folder=mkdtemp(),""",
    },
    "03_bgc_or_fine_tuning": {"CityScenes(60,": "CityScenes(12,"},
    "04_speed": {"CityScenes(40,": "CityScenes(8,", "scenes(7).split(10)": "scenes(7).split(4)"},
    "05_your_own_data": {"max_steps=60": "max_steps=6", "count=8, side=512": "count=4, side=256"},
}


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    for shown, run in SHORTER.get(path.stem, {}).items():
        (cell,) = (cell for cell in notebook.cells if cell.cell_type == "code" and shown in cell.source)
        cell.source = cell.source.replace(shown, run)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [each for each in shown if "image/png" in each or "data:image/" in each.get("text/html", "")]
    assert len(pictures) >= 2, "the notebook shows its data and its prediction"
