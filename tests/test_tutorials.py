"""The notebooks and the sweep of examples/ run as they stand, and what they claim holds."""

import ast
import base64
import importlib
import io
import json
import re
import sys

import pytest
from PIL import Image

from matey.config import load_config
from tests.support.notebooks import EXAMPLES, NOTEBOOKS, code_hash, run_notebook, shown_by
from tests.support.paths import ROOT
from tests.support.programs import clean_environment, start
from tests.support.slurm_cluster import start_slurm, what_is_missing

STORED = [json.loads((EXAMPLES / f"{name}.ipynb").read_text()) for name in NOTEBOOKS]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Run a notebook beside what it needs of the clone and return its outputs: what was printed, and the pictures."""
    for needed in ("nbformat", "nbclient", "ipykernel"):
        pytest.importorskip(needed, reason="notebooks are run by nbclient in ipykernel, of the extra 'test'")

    def run(name, **kwargs):
        return shown_by(run_notebook(name, tmp_path_factory.mktemp(name), **kwargs))

    return run


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_a_notebook_imports_is_there(name):
    cells = STORED[NOTEBOOKS.index(name)]["cells"]
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
    pictures = [Image.open(io.BytesIO(base64.b64decode(each["image/png"]))) for each in shown if "image/png" in each]
    assert [getattr(picture, "n_frames", 1) for picture in pictures] == [
        1,
        1,
        20,
    ]  # the errors, the mesh, the animation


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


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_stored_as_its_code_ran_from_top_to_bottom_without_an_error(name):
    notebook = STORED[NOTEBOOKS.index(name)]
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    if not any(cell["outputs"] for cell in code):
        pytest.skip(f"is stored without outputs; give: make tutorials NAMES={name}")
    assert notebook["metadata"].get("ran") == code_hash(notebook), f"give: make tutorials NAMES={name}"
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert outputs and all(output["output_type"] != "error" and output.get("name") != "stderr" for output in outputs)


@pytest.mark.slow
@pytest.mark.processes
def test_trials_are_runs_with_other_settings_and_the_study_goes_on(run_yaml, tmp_path):
    pytest.importorskip("optuna", reason="the sweep needs Optuna: pip install optuna")
    command = [sys.executable, ROOT / "examples" / "sweep.py", "--config", run_yaml(), "--out", tmp_path / "sweep"]
    first, second = (start([*command, "--trials", count]) for count in (2, 1))
    assert first.returncode == 0 and "\nbest: --set train.learning_rate=" in first.stdout, first.stderr
    assert second.returncode == 0 and second.stdout.count("\ntrial ") + second.stdout.startswith("trial ") == 3
    trials = study_in(tmp_path / "sweep").trials
    rates = [
        load_config(tmp_path / "sweep" / f"trial_00{number}" / "config.yaml").train.learning_rate for number in range(3)
    ]
    assert rates == pytest.approx([trial.params["train.learning_rate"] for trial in trials], rel=1e-3)
    assert len({*rates}) == 3


def study_in(folder):
    import optuna

    return optuna.load_study(study_name="matey", storage=f"sqlite:///{folder}/study.db")
