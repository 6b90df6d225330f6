"""Every notebook runs top to bottom with the demo model, from the folder and kernel a user would run it in."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXPECTED = [
    "00_tour",
    "01_depth",
    "02_attention",
    "03_fusion_scaling",
    "04_block_norms",
    "05_position_encodings",
    "06_scripted_capture",
    "07_onnx",
]
# Files that notebooks leave in out/ beside them, and the least bytes that these take.
WRITTEN = {
    "00_tour": {"tour.html": 1_000_000},
    "01_depth": {"depth.html": 100_000, "depth.ply": 100_000, "depth.npy": 100_000, "depth.png": 10_000},
    "02_attention": {"attention.html": 100_000},
    "03_fusion_scaling": {"fusion.html": 100_000, "fusion.gif": 10_000},
    "04_block_norms": {"norms.html": 100_000},
    "05_position_encodings": {"positions.html": 100_000},
    "06_scripted_capture": {"capture/plaza.html": 1_000_000, "capture/run/manifest.jsonl": 500},
    "07_onnx": {"demo.onnx": 10_000_000, "demo_pictures.onnx": 10_000_000},
}
WITHOUT_WIDGET = {"07_onnx"}


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook, run in a copy of its folder, so that what it writes does not land in the project."""
    place = folder / "notebooks"
    place.mkdir()
    shutil.copy(path, place)
    notebook = nbformat.read(place / path.name, as_version=4)
    client = NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(place)}})
    client.execute()
    return notebook


def mimetypes(notebook: nbformat.NotebookNode) -> set[str]:
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return {kind for out in outputs for kind in out.get("data", {})}


def test_the_notebooks_of_this_version_are_here():
    assert [path.stem for path in NOTEBOOKS] == EXPECTED


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_top_to_bottom(path, tmp_path):
    notebook = executed(path, tmp_path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    outputs = [out for cell in code for out in cell.outputs]
    assert not [out for out in outputs if out.output_type == "error"]
    # Nothing on stderr: no warning reaches a reader.
    assert not [out.text for out in outputs if out.get("name") == "stderr"]
    shown = mimetypes(notebook)
    assert "image/png" in shown
    assert ("application/vnd.jupyter.widget-view+json" in shown) == (path.stem not in WITHOUT_WIDGET)
    for out in outputs:
        if "application/vnd.jupyter.widget-view+json" in out.get("data", {}):  # what a reader sees without a kernel
            words = out.data["text/plain"]
            assert "image/png" in out.data or "DepthUpload" in words or "[00:" in words  # a progress bar
            assert "object at 0x" not in out.data["text/plain"]
    if path.stem == "01_depth":
        assert "application/vnd.plotly.v1+json" in shown
    for name, least in WRITTEN.get(path.stem, {}).items():
        assert (tmp_path / "notebooks" / "out" / name).stat().st_size > least


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_thin_and_the_first_names_model_and_picture(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert 'dpt.load("demo")' in code[0]
    assert "image" in code[0]
    assert all(len(source.splitlines()) <= 10 for source in code)


def test_a_notebook_that_fails_is_noticed(tmp_path):
    broken = tmp_path / "broken.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(notebook, broken)
    (tmp_path / "run").mkdir()
    with pytest.raises(Exception, match="ZeroDivisionError"):
        executed(broken, tmp_path / "run")
