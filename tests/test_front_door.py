"""What a newcomer meets first: the Python of the README, its links, the notebook, and the drawing of the layers."""

import re
import shutil
import sys

import pytest

from tests.conftest import ROOT, start

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "ds_configs/README.md",
    "models/matey-micro/README.md",
)


def test_the_python_of_the_readme_runs_and_gives_the_error_that_it_names(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "models").symlink_to(ROOT / "models")
    result = start([sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r})\n{code}"])
    assert result.returncode == 0, result.stderr
    stated = float(re.search(r"# (0\.\d+) of the water's height", code)[1])
    assert float(re.search(r"0\.\d+", result.stdout)[0]) == pytest.approx(stated, rel=0.1)


@pytest.mark.parametrize("page", [*PAGES, *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_every_link_leads_to_a_file(page):
    targets = re.findall(r"\]\(([^)\s#]+)", (ROOT / page).read_text())
    missing = [
        target for target in targets if ":" not in target and not ((ROOT / page).parent / target).resolve().exists()
    ]
    assert missing == []


def test_the_drawing_of_the_layers_names_every_package():
    text = (ROOT / "docs" / "architecture.md").read_text()
    drawing = text.partition("## The layers")[2].partition("\n## ")[0]
    packages = [path.parent.name for path in (ROOT / "matey").glob("*/__init__.py")]
    assert len(packages) > 5
    assert [name for name in packages if not re.search(rf"\b{name}\b", drawing)] == []


@pytest.mark.slow
def test_the_notebook_of_a_first_forecast_runs(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="notebooks are run by nbclient, of the extra 'test'")
    nbclient = pytest.importorskip("nbclient", reason="notebooks are run by nbclient, of the extra 'test'")
    pytest.importorskip("ipykernel", reason="notebooks are run in ipykernel, of the extra 'test'")
    (tmp_path / "models").symlink_to(ROOT / "models")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    notebook = nbformat.read(tmp_path / "examples" / "first_forecast.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path / "examples")}}
    )
    client.execute()
    shown = [kind for cell in notebook.cells for output in cell.get("outputs", ()) for kind in output.get("data", ())]
    assert shown.count("image/png") == 2  # the errors, the mesh
    assert "<img" in notebook.cells[-2].outputs[-1].data["text/html"]  # the animation


def test_notebooks_are_kept_without_outputs():
    notebooks = list((ROOT / "examples").glob("*.ipynb"))
    assert notebooks and not any('"output_type"' in notebook.read_text() for notebook in notebooks)
