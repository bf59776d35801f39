"""Forecasts of a batch that go on after a break."""

import pytest
import torch

import matey
from matey.data import TrajectorySet
from matey.evaluate.forecasts.frames import forecast_batch
from tests.support.laws import law
from tests.support.models import PATCHES, VOCABULARY, make_batch, make_model

STEPS, DONE = 7, 4


@pytest.mark.parametrize("lead, read", [(1, (2, 4)), (3, (1, 3))])
@law(
    ("still", "looked_at"), [((), []), ((0, 1), [(0, 1)]), ((0, 1, 2), [(0, 1)])], quick=[((), []), ((0, 1), [(0, 1)])]
)
def test_a_forecast_goes_on_as_without_a_break_and_reads_no_more_than_it_needs(lead, read, still, looked_at):
    history = make_batch(fields=VOCABULARY, grid=(1, 16, 16)).history
    history[:, :, still] = 0
    fields = {name: history[:, :, at] for at, name in enumerate(VOCABULARY)}
    data = TrajectorySet.from_arrays("cells", fields, spacing=(1.0,) * 3, boundary=("open",) * 3)
    model = make_model(PATCHES, torch.float32, num_blocks=1)
    request = matey.forecast(model, data, steps=STEPS, lead=lead, history=2).request
    whole = torch.stack([frame.values for frame in forecast_batch(model, request, 0, 2, 0)], dim=1)
    were_read = []

    def earlier(first, end, start, stop):
        were_read.append((start, stop))
        return whole[first:end, start:stop].numpy()

    rest = [frame.values for frame in forecast_batch(model, request, 0, 2, DONE, earlier)]
    assert torch.equal(torch.stack(rest, dim=1), whole[:, read[1] :])
    assert were_read == [*looked_at, read]


def test_a_forecast_that_conserves_goes_on_as_without_a_break():
    gas = ("velocity_x", "velocity_y", "density", "pressure")
    history = make_batch(fields=gas, grid=(1, 16, 16)).history
    fields = {name: history[:, :, at] for at, name in enumerate(gas)}
    told = {"spacing": (1.0,) * 3, "boundary": ("open", "periodic", "periodic")}
    data = TrajectorySet.from_arrays("compressible_rand", fields, **told)
    model = make_model(PATCHES, torch.float32, num_blocks=1, fields=gas)

    def forecast(conserve):
        return matey.forecast(model, data, steps=STEPS, lead=2, conserve=conserve, history=2)

    def request(conserve):
        return forecast(conserve).request

    assert forecast(True).facts["forecast"].endswith("with the totals kept of mass, momentum, energy")
    assert "totals" not in forecast(False).facts["forecast"]
    whole = torch.stack([frame.values for frame in forecast_batch(model, request(True), 0, 2, 0)], dim=1)
    unbound = torch.stack([frame.values for frame in forecast_batch(model, request(False), 0, 2, 0)], dim=1)
    drift, freely = (each[:, :, 2].mean(dim=(0, 2, 3, 4)) - history[:, -1, 2].mean() for each in (whole, unbound))
    assert drift.abs().max() < 1e-6 < freely.abs().max()

    def earlier(first, end, start, stop):
        return whole[first:end, start:stop].numpy()

    rest = [frame.values for frame in forecast_batch(model, request(True), 0, 2, DONE, earlier)]
    assert torch.equal(torch.stack(rest, dim=1), whole[:, DONE:])
