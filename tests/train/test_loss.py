"""The loss in patch space."""

from dataclasses import replace

import pytest
import torch

from matey.metrics import nrmse
from matey.model.seam import Seam
from matey.train.loss import LossScale, nrmse_of, training_loss
from tests.conftest import VOCABULARY, make_batch, make_model


@pytest.mark.parametrize("token_set", ["mix", "mul"])
@pytest.mark.parametrize("grid", [(1, 32, 32), (1, 23, 38)])
def test_the_error_in_patch_space_is_that_of_the_assembled_field(token_set, grid):
    batch = make_batch("diffusion_reaction", VOCABULARY[1:], 3, grid=grid, dtype=torch.float64)
    (forecast,) = make_model(token_set=token_set)([batch])
    (in_patches,) = nrmse_of([forecast], Seam())
    assert torch.allclose(in_patches, nrmse(forecast.field(Seam()), batch.target), rtol=1e-10)
    assert (in_patches > 1e-3).all()


def test_a_perfect_prediction_has_a_finite_gradient():
    batch = make_batch(dtype=torch.float64)
    model = make_model(trained=False)
    forecasts = model([replace(batch, target=batch.last)])
    training_loss(forecasts, Seam(), {"shallow_water": LossScale()})[0].backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("leads", [[1, 3, 10], [2, 4], [5]])
def test_a_scale_goes_through_the_errors_given_at_the_shortest_and_the_longest_lead(leads):
    errors = {lead: 0.03 + 0.02 * lead**0.7 for lead in leads}
    scale = LossScale.through(errors)
    ends = [min(leads), max(leads)]
    assert scale.at(torch.tensor(ends).double()).tolist() == pytest.approx([errors[lead] for lead in ends])
    between = scale.at(torch.arange(ends[0], ends[1] + 1).double()).diff()
    assert (between > 0).all() or len(leads) == 1


def test_a_scale_goes_through_the_errors_of_all_leads_where_they_follow_a_power():
    errors = {lead: 0.03 * lead**0.6 for lead in (1, 2, 5, 9)}
    at = LossScale.through(errors).at(torch.tensor(list(errors)).double())
    assert at.tolist() == pytest.approx(list(errors.values()))
    assert LossScale().at(torch.tensor([1.0, 7.0])).tolist() == [1, 1]


def test_each_sample_counts_in_units_of_the_scale_at_its_lead_time():
    batch = replace(make_batch(num_samples=3, dtype=torch.float64), lead_time=torch.tensor([1, 2, 4]))
    forecasts = make_model()([batch])
    _, per_sample = training_loss(forecasts, Seam(), {"shallow_water": LossScale(0.5, power=1.0)})
    (plain,) = nrmse_of(forecasts, Seam())
    assert torch.allclose(per_sample, plain.mean(dim=1) / torch.tensor([0.5, 1.0, 2.0]))


def test_samples_of_all_systems_count_alike_in_units_of_their_scale():
    batches = [make_batch(num_samples=1), make_batch("diffusion_reaction", VOCABULARY[1:], 3)]
    forecasts = make_model(dtype=torch.float32)(batches)
    loss, per_sample = training_loss(
        forecasts, Seam(), {"shallow_water": LossScale(0.5), "diffusion_reaction": LossScale()}
    )
    plain = torch.cat([error.mean(dim=1) for error in nrmse_of(forecasts, Seam())])
    assert torch.allclose(per_sample, plain * torch.tensor([2.0, 1.0, 1.0, 1.0]))
    assert torch.allclose(loss, per_sample.mean())
