"""The tutorial runs from its first cell to its last in a fresh copy, and is committed with what it shows."""

import re

import pytest

from kidney_ssl import methods
from tests.project_copy import ROOT, Project

nbformat = pytest.importorskip("nbformat", reason="not in this environment: pip install -r requirements.txt")
nbclient = pytest.importorskip("nbclient", reason="not in this environment: pip install -r requirements.txt")
pytest.importorskip("ipykernel", reason="not in this environment: pip install -r requirements.txt")
LARGEST = 1 << 20  # bytes: it is in git


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(ROOT / "docs/tutorial.ipynb", 4)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook, run without what git ignores and without the network."""
    folder = tmp_path_factory.mktemp("tutorial")
    project = Project.copy_to(folder / "project")
    notebook = nbformat.read(project.folder / "docs/tutorial.ipynb", 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.delenv("MPLBACKEND", raising=False)  # a stage that another test imported has set it
        for name, value in project.environment.items():
            patch.setenv(name, value)
        nbclient.NotebookClient(
            notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": project.folder / "docs"}}
        ).execute()
    return notebook


def shown(notebook):
    """What each code cell shows: kinds of pictures, tables and text."""
    return [
        {kind for output in cell.outputs for kind in output.get("data", {"text": ""})}
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def text(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return "".join(output.get("text", "") for cell in cells for output in cell.outputs)


def test_it_shows_what_is_committed(committed, executed):
    assert shown(executed) == shown(committed)
    assert sum("image/png" in kinds for kinds in shown(executed)) >= 7
    numbers = re.compile(r"[\d.]+")
    assert numbers.sub("0", text(executed)) == numbers.sub("0", text(committed))


def test_each_pretext_task_of_its_table_is_shown(committed, executed):
    table = "".join(cell.source for cell in committed.cells if cell.cell_type == "markdown")
    tasks = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert len(tasks) == 8
    assert set(tasks) <= set(methods.METHODS)
    assert set(tasks) == set(re.findall(r"^(\w+): [a-z]+$", text(executed), re.MULTILINE))


def test_its_classifier_finds_tumors(executed):
    auroc = float(re.search(r"AUROC ([\d.]+)", text(executed))[1])
    assert auroc > 0.6


def test_it_is_small_and_has_no_trace_of_a_machine(committed):
    source = (ROOT / "docs/tutorial.ipynb").read_text()
    assert len(source) < LARGEST
    assert not re.search(r"/(home|root|tmp|work|Users)/", source)
    counts = [cell.execution_count for cell in committed.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
