"""Forecasts by a model that is told a forcing and parameters."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import matey
from matey.data import DataError, TrajectorySet, open_dataset
from matey.evaluate.evaluation import Protocol, evaluate
from matey.evaluate.held_out import HeldOut
from matey.fields import FieldBatch
from tests.support.evaluations import plan_tasks
from tests.support.models import PATCHES, make_model
from tests.support.small_files import write_waves

FIELDS = ("water_height", "wind", "depth")


@pytest.fixture(scope="module")
def model():
    model = make_model(PATCHES, torch.float32, fields=FIELDS, given=FIELDS[1:], parameters=("gravity",))
    torch.nn.init.normal_(model.told.contract.weight, std=0.1)
    return model


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    waves = open_dataset(write_waves(tmp_path_factory.mktemp("swe"), "shallow_water", num_frames=12))
    height = np.stack([waves.read(number, 0, 12)[:, 0, 0] for number in range(3)])
    wind = np.random.default_rng(0).normal(size=height.shape)
    return TrajectorySet.from_arrays(
        "waves", {"water_height": height}, spacing=(1, 1), boundary=("open", "open"),
        given={"wind": wind, "depth": wind[:, 0], "unknown": wind * np.nan}, parameters={"gravity": 1.0},
    )  # fmt: skip


def by_hand(model, data, start, steps):
    """A rollout in steps of one of the first trajectory, with a batch made anew for every step."""
    known = list(torch.from_numpy(data.read(0, start, start + 2)))
    data = data.with_given(FIELDS)
    for step in range(steps):
        given = torch.from_numpy(data.read_given(0, start + step, start + step + 3))[None]
        batch = FieldBatch(
            "waves", data.fields, torch.stack(known[-2:])[None], torch.ones(1), given_fields=data.given,
            given=given, parameters={"gravity": 1.0},
        )  # fmt: skip
        known.append(model.predict(batch)[0])
        yield known[-1]


def test_a_forecast_sees_at_each_step_what_is_given_then(model, data, monkeypatch):
    monkeypatch.setattr("matey.evaluate.rollout.MAX_GROWTH", torch.inf)
    frames = list(matey.forecast(model, data, steps=4, start=1, trajectories=[0]))
    for frame, expected in zip(frames, by_hand(model, data, 1, 4), strict=True):
        assert torch.allclose(frame.values[0], expected, rtol=0, atol=1e-4)


def test_a_forecast_that_goes_on_after_a_break_is_the_same(model, data, tmp_path):
    class Broken(Exception):
        pass

    def stop(num_frames):
        if num_frames:
            raise Broken

    whole = matey.forecast(model, data, steps=5, lead=2, batch_size=2)
    with pytest.raises(Broken), pytest.MonkeyPatch.context() as patched:
        patched.setattr("matey.evaluate.forecasts.series.STRETCH_BYTES", 4 * 256 * 4)  # four frames at a time
        whole.write(tmp_path / "a.h5", on_frames=stop)
    whole.write(tmp_path / "a.h5")
    whole.write(tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes()[-10_000:] == (tmp_path / "b.h5").read_bytes()[-10_000:]


def test_a_forcing_must_be_known_as_far_as_the_forecast_goes(model, data):
    with pytest.raises(DataError, match="expected wind, which the model is given, up to frame 12, got 12 frames"):
        list(matey.forecast(model, data, steps=11))
    endless = list(matey.forecast(model, data.with_given(["depth"]), steps=11, trajectories=[1]))
    assert len(endless) == 11


@pytest.mark.whole
def test_an_evaluation_reads_what_the_model_is_told_and_no_more(model, data):
    protocol = Protocol(leads=(3,), rollout_steps=2, max_windows=1, rollout_lead=2)
    held_out = HeldOut((data,), ((0, 2),), num_frames=2)
    found = evaluate(model, held_out, protocol, plan_tasks(model, held_out, protocol))
    assert {record.field for record in found.records} == {"water_height", "all"}
    untold = replace(held_out, sets=(data.with_given([]),))
    others = evaluate(model, untold, protocol, plan_tasks(model, untold, protocol))
    assert [record.vrmse for record in found.records] != [record.vrmse for record in others.records]
