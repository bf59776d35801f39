"""DeepSpeed's monitors, which a run writes what it logs to, and MLflow, which takes it afterwards or from the Trainer."""

import json
import os
import re
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.programs import clean_environment, start
from tests.support.runs import metrics, pretrain, succeed


def monitored(run_yaml, folder, monitor, **kwargs):
    """Train a small run with a section of a monitor in the DeepSpeed JSON."""
    (folder / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 1}, **monitor}))
    succeed(pretrain(run_yaml(), deepspeed_config=folder / "ds.json", **kwargs))


def test_tensorboard_reads_the_numbers_of_the_run_by_step(run_yaml, tmp_path):
    reason = "the monitor needs tensorboard: pip install 'matey-pde[monitor]'"
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason=reason)
    logs = {"enabled": True, "output_path": str(tmp_path / "logs"), "job_name": "demo"}
    monitored(run_yaml, tmp_path, {"tensorboard": logs})
    found = events.EventAccumulator(str(tmp_path / "logs" / "demo")).Reload()
    for name in ("loss", "valid_nrmse", "grad_norm"):
        by_step = {each.step: each.value for each in found.Scalars(f"matey/{name}")}
        assert by_step == pytest.approx(metrics(tmp_path / "run", name), rel=1e-6)


def test_weights_and_biases_offline_writes_a_folder_to_be_sent_later(run_yaml, tmp_path):
    pytest.importorskip("wandb", reason="the monitor needs wandb: pip install wandb")
    offline = clean_environment() | {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}
    monitored(run_yaml, tmp_path, {"wandb": {"enabled": True, "project": "matey", "group": "demo"}}, env=offline)
    (written,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    assert all(b"matey/" + name in written.read_bytes() for name in (b"loss", b"valid_nrmse", b"step"))


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """MLflow with a new folder for what it is sent, here and in processes that are started here."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return pytest.importorskip("mlflow", reason="sending a run to MLflow needs it: pip install mlflow-skinny")


def sent_to(mlflow):
    """The one run that MLflow holds, and each of its numbers by step."""
    client = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    names = run.data.metrics
    return run, {
        name: {each.step: each.value for each in client.get_metric_history(run.info.run_id, name)} for name in names
    }


def test_mlflow_takes_the_numbers_of_a_finished_run_as_the_page_says(mlflow, run_yaml, tmp_path):
    succeed(pretrain(run_yaml()))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(tmp_path / "run")
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "training.md").read_text(), re.DOTALL)
    succeed(start([sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r})\n{code}"]))
    run, numbers = sent_to(mlflow)
    assert run.info.run_name == "demo" and run.info.status == "FINISHED"
    for name in ("loss", "valid_nrmse", "grad_norm", "learning_rate"):
        assert numbers[name] == pytest.approx(metrics(tmp_path / "run", name))
