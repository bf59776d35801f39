"""Means of physical measures over windows, and correlation times."""

import json
import math

import pytest
import torch

from matey import FieldBatch
from matey.evaluate.physics import PhysicsSums, correlation_time
from matey.evaluate.records import ErrorSums, read_records, write_records
from matey.physics import MEASURES

GAS = ("velocity_x", "velocity_y", "density", "pressure")


def gas(num_samples, fields=GAS, system="compressible_rand"):
    history = torch.rand(num_samples, 2, len(fields), 1, 8, 8) + 0.5
    return FieldBatch(system, fields, history, torch.ones(num_samples), periodic=(False, True, True))


def test_means_are_over_windows_however_they_come_in_batches_or_from_ranks():
    batch, forecast, truth = gas(3), torch.rand(3, 4, 1, 8, 8) + 0.5, torch.rand(3, 4, 1, 8, 8) + 0.5
    whole, parts = PhysicsSums(), PhysicsSums()
    whole.add("key", batch, forecast, truth)
    for own in (slice(0, 2), slice(2, 3)):
        part = batch.with_tensors(history=batch.history[own], lead_time=batch.lead_time[own])
        parts.add("key", part, forecast[own], truth[own])
    assert parts.means("key") == pytest.approx(whole.means("key"))
    assert whole.means("key")["energy"] == pytest.approx(MEASURES["energy"].number(forecast, batch).mean().item())
    assert whole.means("key")["truth_mass"] == pytest.approx(MEASURES["mass"].number(truth, batch).mean().item())
    assert "heat" not in whole.means("key") and whole.means("other") == {}


@pytest.mark.parametrize(
    ("correlations", "expected"),
    [
        ((0.9, 0.7, 0.1), 1.5),
        ((0.6, 0.9, 0.1), 0.5),
        ((0.95, 0.9, 0.85), math.inf),
        ((1.0, math.nan, 0.1), 1.2),
    ],
)
def test_the_correlation_time_is_where_the_curve_first_falls_below(correlations, expected):
    assert correlation_time((1, 2, 3), correlations) == pytest.approx(expected)


def test_records_of_rollouts_carry_physics_and_correlation_time_to_disk_and_back(tmp_path):
    sums, batch = ErrorSums(), gas(2)
    truth, noise = batch.last, torch.randn(2, 4, 1, 8, 8)
    for step, share in enumerate((0.0, 0.05, 30.0), start=1):
        sums.add(batch, "rollout", step, truth + share * noise, truth)
    write_records(sums.records(), tmp_path / "metrics.json")
    rows = json.loads((tmp_path / "metrics.json").read_text())
    assert {row["field"] for row in rows if row["physics"]} == {"all"}
    first, _, last = read_records(tmp_path / "metrics.json")[4::5]
    assert "correlation_time" not in first.physics and 2 < last.physics["correlation_time"] < 3
    assert first.physics["mass"] == first.physics["truth_mass"] == 0 < last.physics["mass"]
    assert math.isnan(last.physics["persistence_correlation_time"])  # persistence is the truth here
