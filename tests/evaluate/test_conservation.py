"""Rollouts that keep what a system conserves."""

from dataclasses import replace

import pytest
import torch

from matey import FieldBatch
from matey.evaluate.histories import OwnCells, Whole, described
from matey.evaluate.rollout import Rollout, conserved_by, kept, rollout, totals_of
from matey.physics import MEASURES, measure
from tests.support.laws import law
from tests.support.models import make_model

GAS = ("velocity_x", "velocity_y", "density", "pressure")
THERMALS = ("velocity_x", "velocity_z", "density", "potential_temperature")
SIDES = {"compressible_rand": (False, True, True), "colliding_thermals": (False, False, True)}


def batch_of(system, fields, **kwargs):
    history = torch.rand(3, 2, len(fields), 1, 8, 8, dtype=torch.float64) + 0.5
    return FieldBatch(system, fields, history, torch.ones(3), periodic=SIDES.get(system, (False,) * 3), **kwargs)


def kept_in(batch, frame):
    """A frame with the totals of the last known one, and these totals."""
    own = slice(0, batch.num_samples)
    cells = OwnCells(described(batch.samples, own), batch.num_samples, own)
    totals = totals_of(batch.last, cells)
    return kept(frame, cells, totals), totals


@pytest.mark.parametrize(
    ("system", "fields", "quantities"),
    [
        ("compressible_rand", GAS, {"mass", "momentum", "energy"}),
        ("colliding_thermals", THERMALS, {"mass", "momentum", "heat"}),
    ],
)
def test_a_frame_that_is_kept_has_the_totals_of_the_last_known_frame(system, fields, quantities):
    batch = batch_of(system, fields)
    frame = torch.rand_like(batch.last) + 0.7
    found, totals = kept_in(batch, frame)
    assert totals.keys() == quantities
    for name in quantities:
        assert MEASURES[name].number(frame, batch).min() > 1e-3
        assert MEASURES[name].number(found, batch).max() < 1e-14
    differences = (found - frame).flatten(3).std(dim=-1)
    assert differences.max() < 1e-14  # all fields are shifted by constants alone


def test_momentum_is_not_kept_along_axes_with_walls():
    batch = batch_of("colliding_thermals", THERMALS)
    frame = torch.rand_like(batch.last) + 0.7
    found, _ = kept_in(batch, frame)
    assert torch.equal(found[:, 1], frame[:, 1]) and not torch.equal(found[:, 0], frame[:, 0])


def test_fields_that_a_description_calls_conserved_keep_their_totals():
    batch = batch_of("dyes", ("red", "blue"), conserved=("blue",))
    frame = torch.rand_like(batch.last)
    found, _ = kept_in(batch, frame)
    assert torch.equal(found[:, 0], frame[:, 0])
    assert measure("total_blue").number(found, batch).max() < 1e-14


def test_totals_are_those_of_cells_that_hold_data():
    batch = batch_of("compressible_rand", GAS)
    frame = torch.rand_like(batch.last) + 0.7
    batch.history[1, ..., 2:6, 3:] = frame[1, ..., 2:6, 3:] = torch.nan
    found, totals = kept_in(batch, frame)
    assert torch.equal(found.isnan(), batch.last.isnan())
    assert torch.allclose(totals["mass"][:, 0], batch.last[:, 2].nansum(dim=(1, 2, 3)))
    assert torch.allclose(found[:, 2].nansum(dim=(1, 2, 3)), totals["mass"][:, 0])
    assert all(MEASURES[name].number(found, batch).max() < 1e-14 for name in totals)


def test_fields_without_anything_conserved_and_fields_of_zeros_stay_as_they_are():
    batch = batch_of("dyes", ("red", "blue"))
    last = batch.last
    found, totals = kept_in(batch, last)
    assert totals == {} and found is last
    still = batch_of("compressible_rand", GAS)
    still = still.with_tensors(history=torch.zeros_like(still.history))
    assert torch.equal(kept_in(still, still.last)[0], still.last)


def test_what_is_kept_is_known_of_fields_that_no_memory_holds():
    batch = batch_of("compressible_rand", GAS)
    large = described(replace(batch.samples, window=(2, 1, 2**24, 2**24)), slice(0, 3))
    assert large.grid == (1, 2**24, 2**24) and [*conserved_by(large)] == ["mass", "momentum", "energy"]


@law("lead", [1, 3], quick=[3])
def test_all_frames_of_a_rollout_keep_the_totals(lead):
    batch, model = batch_of("compressible_rand", GAS), make_model(((1, 1, 4, 4),), fields=GAS)
    freely, keeping = (list(rollout(model, batch, 5, lead, conserve=conserve)) for conserve in (False, True))
    for name in ("mass", "momentum", "energy"):
        assert max(MEASURES[name].number(frame, batch).max() for frame in keeping) < 1e-14
        assert max(MEASURES[name].number(frame, batch).max() for frame in freely) > 1e-6


class Outburst:
    """Predicts fields a hundred times as large as the last ones."""

    device = torch.device("cpu")

    def predict(self, batch):
        return 100 * batch.last


def test_a_first_change_limits_the_others_as_it_was_kept():
    made = batch_of("compressible_rand", GAS)
    batch = replace(made, history=made.history[:, :1])
    whole, later = (Rollout(Whole(Outburst(), batch), conserve=True) for _ in range(2))
    frames = whole.frames(4)
    later.go_on(next(frames)[:, None], 1, whole.largest)
    assert all(map(torch.equal, later.frames(3), [*frames]))
