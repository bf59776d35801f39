import json
import math
from dataclasses import replace

import pytest
import torch

from matey import FieldBatch
from matey.evaluate.histories import OwnCells, described
from matey.evaluate.records import ErrorSums
from matey.evaluate.rollout import largest_change, rollout
from tests.evaluate.rollout_parts_cases import CASES
from tests.support.laws import law
from tests.support.models import PATCHES, VOCABULARY, make_model, with_gaps
from tests.support.programs import cases_of, start_ranks


class Fibonacci:
    """Predicts the sum of the last two frames, and notes what it was asked for."""

    device = torch.device("cpu")

    def __init__(self):
        self.batches = []

    def predict(self, batch):
        self.batches.append(batch)
        return batch.history[:, -2] + batch.history[:, -1]


def make_batch(num_frames=2, lead=5.0):
    torch.manual_seed(0)
    history = torch.rand(3, num_frames, 1, 1, 16, 16)
    return FieldBatch("shallow_water", ("water_height",), history, torch.full((3,), lead), target=history[:, -1])


def test_rollout_goes_on_from_its_own_predictions():
    batch = make_batch()
    batch = replace(batch, history=torch.ones_like(batch.history))
    frames = list(rollout(Fibonacci(), batch, 4))
    assert [frame.unique().item() for frame in frames] == [2, 3, 5, 8]
    assert all(frame.shape == batch.last.shape for frame in frames)


def test_frames_are_predicted_one_by_one_as_they_are_asked_for():
    model = Fibonacci()
    next(rollout(model, make_batch(), 1000))
    assert len(model.batches) == 1


def test_two_steps_are_the_forecast_of_the_forecast(model, monkeypatch):
    # The untrained model changes what it is given by more than any that is trained.
    monkeypatch.setattr("matey.evaluate.rollout.MAX_GROWTH", torch.inf)
    batch = make_batch()
    first, second = rollout(model, batch, 2)
    at_lead_one = replace(batch, lead_time=torch.ones(3))
    assert torch.equal(first, model.predict(at_lead_one))
    history = torch.stack([batch.last, first], dim=1)
    assert torch.equal(second, model.predict(replace(at_lead_one, history=history)))
    assert not torch.equal(first, second)


class LeadTimes(Fibonacci):
    """Predicts the last frame and the lead time on top, and notes what it was asked for."""

    def predict(self, batch):
        self.batches.append(batch)
        return batch.last + batch.lead_time.view(-1, 1, 1, 1, 1)


def test_a_longer_lead_predicts_every_frame_and_goes_on_from_the_newest():
    model, batch = LeadTimes(), make_batch()
    frames = list(rollout(model, replace(batch, history=torch.zeros_like(batch.history)), 8, lead=3))
    assert [frame.unique().item() for frame in frames] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [each.lead_time[0].item() for each in model.batches] == [1, 2, 3, 1, 2, 3, 1, 2]
    histories = [each.history[0, :, 0, 0, 0, 0].tolist() for each in model.batches]
    assert histories == 3 * [[0, 0]] + 3 * [[2, 3]] + 2 * [[5, 6]]


class Runaway(Fibonacci):
    """Predicts that the last change is a hundred times as large in every step, and per snapshot of the lead time."""

    def predict(self, batch):
        return batch.last + 100 * batch.lead_time.view(-1, 1, 1, 1, 1) * (batch.last - batch.history[:, -2])


class Broken:
    """Persistence, but for a cell of each sample that becomes NaN."""

    device = torch.device("cpu")

    def predict(self, batch):
        frame = batch.last.clone()
        frame[..., 1, 1] = torch.nan
        return frame


def test_a_forecast_of_nan_is_no_gap_where_the_truth_has_data():
    batch, sums = make_batch(), ErrorSums()
    gaps = torch.zeros(batch.grid, dtype=torch.bool)
    gaps[..., 1, 1] = True
    for number, each in enumerate((batch, with_gaps(batch, gaps))):
        for step, frame in enumerate(rollout(Broken(), each, 2), start=1):
            sums.add(replace(each, system=str(number)), "rollout", step, frame, each.last)
    found = {(record.system, record.lead): record.errors["nrmse"] for record in sums.records() if record.field == "all"}
    assert math.isnan(found["0", 1]) and math.isnan(found["0", 2])
    assert (found["1", 1], found["1", 2]) == (0, 0)


