"""Scores of forecasts of which each rank holds a part, beside those of whole fields."""

import math
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch

from matey import FieldBatch
from matey.evaluate.histories import Boxes
from matey.evaluate.records import ErrorSums
from matey.metrics import METRICS, Metric
from matey.parallel.exchange import Topology
from matey.parallel.sequence import SequenceRanks
from tests.support.parts import Group, parts_of, piece_of, share_in

GAS = ("density", "pressure", "velocity_x", "velocity_y", "velocity_z")
CASES = {
    "space, padded": ("compressible_turb", GAS, (9, 12, 10), (True, True, False), 3),
    "plane": ("compressible_rand", (*GAS[:2], "velocity_x", "velocity_y"), (1, 20, 12), (False, False, True), 2),
    "plane, cells without data": (
        "compressible_rand",
        (*GAS[:2], "velocity_x", "velocity_y"),
        (1, 20, 12),
        (False,) * 3,
        2,
    ),
    "one frame": ("shallow_water", ("water_height",), (1, 9, 8), (False, False, False), 1),
    "fewer patches than ranks": ("shallow_water", ("water_height",), (1, 4, 4), (False, True, True), 2),
}


def batch_of(system, fields, grid, periodic, frames):
    torch.manual_seed(7)
    history = torch.rand(2, frames, len(fields), *grid) + 0.5
    target = history[:, -1] + 0.1 * torch.randn(2, len(fields), *grid)
    lead_time = torch.tensor([3.0, 3.0])
    return FieldBatch(system, fields, history, lead_time, target, periodic=periodic, conserved=fields[:1])


@pytest.mark.parametrize(("size", "at_once"), [(2, 2**18), (3, 30)])
@pytest.mark.parametrize("network", ["matey", "paper"])
@pytest.mark.parametrize("case", CASES)
def test_parts_of_fields_are_scored_as_whole_fields_are(case, network, size, at_once, monkeypatch):
    monkeypatch.setattr("matey.evaluate.histories.AT_ONCE", at_once)  # cells: a few layers
    largest = Metric("largest", "Of a package.", lambda p, u: (p - u).abs().amax(dim=(2, 3, 4)))
    monkeypatch.setitem(METRICS._loaded, "largest", largest)
    batch = batch_of(*CASES[case])
    if "without data" in case:
        batch.history[0, ..., 3:9, 2:7] = batch.target[0, ..., 3:9, 2:7] = math.nan
    prediction, names = batch.target + 0.05 * torch.randn_like(batch.target), ["first", "second"]
    whole = ErrorSums()
    whole.add(batch, "rollout", 3, prediction, batch.target, trajectories=names)

    def of_rank(rank, exchange):
        share = share_in((1, 1 if batch.grid[0] == 1 else 4, 4, 4), rank, size, network)
        (part,) = parts_of([batch], share)
        group = SimpleNamespace(ranks=SequenceRanks(Topology(rank, size, size, 3)), exchange=exchange, size=size)
        histories = Boxes(SimpleNamespace(config=share.config, sequence_group=group), part, batch.spacing)
        frame, truth = (
            histories.of_own(
                [piece_of(replace(batch, target=each), piece.sample, piece.cells).target for piece in part.pieces]
            )
            for each in (prediction, batch.target)
        )
        sums = ErrorSums()
        newest = histories.history[:, -2:]
        sums.add_cells(histories.cells, histories.part.samples, "rollout", 3, newest, frame, truth, names)
        return sums.records()

    expected = whole.records()
    for records in Group(size).run(of_rank):
        assert len(records) == len(expected) == len(batch.fields) + 1
        for ours, one in zip(records, expected, strict=True):
            assert math.isnan(ours.errors["largest"]) and math.isnan(ours.seams)
            in_parts = {name: value for name, value in one.physics.items() if "divergence" not in name}
            assert ours.physics == pytest.approx(in_parts, rel=1e-6)
            expects = one.field == "all", one.field == "all" and "compressible" in one.system
            assert (f"truth_total_{batch.fields[0]}" in in_parts, "truth_mass" in in_parts) == expects
            for name in ("nrmse", "vrmse", "correlation"):
                found = ours.errors[name], ours.persistence[name]
                assert found == pytest.approx((one.errors[name], one.persistence[name]), rel=1e-6), name
            assert ours.extrapolation_vrmse == pytest.approx(one.extrapolation_vrmse, rel=1e-6)
            same = ("system", "field", "kind", "lead", "num_windows", "worst")
            assert [asdict(ours)[name] for name in same] == [asdict(one)[name] for name in same]
