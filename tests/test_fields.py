"""The nouns that data and model share."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from matey import FieldBatch
from tests.support.models import make_batch


def test_shapes_that_contradict_each_other_are_refused():
    history = torch.zeros(2, 3, 1, 1, 8, 8)
    with pytest.raises(ValueError, match="holds 1 fields, but 2 are named"):
        FieldBatch("s", ("a", "b"), history, torch.ones(2))
    with pytest.raises(ValueError, match=r"lead_time must be \(2,\)"):
        FieldBatch("s", ("a",), history, torch.ones(3))
    with pytest.raises(ValueError, match=r"target must be \(2, 1, 1, 8, 8\)"):
        FieldBatch("s", ("a",), history, torch.ones(2), torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"\(b, t, f, z, y, x\)"):
        FieldBatch("s", ("a",), torch.zeros(2, 3, 1, 8, 8), torch.ones(2))


def test_arrays_and_a_single_lead_time_become_tensors_of_their_precision():
    random = np.random.default_rng(0)
    history, target = random.normal(size=(2, 3, 1, 1, 8, 8)), random.normal(size=(2, 1, 1, 8, 8))
    batch = FieldBatch("s", ["a"], history, 2, target.astype(np.float32)[..., ::-1])
    assert (batch.history.dtype, batch.target.dtype) == (torch.float64, torch.float32) and batch.fields == ("a",)
    assert batch.lead_time.tolist() == [2, 2] and batch.to("cpu").history.equal(torch.from_numpy(history))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"history": "a text"}, "history must be a tensor or an array of numbers, got str; convert it"),
        ({"history": torch.zeros(1, 2, 1, 1, 4, 4, dtype=torch.int32)}, "must hold real numbers, got int32; .*float"),
        ({"fields": "a"}, r"fields must be names such as \('a',\), got the text 'a'"),
        ({"lead_time": float("nan")}, "lead_time must be above 0 and finite"),
        ({"periodic": "yes"}, "periodic must be True or False for each of z, y, x, got 'yes'"),
        ({"target": torch.full((1, 1, 1, 4, 4), torch.nan)}, "target must be finite"),
        ({"history": torch.zeros(0, 2, 1, 1, 4, 4)}, "history holds no sample"),
        ({"parameters": [0.1]}, "parameters must be numbers by name, such as {'viscosity': 0.1}, got list"),
    ],
)
def test_what_cannot_be_a_batch_is_a_sentence(changes, words):
    given = {"system": "s", "fields": ("a",), "history": torch.zeros(1, 2, 1, 1, 4, 4), "lead_time": 1}
    with pytest.raises(ValueError, match=words):
        FieldBatch(**given | changes)


def test_masks_and_whole_numbers_become_the_type_of_the_history():
    history = torch.zeros(1, 2, 1, 1, 4, 4, dtype=torch.float64)
    mask, target = torch.ones(1, 1, 1, 1, 4, 4, dtype=torch.bool), np.full((1, 1, 1, 4, 4), 3)
    batch = FieldBatch("s", ("a",), history, 1, target, given_fields=("land",), given=mask)
    assert batch.given.dtype == batch.target.dtype == torch.float64
    assert (batch.given == 1).all() and (batch.target == 3).all()


def test_a_history_that_is_not_finite_is_refused_but_not_one_that_a_model_made():
    history = torch.zeros(2, 3, 1, 1, 8, 8)
    batch = FieldBatch("s", ("a",), history, 1)
    broken = history.clone()
    broken[1, 2, 0, 0, 4, 5] = torch.nan
    with pytest.raises(ValueError, match=r"'a' is nan in sample 1, frame 2, at \(z, y, x\) = \(0, 4, 5\)"):
        FieldBatch("s", ("a",), broken, 1)
    assert batch.with_tensors(history=broken).history is broken
    with pytest.raises(ValueError, match="holds 2 fields, but 1 are named"):
        batch.with_tensors(history=torch.zeros(2, 3, 2, 1, 8, 8))


def test_cells_that_are_nan_in_every_frame_hold_no_data_and_other_nan_is_refused():
    batch = make_batch(frames=2, grid=(1, 4, 6))
    history, target = batch.history.clone(), batch.target.clone()
    history[0, :, :, :, 1:3, 2:] = target[0, :, :, 1:3, 2:] = torch.nan
    assert replace(batch, history=history, target=target).history is history
    for wrong in ({"target": target}, {"history": history}, {"history": history[:, :1].expand(-1, 3, -1, -1, -1, -1)}):
        with pytest.raises(ValueError, match="^(target|history) must be (finite|NaN in the same cells of all frames)"):
            replace(batch, **wrong)
    history[1, 1, 0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="same cells of all frames, .* is nan in sample 1, frame 1"):
        replace(batch, history=history, target=target)


def test_numbers_whose_squares_leave_the_range_of_float32_are_refused():
    history = torch.full((1, 2, 1, 1, 4, 4), 1e15)
    assert FieldBatch("s", ("a",), history, 1).history.square().sum().isfinite()
    history[0, 1, 0, 0, 0, 1] = 1e19
    with pytest.raises(ValueError, match=r"must be at most 1e\+15, in larger units if need be, but 'a' is 9.99.*e\+18"):
        FieldBatch("s", ("a",), history, 1)


def told(**changes):
    batch = make_batch(num_samples=2, frames=2, grid=(1, 4, 4))
    about = {"given_fields": ("force",), "given": torch.zeros(2, 5, 1, 1, 4, 4), "parameters": {"nu": 0.5}}
    return replace(batch, **{**about, **changes})


def test_a_batch_moves_on_with_what_is_given_as_far_as_that_is_known():
    batch = told(given=torch.arange(5.0)[None, :, None, None, None, None].expand(2, -1, 1, 1, 4, 4))
    later = batch.moved_on(batch.target[:, None])
    assert torch.equal(later.history, torch.stack([batch.last, batch.target], dim=1))
    assert later.given[0, :, 0, 0, 0, 0].tolist() == [1, 2, 3, 4]
    assert batch.moved_on(batch.history, 2).given.shape[1] == 3
    with pytest.raises(ValueError, match="force: given up to 3 frames after the history, and 4 are needed"):
        batch.moved_on(batch.history, 3)
    still = told(given=torch.zeros(2, 1, 1, 1, 4, 4))
    assert still.moved_on(batch.history, 99).given.shape[1] == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"given": None}, "given must be .* named by given_fields, got shape \\(\\)"),
        ({"given": torch.zeros(2, 2, 1, 1, 4, 4)}, "with 1 frame, or those of the history, 2, and further ones"),
        ({"given_fields": ("water_height",)}, "predicted or given, not both; got water_height"),
        ({"parameters": {"nu": [0.1, 0.2, 0.3]}}, "'nu' must be a finite number or 2 of them"),
    ],
)
def test_what_a_batch_cannot_be_told_is_a_sentence(changes, words):
    with pytest.raises(ValueError, match=words):
        told(**changes)
