"""The notebooks and the sweep of examples/ run as they stand, and what they claim holds."""

import ast
import importlib
import json
import re
import sys

import pytest

from matey.config import load_config
from tests.support.notebooks import EXAMPLES, NOTEBOOKS, code_hash, run_notebook, shown_by
from tests.support.programs import clean_environment, start
from tests.support.slurm_cluster import start_slurm, what_is_missing

STORED = {name: json.loads((EXAMPLES / f"{name}.ipynb").read_text()) for name in NOTEBOOKS}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_a_notebook_imports_is_there(name):
    code = "\n".join("".join(cell["source"]) for cell in STORED[name]["cells"] if cell["cell_type"] == "code")
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    assert imports
    for node in imports:
        for alias in node.names:
            assert hasattr(importlib.import_module(node.module), alias.name), f"{node.module} has no {alias.name}"


def forecasts(printed, shown):
    assert sum("image/png" in each for each in shown) == 3  # the errors, the mesh, the animation


def beats_persistence_and_the_stencil(printed, shown):
    rows = re.findall(r"^(persistence|stencil|fine-tuned) +([\d.]+) +([\d.]+) +([\d.]+)$", printed, re.M)
    errors = {name: [float(value) for value in values] for name, *values in rows}
    at_leads, rolled_out = errors["fine-tuned"][:2], errors["fine-tuned"][2]
    assert all(ours < 0.5 * theirs for ours, theirs in zip(at_leads, errors["persistence"], strict=False))
    assert all(ours < theirs for ours, theirs in zip(at_leads, errors["stencil"], strict=False))
    assert rolled_out < errors["persistence"][2]
    (empty,) = re.findall(r"^([\d.]+)% of the forecast and \1% of the cells hold no data$", printed, re.M)
    (error,) = re.findall(r"^tracer +\S+ +\S+ +\S+ +([\d.]+) ", printed.rpartition("VRMSE at step")[2], re.M)
    assert 5 < float(empty) < 10 and float(error) < 0.5


def changes_blocks_by_matrices_of_low_rank(printed, shown):
    ranks = [int(rank) for rank in re.findall(r"changed by a matrix of rank (\d+)", printed)]
    assert ranks and max(ranks) <= 4 and "new fields: ['potential_temperature', 'velocity_z']" in printed


def gives_the_losses_of_one_process(printed, shown):
    assert float(re.search(r"largest relative difference: (\S+)", printed)[1]) < 1e-4


def goes_on_in_a_job(printed, shown):
    words = "There is no Slurm here" if what_is_missing() else ": COMPLETED"
    assert words in printed and "steps 1 to 40: 40, of which the job took 20" in printed
    losses = [float(loss) for loss in re.findall(r"^ *\d+ +([\d.]+)  (?:laptop|job)$", printed, re.M)]
    assert len(losses) == 9 and losses[-1] < losses[0]


CLAIMS = {
    "first_forecast": forecasts,
    "your_own_data": beats_persistence_and_the_stencil,
    "fine_tune_with_lora": changes_blocks_by_matrices_of_low_rank,
    "long_sequences": gives_the_losses_of_one_process,
    "laptop_to_slurm": goes_on_in_a_job,
}


@pytest.fixture
def site(tmp_path):
    """Yield the variables of a private Slurm, where it is installed."""
    if what_is_missing():
        yield {**clean_environment(), "SLURM_CONF": str(tmp_path / "none")}
    else:
        with start_slurm(tmp_path / "cluster") as cluster:
            yield cluster.variables


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_beside_what_it_needs_and_what_it_claims_holds(name, site, tmp_path):
    for needed in ("nbformat", "nbclient", "ipykernel"):
        pytest.importorskip(needed, reason="notebooks are run by nbclient in ipykernel, of the extra 'test'")
    (tmp_path / "clone").mkdir()
    CLAIMS[name](*shown_by(run_notebook(name, tmp_path / "clone", env=site)))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_stored_as_its_code_ran_from_top_to_bottom_without_an_error(name):
    code = [cell for cell in STORED[name]["cells"] if cell["cell_type"] == "code"]
    if not any(cell["outputs"] for cell in code):
        pytest.skip(f"is stored without outputs; give: make tutorials NAMES={name}")
    assert STORED[name]["metadata"].get("ran") == code_hash(STORED[name]), f"give: make tutorials NAMES={name}"
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert outputs and all(output["output_type"] != "error" and output.get("name") != "stderr" for output in outputs)


@pytest.mark.slow
@pytest.mark.processes
def test_trials_are_runs_with_other_settings_and_the_study_goes_on(run_yaml, tmp_path):
    optuna = pytest.importorskip("optuna", reason="the sweep needs Optuna: pip install optuna")
    command = [sys.executable, EXAMPLES / "sweep.py", "--config", run_yaml(), "--out", tmp_path / "sweep"]
    first, second = (start([*command, "--trials", count]) for count in (2, 1))
    assert first.returncode == 0 and "\nbest: --set train.learning_rate=" in first.stdout, first.stderr
    assert second.returncode == 0 and second.stdout.count("\ntrial ") + second.stdout.startswith("trial ") == 3
    trials = optuna.load_study(study_name="matey", storage=f"sqlite:///{tmp_path}/sweep/study.db").trials
    runs = [load_config(tmp_path / "sweep" / f"trial_00{number}" / "config.yaml") for number in range(3)]
    rates = [run.train.learning_rate for run in runs]
    assert rates == pytest.approx([trial.params["train.learning_rate"] for trial in trials], rel=1e-3)
    assert len({*rates}) == 3
