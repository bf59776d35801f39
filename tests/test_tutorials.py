"""The notebooks of examples/ run as they stand, and what they claim holds."""

import ast
import importlib
import json
import re
import shutil

import pytest

from tests.support.paths import ROOT
from tests.support.programs import clean_environment
from tests.support.slurm_cluster import start_slurm, what_is_missing

NOTEBOOKS = sorted(path.stem for path in (ROOT / "examples").glob("*.ipynb"))


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Run a notebook beside what it needs of the clone and return its outputs: what was printed, and the pictures."""
    nbformat = pytest.importorskip("nbformat", reason="notebooks are run by nbclient, of the extra 'test'")
    nbclient = pytest.importorskip("nbclient", reason="notebooks are run by nbclient, of the extra 'test'")
    pytest.importorskip("ipykernel", reason="notebooks are run in ipykernel, of the extra 'test'")

    def run(name, **kwargs):
        folder = tmp_path_factory.mktemp(name)
        for needed in ("models", "launch", "ds_configs"):
            (folder / needed).symlink_to(ROOT / needed)
        shutil.copytree(ROOT / "examples", folder / "examples")
        notebook = nbformat.read(folder / "examples" / f"{name}.ipynb", as_version=4)
        where = {"metadata": {"path": str(folder / "examples")}}
        nbclient.NotebookClient(notebook, timeout=3600, resources=where).execute(**kwargs)
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
        return "".join(output.get("text", "") for output in outputs), [each.get("data", {}) for each in outputs]

    return run


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_a_notebook_imports_is_there(name):
    cells = json.loads((ROOT / "examples" / f"{name}.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    assert imports
    for node in imports:
        for alias in node.names:
            assert hasattr(importlib.import_module(node.module), alias.name), f"{node.module} has no {alias.name}"


@pytest.mark.slow
@pytest.mark.processes
def test_the_notebook_of_a_first_forecast_runs(executed):
    _, shown = executed("first_forecast")
    assert sum("image/png" in each for each in shown) == 2  # the errors, the mesh
    assert "<img" in shown[-1]["text/html"]  # the animation


@pytest.mark.slow
@pytest.mark.processes
def test_the_model_fine_tuned_on_ones_own_data_beats_persistence_and_the_stencil(executed):
    printed, _ = executed("your_own_data")
    rows = re.findall(r"^(persistence|stencil|fine-tuned) +([\d.]+) +([\d.]+) +([\d.]+)$", printed, re.M)
    errors = {name: [float(value) for value in values] for name, *values in rows}
    at_leads, rolled_out = errors["fine-tuned"][:2], errors["fine-tuned"][2]
    assert all(ours < 0.5 * theirs for ours, theirs in zip(at_leads, errors["persistence"], strict=False))
    assert all(ours < theirs for ours, theirs in zip(at_leads, errors["stencil"], strict=False))
    assert rolled_out < errors["persistence"][2]


@pytest.mark.slow
@pytest.mark.processes
def test_the_notebook_of_lora_changes_blocks_by_matrices_of_low_rank(executed):
    printed, _ = executed("fine_tune_with_lora")
    ranks = [int(rank) for rank in re.findall(r"changed by a matrix of rank (\d+)", printed)]
    assert ranks and max(ranks) <= 4 and "new fields: ['potential_temperature', 'velocity_z']" in printed


@pytest.mark.slow
@pytest.mark.processes
def test_four_processes_give_the_losses_of_one_in_the_notebook(executed):
    printed, _ = executed("long_sequences")
    assert float(re.search(r"largest relative difference: (\S+)", printed)[1]) < 1e-4


@pytest.fixture(params=["no Slurm", "Slurm"])
def site(request, tmp_path):
    """Yield the variables of a machine without Slurm, or with a private one, and what a notebook prints there."""
    if request.param == "no Slurm":
        yield {**clean_environment(), "SLURM_CONF": str(tmp_path / "none")}, "There is no Slurm here"
    elif what_is_missing():
        pytest.skip(what_is_missing())
    else:
        with start_slurm(tmp_path / "cluster") as cluster:
            yield cluster.variables, ": COMPLETED"


@pytest.mark.slow
@pytest.mark.processes
def test_steps_of_a_laptop_are_followed_by_those_of_a_job(executed, site):
    variables, words = site
    printed, _ = executed("laptop_to_slurm", env=variables)
    assert words in printed and "steps 1 to 40: 40, of which the job took 20" in printed
    losses = [float(loss) for loss in re.findall(r"^ *\d+ +([\d.]+)  (?:laptop|job)$", printed, re.M)]
    assert len(losses) == 9 and losses[-1] < losses[0]


def test_notebooks_are_kept_without_outputs():
    assert NOTEBOOKS
    assert not any('"output_type"' in (ROOT / "examples" / f"{name}.ipynb").read_text() for name in NOTEBOOKS)


def test_every_notebook_has_a_test_that_runs_it_and_a_line_on_the_page_of_tutorials():
    source = (ROOT / "tests" / "test_tutorials.py").read_text()
    page = (ROOT / "docs" / "tutorials.md").read_text()
    assert all(f'executed("{name}"' in source and f"examples/{name}.ipynb" in page for name in NOTEBOOKS)
