"""The loss in patch space."""

from dataclasses import replace

import torch

from matey.evaluate.metrics import nrmse
from matey.model.seam import Seam
from matey.train.loss import REST, relative_errors, training_loss
from tests.conftest import VOCABULARY, make_batch, make_model


def test_the_error_in_patch_space_is_that_of_the_assembled_field():
    batch = make_batch("diffusion_reaction", VOCABULARY[1:], 3, dtype=torch.float64)
    (forecast,) = make_model()([batch])
    in_patches = relative_errors(forecast, Seam())
    assert torch.allclose(in_patches, nrmse(forecast.assemble(), batch.target), rtol=1e-10)
    assert (in_patches > 1e-3).all()


def test_relative_to_the_change_persistence_scores_one():
    batch = make_batch(dtype=torch.float64)
    (forecast,) = make_model(trained=False)([batch])
    assert torch.allclose(relative_errors(forecast, Seam(), "change"), torch.ones(2, 1, dtype=torch.float64))


def test_relative_to_the_change_a_system_at_rest_is_measured_by_its_spread():
    batch = make_batch(dtype=torch.float64)
    at_rest = replace(batch, target=batch.last)
    (forecast,) = make_model()([at_rest])
    spread = forecast.scale * at_rest.last[0, 0].numel() ** 0.5
    expected = torch.linalg.vector_norm(forecast.assemble() - batch.last, dim=(2, 3, 4)) / (REST * spread)
    assert torch.allclose(relative_errors(forecast, Seam(), "change"), expected)


def test_a_perfect_prediction_has_a_finite_gradient():
    batch = make_batch(dtype=torch.float64)
    model = make_model(trained=False)
    forecasts = model([replace(batch, target=batch.last)])
    training_loss(forecasts, Seam(), "nrmse")[0].backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_samples_of_all_systems_count_alike():
    batches = [make_batch(num_samples=1), make_batch("diffusion_reaction", VOCABULARY[1:], 3)]
    loss, per_sample = training_loss(make_model(dtype=torch.float32)(batches), Seam(), "nrmse")
    assert per_sample.shape == (4,)
    assert torch.allclose(loss, per_sample.mean())
