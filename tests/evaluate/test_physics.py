"""Means of physical measures over windows, and correlation times."""

import json
import math

import numpy as np
import pytest
import torch

from matey import FieldBatch
from matey.data import open_dataset, read_windows, spread_windows
from matey.data.views import TimeBlocks
from matey.evaluate.evaluation import Evaluation
from matey.evaluate.records import ErrorSums, correlation_time, read_records, write_records
from matey.physics import MEASURES
from matey.report.evaluation import physics_meanings, physics_table
from tests.support.described_files import flow

GAS = ("velocity_x", "velocity_y", "density", "pressure")


def gas(num_samples, fields=GAS, system="compressible_rand"):
    history = torch.rand(num_samples, 2, len(fields), 1, 8, 8) + 0.5
    return FieldBatch(system, fields, history, torch.ones(num_samples), periodic=(False, True, True))


def test_means_are_over_windows_however_they_come_in_batches_or_from_ranks():
    batch, forecast, truth = gas(3), torch.rand(3, 4, 1, 8, 8) + 0.5, torch.rand(3, 4, 1, 8, 8) + 0.5
    whole, parts = ErrorSums(), ErrorSums()
    whole.add(batch, "lead", 1, forecast, truth)
    for own in (slice(0, 2), slice(2, 3)):
        part = batch.with_tensors(history=batch.history[own], lead_time=batch.lead_time[own])
        parts.add(part, "lead", 1, forecast[own], truth[own])
    (*others, means), (*_, of_parts) = ([record.physics for record in sums.records()] for sums in (whole, parts))
    assert of_parts == pytest.approx(means)
    assert means["energy"] == pytest.approx(MEASURES["energy"].number(forecast, batch).mean().item())
    assert means["truth_mass"] == pytest.approx(MEASURES["mass"].number(truth, batch).mean().item())
    assert "heat" not in means and not any(others)


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


def described(folder, **keys):
    """A run of a tracer, which is kept, and of a dye, which fades, of a description with more keys."""
    t, y, x = np.ogrid[:12, :8, :8]
    np.save(folder / "tracer.npy", y + 0 * t + 0 * x)
    np.save(folder / "dye.npy", np.exp(-0.1 * t) * (1 + y + x))
    fields = {"tracer": {}, "dye": {"file": "dye.npy"}}
    return open_dataset(folder, flow(system="own", files="tracer.npy", fields=fields, **keys))


def test_the_drift_of_fields_that_a_description_calls_conserved_is_reported(tmp_path):
    data = TimeBlocks.by_shares(described(tmp_path, conserved=["tracer", "dye"]), (0.5, 0, 0.5))
    (batch,) = read_windows([data], spread_windows(data, [1], 2, 3, 1), 2)
    sums = ErrorSums()
    forecast = batch.known_target + torch.tensor([0.35, 0.0]).view(1, 2, 1, 1, 1)  # of a mean of 3.5
    sums.add(batch, "lead", 3, forecast, batch.known_target)
    write_records(sums.records(), tmp_path / "metrics.json")
    records = read_records(tmp_path / "metrics.json")
    found = [Evaluation(records, [])]
    assert physics_table(["MATEY"], found).rows == [
        ("own", "lead 3", "drift of total tracer", "0.0909", "0"),
        ("own", "lead 3", "drift of total dye", "0.259", "0.259"),
    ]
    assert [label for label, _ in physics_meanings(found)] == ["drift of total tracer", "drift of total dye"]


def test_what_a_description_does_not_call_conserved_is_not_reported_as_such(tmp_path):
    data = described(tmp_path)
    (batch,) = read_windows([data], spread_windows(data, [0], 2, 3, 1), 2)
    sums = ErrorSums()
    sums.add(batch, "lead", 3, batch.known_target, batch.known_target)
    assert physics_table(["MATEY"], [Evaluation(sums.records(), [])]).rows == []
    with pytest.raises(ValueError, match="conserved: expected names of fields, got 'mass'; there are tracer, dye"):
        described(tmp_path, conserved=["mass"])
