"""The loss in patch space."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from matey.config import ConfigError
from matey.metrics import nrmse, vrmse
from matey.model.prepare import prepare
from matey.model.sequence_group import RankGroup, SequenceGroup
from matey.train.ahead import for_loss
from matey.train.loss import GRADIENT, NRMSE, LossScale, errors_of, training_loss, vrmse_of
from tests.support.laws import law
from tests.support.models import VOCABULARY, make_batch, make_model


@law("token_set", ["mix", "mul"], quick=["mul"])
@law("grid", [(1, 32, 32), (1, 23, 38)], quick=[(1, 23, 38)])
def test_the_error_in_patch_space_is_that_of_the_assembled_field(token_set, grid):
    batch = make_batch("diffusion_reaction", VOCABULARY[1:], 3, grid=grid, dtype=torch.float64)
    (forecast,) = make_model(set=token_set)([batch])
    (in_patches,) = errors_of([forecast], SequenceGroup())
    assert torch.allclose(in_patches, nrmse(forecast.field(), batch.target), rtol=1e-10)
    assert torch.allclose(make_model(set=token_set)(batch).loss, in_patches.mean(), rtol=1e-10)
    (by_deviation,) = vrmse_of([forecast], SequenceGroup())
    assert torch.allclose(by_deviation, vrmse(forecast.field(), batch.target), rtol=1e-8)
    assert (in_patches > 1e-3).all()


def test_cells_without_data_change_no_loss_and_are_nan_in_forecasts():
    batch = make_batch("diffusion_reaction", VOCABULARY[1:], 3, grid=(1, 32, 32), dtype=torch.float64)
    gaps = torch.zeros(3, 1, 1, 32, 32, dtype=torch.bool)
    gaps[0, ..., 5:] = gaps[1, ..., :9, 3:20] = True
    history, target = batch.history.masked_fill(gaps[:, None], torch.nan), batch.target.masked_fill(gaps, torch.nan)
    for settings in ({}, {"set": "mul", "network": "paper", "predict": "field"}):
        model = make_model(**settings)
        (forecast,) = model([replace(batch, history=history, target=target)])
        field, (errors,) = forecast.field().detach().numpy(), errors_of([forecast], SequenceGroup())
        assert (np.isnan(field) == np.broadcast_to(gaps, field.shape)).all()
        missed, true = np.where(gaps, 0, field - batch.target.numpy()), np.where(gaps, 0, batch.target)
        by_hand = np.sqrt((missed**2).sum((2, 3, 4)) / (true**2).sum((2, 3, 4)))
        np.testing.assert_allclose(errors.detach(), by_hand, rtol=1e-10)
        np.testing.assert_allclose(nrmse(forecast.field(), target).detach(), by_hand, rtol=1e-10)
        (by_deviation,) = vrmse_of([forecast], SequenceGroup())
        np.testing.assert_allclose(by_deviation.detach(), vrmse(forecast.field(), target).detach(), rtol=1e-8)
        errors.mean().backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients) and any(each.any() for each in gradients)
        # The sample with data everywhere has the forecast that it has alone.
        alone = batch.with_tensors(**{name: getattr(batch, name)[2:] for name in ("history", "target", "lead_time")})
        np.testing.assert_allclose(field[2:], model(alone)[0].field().detach(), rtol=1e-12)
    with pytest.raises(
        ConfigError, match="looks at neighbouring cells, and some cells of diffusion_reaction hold no data"
    ):
        errors_of([forecast], SequenceGroup(), GRADIENT)


def test_a_perfect_prediction_has_a_finite_gradient():
    batch = make_batch(dtype=torch.float64)
    model = make_model(trained=False)
    forecasts = model([replace(batch, target=batch.last)])
    training_loss(forecasts, SequenceGroup(), {"shallow_water": LossScale()})[0].backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_scale_goes_through_the_errors_of_all_leads_where_they_follow_a_power():
    errors = {lead: 0.03 * lead**0.6 for lead in (1, 2, 5, 9)}
    both = torch.tensor([*errors.values()]).double(), torch.tensor([*errors]).double()
    assert LossScale.through(errors, {}).loss(both[0][:, None], both[1]).tolist() == pytest.approx([1] * 4)
    assert LossScale().loss(torch.ones(2, 3), torch.tensor([1.0, 7.0])).tolist() == [1, 1]
    weighted = LossScale(0.5, weights={"heat": 30.0})
    assert weighted.loss(torch.tensor([[0.2, 0.01]]), torch.ones(1), ("speed", "heat")).item() == 0.5


def test_each_sample_counts_in_units_of_the_scale_at_its_lead_time():
    batch = replace(make_batch(num_samples=3, dtype=torch.float64), lead_time=torch.tensor([1, 2, 4]))
    forecasts = make_model()([batch])
    _, per_sample = training_loss(forecasts, SequenceGroup(), {"shallow_water": LossScale(0.5, power=1.0)})
    (plain,) = errors_of(forecasts, SequenceGroup())
    assert torch.allclose(per_sample, plain.mean(dim=1) / torch.tensor([0.5, 1.0, 2.0]))
    read = [batch.lead_time + 4]  # the history was rolled out by four frames
    _, per_sample = training_loss(forecasts, SequenceGroup(), {"shallow_water": LossScale(0.5, power=1.0)}, NRMSE, read)
    assert torch.allclose(per_sample, plain.mean(dim=1) / torch.tensor([2.5, 3.0, 4.0]))


def test_a_field_that_comes_to_rest_is_measured_by_what_it_was():
    batch = make_batch(dtype=torch.float64)
    batch = replace(batch, target=torch.zeros_like(batch.target))
    (forecast,) = make_model()([batch])
    deviation = batch.history.std(dim=(1, 3, 4, 5), correction=0)
    expected = forecast.field().square().mean(dim=(2, 3, 4)).sqrt() / (0.01 * deviation)
    for found in (*errors_of([forecast], SequenceGroup()), *vrmse_of([forecast], SequenceGroup())):
        assert torch.allclose(found, expected, rtol=2e-3)  # VRMSE has the unbiased deviation


def slopes(fields, periodic, axis):
    """Half the difference between the neighbours of each cell along an axis; its own value beyond an end."""
    if periodic:
        return (fields.roll(-1, axis) - fields.roll(1, axis)) / 2
    first, last = fields.narrow(axis, 0, 1), fields.narrow(axis, fields.shape[axis] - 1, 1)
    held = torch.cat([first, fields, last], dim=axis)
    return (held.narrow(axis, 2, fields.shape[axis]) - held.narrow(axis, 0, fields.shape[axis])) / 2


@law("token_set", ["mix", "mul"], quick=["mul"])
@pytest.mark.parametrize(
    ("grid", "periodic"), [((1, 32, 48), (False, True, False)), ((1, 23, 38), (False, False, False))]
)
def test_the_gradient_loss_from_tiles_is_that_of_the_whole_field(token_set, grid, periodic):
    batch = replace(
        make_batch("diffusion_reaction", VOCABULARY[1:], 3, grid=grid, dtype=torch.float64), periodic=periodic
    )
    (forecast,) = make_model(set=token_set)([batch])
    (from_tiles,) = errors_of([forecast], SequenceGroup(), GRADIENT)
    parts = []
    for fields in (forecast.field() - batch.target, batch.target):
        squares = [(4 * slopes(fields, periodic[axis - 2], axis)).square() for axis in (3, 4)]
        parts.append((fields.square() + sum(squares)).sum(dim=(2, 3, 4)))
    assert torch.allclose(from_tiles, (parts[0] / parts[1]).sqrt(), rtol=1e-10)
    assert torch.allclose(from_tiles, GRADIENT.of_frame(forecast.field(), batch), rtol=1e-10)


def test_the_gradient_loss_in_boxes_is_that_of_the_whole_field_planned_ahead_or_not():
    batch = replace(make_batch(grid=(1, 32, 23), dtype=torch.float64), periodic=(False, True, False))
    model = make_model()
    ahead = for_loss(prepare([batch], model.config), GRADIENT, RankGroup())
    for given in ([batch], ahead):
        (forecast,) = model(given)
        (found,) = errors_of([forecast], SequenceGroup(), GRADIENT)
        assert (forecast.halo is None) == (given is not ahead)
        assert torch.allclose(found, GRADIENT.of_frame(forecast.field(), batch), rtol=1e-10)


@pytest.mark.parametrize(("frames", "size"), [(1, 1e-6), (2, 1e6)])
def test_a_field_that_was_zero_until_now_has_the_error_of_the_assembled_field(frames, size):
    batch = make_batch(frames=frames)
    batch = replace(batch, history=torch.zeros_like(batch.history), target=size * batch.target)
    model = make_model(dtype=torch.float32, history=frames)
    forecasts = model([batch])
    (error,) = errors_of(forecasts, SequenceGroup())
    assert torch.allclose(error, nrmse(forecasts[0].field(), batch.target), rtol=1e-5)
    assert torch.allclose(error, torch.ones(()), atol=1e-5)
    training_loss(forecasts, SequenceGroup(), {"shallow_water": LossScale()})[0].backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize(("scheme", "token_set"), [("vit", "mul"), ("svit", "uniform"), ("avit", "mix")])
def test_a_step_looks_at_no_value_and_makes_nothing_on_another_device(scheme, token_set):
    patches = ((1, 1, 16, 16), (1, 1, 4, 4)) if token_set != "uniform" else ((1, 1, 8, 8),)
    told = {"given": ("force",), "parameters": ("viscosity",), "drop_path": 0.2}
    model = make_model(
        patches, set=token_set, scheme=scheme, dtype=torch.float32, fields=(*VOCABULARY, "force"), **told
    )
    batch = replace(make_batch(grid=(1, 32, 24)), draw=torch.arange(2), parameters={"viscosity": torch.tensor(1e-3)})
    batch = replace(batch, given_fields=("force",), given=batch.history[:, :1])
    for loss in (NRMSE, GRADIENT):
        ready = for_loss(prepare([batch], model.config), loss, RankGroup()).to("meta")
        forecasts = model.to("meta").train()(ready)  # of tensors that have a shape, and no values
        training_loss(forecasts, SequenceGroup(), {"shallow_water": LossScale()}, loss)[0].backward()
    assert all(parameter.grad.device.type == "meta" for parameter in model.parameters())
