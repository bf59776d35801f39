import json
import math
from dataclasses import fields, replace

import pytest
import torch

from matey import FieldBatch
from matey.evaluate.records import (
    ErrorSums,
    Record,
    jumps,
    patches_of_cells,
    read_records,
    write_records,
)
from matey.metrics import METRICS, Metric
from matey.tokens.refinement import Refinement
from matey.tokens.tokenize import tokenize
from tests.support.models import make_batch


def batch_of(num_samples, fields=("density", "pressure")):
    return FieldBatch("gas", fields, torch.ones(num_samples, 1, len(fields), 1, 2, 2), torch.ones(num_samples))


def add(sums, *relative_errors):
    """Add a sample per pair of relative errors of the fields; persistence is twice and extrapolation four times as wrong."""
    target = batch_of(len(relative_errors)).last
    error = torch.tensor(relative_errors)[:, :, None, None, None]
    history = torch.stack([target, target + 2 * error], dim=1)
    batch = FieldBatch("gas", ("density", "pressure"), history, torch.ones(len(target)))
    sums.add(batch, "lead", 1, target + error, target)


def by_field(records):
    return {record.field: record for record in records}


def test_a_record_is_the_mean_over_windows_however_they_came_in_batches():
    sums = ErrorSums()
    add(sums, (0.1, 0.2), (0.3, 0.4))
    add(sums, (0.8, 0.6))
    records = by_field(sums.records())
    assert records["density"].errors["nrmse"] == pytest.approx(0.4)
    assert records["pressure"].errors["nrmse"] == pytest.approx(0.4)
    assert {record.num_windows for record in records.values()} == {3}


def test_all_is_the_mean_over_the_fields():
    sums = ErrorSums()
    add(sums, (0.1, 0.3))
    record = by_field(sums.records())["all"]
    assert record.errors["nrmse"] == pytest.approx(0.2)
    assert record.persistence["nrmse"] == pytest.approx(0.4)
    assert record.extrapolation_vrmse == pytest.approx(4 * record.vrmse)
    assert record.ratio == pytest.approx(0.5)


def test_a_field_that_comes_to_rest_does_not_outweigh_the_other_windows():
    sums, (moving, still) = ErrorSums(), (torch.randn(1, 1, 1, 6, 6), torch.zeros(1, 1, 1, 6, 6))
    for before, last in ((moving, moving), (moving, still)):
        batch = FieldBatch("gas", ("rain",), torch.stack([before, last], dim=1), torch.ones(1))
        sums.add(batch, "lead", 1, still + 1e-3, still)
    by_deviation = 1e-3 / (0.01 * moving.std().item())
    assert by_field(sums.records())["rain"].vrmse == pytest.approx(by_deviation, rel=1e-4)


def test_a_rollout_that_blew_up_is_written_as_null(tmp_path):
    errors, persistence = {"nrmse": math.nan, "vrmse": math.inf}, {"nrmse": 0.5, "vrmse": 0.25}
    record = Record("gas", "all", "rollout", 9, errors, persistence, 7, extrapolation_vrmse=math.inf)
    write_records([record], tmp_path / "metrics.json")
    (row,) = json.loads((tmp_path / "metrics.json").read_text())
    assert list(row)[:8] == [*"system field kind lead nrmse vrmse persistence_nrmse persistence_vrmse".split()]
    assert [*row.values()][:9] == ["gas", "all", "rollout", 9, None, None, 0.5, 0.25, 7] and row["seams"] is None


def test_records_are_read_as_they_were_written(tmp_path):
    errors, persistence = {"nrmse": 0.1, "vrmse": 0.2}, {"nrmse": 0.5, "vrmse": 0.25}
    one = Record("gas", "all", "lead", 5, errors, persistence, 7, 1.5, extrapolation_vrmse=0.75)
    records = [one, replace(one, kind="rollout", lead=9, conserve=True, errors={"nrmse": math.nan, "vrmse": math.nan})]
    write_records(records, tmp_path / "metrics.json")
    assert list(map(repr, read_records(tmp_path / "metrics.json"))) == list(map(repr, records))


