import numpy as np
import pytest
import torch

from matey.metrics import NRMSE_EPSILON, correlation, nrmse, vrmse
from matey.tokens.normalisation import TINY


def field(*cells):
    return torch.tensor(cells, dtype=torch.float64).reshape(1, 1, 1, 1, -1)


@pytest.mark.parametrize("metric", [nrmse, vrmse, correlation])
def test_each_sample_and_field_has_an_error_of_its_own(metric):
    torch.manual_seed(0)
    prediction, target = torch.randn(2, 3, 4, 2, 5, 6)
    errors = metric(prediction, target)
    assert errors.shape == (3, 4)
    assert torch.allclose(errors[1:2, 2:3], metric(prediction[1:2, 2:3], target[1:2, 2:3]))


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_nrmse_does_not_depend_on_the_unit(unit):
    prediction, target = field(1, 2, 4), field(1, 3, 5)
    assert nrmse(unit * prediction, unit * target).item() == pytest.approx(nrmse(prediction, target).item(), rel=1e-6)


def test_a_zero_field_predicted_at_the_normalisation_floor_has_an_error_of_order_one():
    zero = torch.zeros(1, 1, 1, 4, 4)
    assert nrmse(torch.full_like(zero, TINY), zero).item() == pytest.approx(TINY / NRMSE_EPSILON)
    assert nrmse(zero, zero).item() == 0


def test_nrmse_of_an_exact_prediction_has_a_finite_gradient():
    prediction = torch.ones(1, 1, 1, 2, 2, requires_grad=True)
    nrmse(prediction, torch.ones(1, 1, 1, 2, 2)).sum().backward()
    assert prediction.grad.isfinite().all()


def test_the_correlation_is_that_of_numpy_in_any_unit():
    prediction, target = torch.randn(2, 2, 3, 1, 5, 6)
    for unit, shift in ((1.0, 0.0), (1e-3, 1e-3), (1e5, -1e6)):
        found = correlation(unit * prediction.double() + shift, target)
        for sample, field in np.ndindex(2, 3):
            pair = (f[sample, field].numpy().ravel() for f in (prediction, target))
            assert found[sample, field].item() == pytest.approx(np.corrcoef(*pair)[0, 1], rel=1e-6)


def test_constant_fields_correlate_with_each_other_alone():
    assert correlation(field(2, 2), field(5, 5)).item() == 1
    assert correlation(field(1, 2), field(5, 5)).item() == pytest.approx(0, abs=1e-6)
    assert correlation(field(2, 2), field(5, 6)).item() == pytest.approx(0, abs=1e-6)
