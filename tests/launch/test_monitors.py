"""DeepSpeed's monitors, which a run writes what it logs to."""

import csv
import json

import pytest

from tests.support.programs import clean_environment
from tests.support.runs import metrics, pretrain, succeed


def monitored(run_yaml, folder, monitor, **kwargs):
    """Train a small run with a section of a monitor in the DeepSpeed JSON."""
    (folder / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 1}, **monitor}))
    succeed(pretrain(run_yaml(), deepspeed_config=folder / "ds.json", **kwargs))


def test_deepspeeds_csv_monitor_has_the_numbers_of_the_run_by_step(run_yaml, tmp_path):
    logs = {"enabled": True, "output_path": str(tmp_path / "logs"), "job_name": "demo"}
    monitored(run_yaml, tmp_path, {"csv_monitor": logs})
    for name in ("loss", "valid_nrmse", "grad_norm", "num_tokens"):
        header, *rows = csv.reader((tmp_path / "logs" / "demo" / f"matey_{name}.csv").open())
        assert header == ["step", name]
        assert {int(step): float(value) for step, value in rows} == pytest.approx(metrics(tmp_path / "run", name))
    assert (tmp_path / "logs" / "demo" / "matey_loss_by_system_shallow_water.csv").is_file()


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