@pytest.mark.parametrize("lead", [1, 3])
def test_a_model_that_amplifies_its_own_errors_goes_on_by_steps_of_limited_size(lead):
    batch = make_batch()
    frames = torch.stack(list(rollout(Runaway(), batch, 60, lead)))
    changes = (batch.last - batch.history[:, 0]).square().mean(dim=(-3, -2, -1)).sqrt()
    distances = (frames - batch.last).square().mean(dim=(-3, -2, -1)).sqrt()
    steps = torch.arange(1, 61)[:, None, None]
    assert torch.allclose(distances, 4 * changes * steps, rtol=1e-3)


def test_a_field_at_rest_may_begin_to_move_and_a_constant_one_as_well():
    batch = make_batch()
    still = replace(batch, history=batch.history[:, :1].expand(-1, 2, -1, -1, -1, -1))
    (first,) = rollout(LeadTimes(), still, 1)
    # A tenth of its deviation is what a field at rest has for a change; steps are limited to four of them.
    assert torch.allclose(first - still.last, 0.4 * still.last.std(dim=(-3, -2, -1), correction=0, keepdim=True))
    (first,) = rollout(LeadTimes(), replace(still, history=torch.ones_like(still.history)), 1)
    assert torch.equal(first, torch.full_like(first, 2))


class Outburst(Fibonacci):
    """Predicts a change of one per snapshot in a field that is zero, and a hundred times the field in any other."""

    def predict(self, batch):
        return batch.last + batch.lead_time.view(-1, 1, 1, 1, 1) * (100 * batch.last.abs()).clamp(min=1)


@pytest.mark.parametrize("num_frames", [1, 2])
@pytest.mark.parametrize("lead, values", [(1, [1, 5, 9, 13, 17, 21, 25]), (3, [1, 2, 3, 7, 11, 15, 19])])
def test_where_the_history_says_nothing_the_first_change_limits_the_others(lead, values, num_frames):
    batch = make_batch(num_frames)
    frames = rollout(Outburst(), replace(batch, history=torch.zeros_like(batch.history)), 7, lead)
    assert [frame.unique().item() for frame in frames] == values


def largest(history):
    batch, own = FieldBatch("any", [*"abc"][: history.shape[2]], history, torch.ones(3)), slice(0, 3)
    return largest_change(history, OwnCells(described(batch.samples, own), 3, own))


def test_a_constant_field_has_a_limit_of_its_size_where_others_vary():
    history = make_batch().history.repeat(1, 1, 3, 1, 1, 1)
    history[:, :, 1], history[:, :, 2] = -2, 0
    known = largest(history)
    assert (known[:, 0] == largest(history[:, :, :1])[:, 0]).all()
    assert known[:, 1].tolist() == pytest.approx([0.8] * 3) and known[:, 2].isinf().all()
    assert largest(history[:, :1])[:, 1].tolist() == pytest.approx([0.8] * 3)
    assert largest(history[:, :, 1:]).isinf().all()


@law(("value", "predict"), [(0.0, "rate"), (1.0, "field")], quick=[(0.0, "rate")])
def test_a_rollout_from_rest_stays_finite(value, predict):
    model = make_model(PATCHES, torch.float32, predict=predict, num_blocks=1)
    with torch.no_grad():
        model.cells_after.field_out *= 4
    batch = FieldBatch("rest", VOCABULARY, torch.full((1, 2, 3, 1, 16, 16), value), torch.ones(1))
    frames = torch.stack(list(rollout(model, batch, 60)))  # without limits the sizes pass 4 by step 17
    sizes = (frames - value).double().square().mean(dim=(-3, -2, -1)).sqrt()
    assert sizes.isfinite().all() and 0 < sizes[0].min() and sizes.max() < 0.05


@pytest.mark.parametrize(
    ("num_ranks", "names", "network"),
    [
        (3, [*CASES][::2], "matey"),
        pytest.param(3, [*CASES][1::2], "matey", marks=pytest.mark.slow),
        pytest.param(2, [*CASES], "matey", marks=pytest.mark.slow),
        (3, [*CASES][1::2], "paper"),
        pytest.param(4, [*CASES][::2], "paper", marks=pytest.mark.slow),
        pytest.param(2, [*CASES], "paper", marks=pytest.mark.slow),
    ],
    ids=["three", "three_others", "two_all", "three_paper", "four_paper", "two_all_paper"],
)
def test_ranks_that_hold_parts_of_fields_roll_out_as_one_process(num_ranks, names, network):
    command = ("-m", "tests.evaluate.rollout_parts_cases", json.dumps(names), network)
    cases = dict(cases_of(start_ranks(num_ranks, *command, timeout=600)))
    assert [*cases] == names and all(map(math.isfinite, cases.values())), cases
    assert max(cases.values()) < 1e-10, cases
