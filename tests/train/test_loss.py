"""The loss in patch space."""

from dataclasses import replace

import pytest
import torch

from matey.evaluate.metrics import nrmse
from matey.model.seam import Seam
from matey.train.loss import nrmse_of, training_loss
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
    training_loss(forecasts, Seam(), {"shallow_water": 1.0})[0].backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_samples_of_all_systems_count_alike_in_units_of_their_scale():
    batches = [make_batch(num_samples=1), make_batch("diffusion_reaction", VOCABULARY[1:], 3)]
    forecasts = make_model(dtype=torch.float32)(batches)
    loss, per_sample = training_loss(forecasts, Seam(), {"shallow_water": 0.5, "diffusion_reaction": 1.0})
    plain = torch.cat([error.mean(dim=1) for error in nrmse_of(forecasts, Seam())])
    assert torch.allclose(per_sample, plain * torch.tensor([2.0, 1.0, 1.0, 1.0]))
    assert torch.allclose(loss, per_sample.mean())
