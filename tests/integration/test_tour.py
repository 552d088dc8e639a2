"""What the documents show of reading results runs, on a made up study of the same models."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from documented import ROOT
from selfrepair.reading.head import HeadResults
from study_folder import save_study

NOTEBOOK = ROOT / "notebooks/tour.ipynb"
PAGES = [ROOT / "README.md", ROOT / "docs/python.md"]
# Bytes of the notebook with its stored output.
LARGEST = 200_000


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results and notebooks where a clone has them."""
    folder = tmp_path_factory.mktemp("clone")
    save_study(folder / "results")
    (folder / "notebooks").mkdir()
    return folder


def shown(page: Path) -> list[str]:
    """The Python blocks of a page that read results."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [block for block in blocks if "load_results" in block]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_runs(
    page: Path, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results").symlink_to(clone / "results")
    monkeypatch.chdir(tmp_path)
    blocks = shown(page)
    assert blocks or page.name == "README.md"
    for block in blocks:
        names: dict[str, object] = {}
        exec(block, names)
        assert isinstance(names.get("head"), HeadResults) or page.name == "README.md"


def test_the_tour_runs(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "workflow"), prepend=os.pathsep)
    where = {"metadata": {"path": str(clone / "notebooks")}}
    NotebookClient(notebook, kernel_name="python3", resources=where, timeout=120).execute()
    explained = [cell for cell in notebook.cells if ".explain()" in cell.source]
    assert len(explained) == 3
    for cell in explained:
        assert "text/markdown" in cell.outputs[0]["data"]


def test_the_tour_is_stored_with_its_output() -> None:
    """So that a reader on a code host sees it, and small."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell.outputs]
    assert len(outputs) == len(cells)
    assert {output.output_type for output in outputs} == {"execute_result"}
    assert sum("image/png" in output.data for output in outputs) == 2
    assert "SmolLM2-135M-Instruct" in outputs[0].data["text/plain"]
    assert NOTEBOOK.stat().st_size < LARGEST