def test_the_best_and_the_worst_trajectory_are_found_by_the_means_over_their_windows():
    sums = ErrorSums()
    target = batch_of(4).last * torch.tensor([1.0, -1.0])  # a variance of 4 / 3 over its four cells
    for errors in ((0.1, 0.5, 0.2, 0.1), (0.3, 0.1, 0.2, math.nan)):
        wrong = torch.tensor(errors)[:, None, None, None, None]
        sums.add(batch_of(4), "lead", 1, target * (1 + wrong), target, trajectories=["a", "b", "c", "d"])
    record = by_field(sums.records())["all"]
    assert record.best_trajectory == pytest.approx(0.2 * math.sqrt(3 / 4)) and record.worst == "d"
    assert math.isnan(record.worst_trajectory)


def test_metrics_cannot_be_called_what_other_columns_are_called():
    assert {each.name for each in fields(Record)} == set(METRICS.reserved)


@pytest.mark.parametrize("name", ["inside", "across"])
def test_a_metric_of_any_other_name_keeps_its_own_number(monkeypatch, name):
    always = Metric("always", "Seven.", lambda prediction, target: torch.full(prediction.shape[:2], 7.0))
    monkeypatch.setitem(METRICS._loaded, name, always)
    sums, target = ErrorSums(), torch.rand(2, 2, 1, 8, 8)
    batch = FieldBatch("gas", ("density", "pressure"), torch.rand(2, 1, 2, 1, 8, 8), torch.ones(2))
    sums.add(batch, "lead", 1, target + 1, target, torch.arange(8).expand(2, 1, 8, 8) // 4)
    assert all(record.errors[name] == 7 and 0 < record.seams for record in sums.records())


def test_extrapolation_is_exact_where_every_cell_changes_steadily():
    for frames, lead, target in (((9, 1, 4), 7, 25), ((4,), 5, 4)):  # a single frame shows no change
        history = torch.tensor(frames, dtype=torch.float32)[None, :, None, None, None, None].expand(2, -1, 1, 1, 4, 4)
        batch, sums = FieldBatch("gas", ("density",), history, torch.ones(2)), ErrorSums()
        sums.add(batch, "lead", lead, batch.last, torch.full_like(batch.last, target))
        assert {record.extrapolation_vrmse for record in sums.records()} == {0}


PATCHES = ((1, 1, 8, 8), (1, 1, 4, 4))


def test_an_error_that_is_constant_in_each_patch_jumps_at_borders_only():
    numbers = torch.arange(8).reshape(1, 1, 2, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)  # (b, z, y, x)
    across, inside = jumps(numbers[:, None].double(), numbers)
    assert inside.item() == 0
    # 3 borders of 8 cells where the error jumps by 1, one of 16 cells where it jumps by 4
    assert across.item() == pytest.approx((3 * 8 * 1 + 16 * 4) / (3 * 8 + 16))


def test_an_error_that_is_smooth_everywhere_shows_no_patches():
    batch = make_batch(num_samples=1, grid=(1, 64, 64))
    layout = tokenize([batch], PATCHES, Refinement("threshold", 0.3)).layout
    numbers = patches_of_cells(batch, PATCHES, layout)
    slope = torch.arange(64.0)[:, None] + 2 * torch.arange(64.0)
    across, inside = jumps(slope.expand(1, 1, 1, 64, 64), numbers)
    assert across.item() == pytest.approx(inside.item(), rel=0.1)


def test_cells_of_a_leaf_share_its_number_and_others_do_not():
    batch = make_batch(grid=(1, 20, 28))
    layout = tokenize([batch], PATCHES, Refinement("threshold", 0.3, keep_parents=True)).layout
    numbers = patches_of_cells(batch, PATCHES, layout)
    assert numbers.shape == (2, 1, 20, 28) and (numbers >= 0).all()
    sizes = numbers.unique(return_counts=True)[1]
    assert sizes.max() == 64 and (numbers.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4).diff(dim=-1) == 0).all()
