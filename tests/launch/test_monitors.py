"""DeepSpeed's monitors, which a run writes what it logs to, and MLflow, which takes it afterwards or from the Trainer."""

import json

import pytest

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
