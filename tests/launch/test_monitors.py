"""DeepSpeed's monitors, which a run writes what it logs to."""

import csv
import json

import pytest

from tests.support.runs import metrics, pretrain, succeed


def test_deepspeeds_csv_monitor_has_the_numbers_of_the_run_by_step(run_yaml, tmp_path):
    tree = {"csv_monitor": {"enabled": True, "output_path": str(tmp_path / "logs"), "job_name": "demo"}}
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 1}, **tree}))
    succeed(pretrain(run_yaml(), deepspeed_config=tmp_path / "ds.json"))
    for name in ("loss", "valid_nrmse", "grad_norm", "num_tokens"):
        header, *rows = csv.reader((tmp_path / "logs" / "demo" / f"matey_{name}.csv").open())
        assert header == ["step", name]
        assert {int(step): float(value) for step, value in rows} == pytest.approx(metrics(tmp_path / "run", name))
    assert (tmp_path / "logs" / "demo" / "matey_loss_by_system_shallow_water.csv").is_file()
