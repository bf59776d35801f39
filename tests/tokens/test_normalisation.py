"""Statistics of a sample, in physical units."""

import pytest
import torch

from matey.tokens.normalisation import SMALLEST_CHANGE, normalisation_of


def history(*shape, seed=0):
    return 5 + 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_normalised_fields_have_mean_zero_and_variance_one():
    values = history(2, 4, 3, 1, 8, 8)
    normalised = normalisation_of(values).apply(values)
    assert normalised.mean(dim=(1, 3, 4, 5)).abs().max() < 1e-12
    assert torch.allclose(normalised.square().mean(dim=(1, 3, 4, 5)), torch.ones(2, 3).double())


def test_the_change_is_the_root_mean_square_between_the_last_two_frames():
    values = history(2, 4, 3, 1, 8, 8)
    expected = (values[:, 3] - values[:, 2]).square().mean(dim=(2, 3, 4)).sqrt()
    assert torch.allclose(normalisation_of(values).change, expected)


def test_a_single_frame_shows_no_change_and_its_deviation_stands_for_it():
    found = normalisation_of(history(2, 1, 3, 1, 8, 8))
    assert torch.equal(found.change, found.std)


def test_a_field_that_rests_has_no_change_of_rounding_blown_up():
    values = history(1, 1, 1, 1, 8, 8).repeat(1, 3, 1, 1, 1, 1)
    found = normalisation_of(values)
    assert torch.equal(found.change, SMALLEST_CHANGE * found.std) and (found.change > 0).all()


@pytest.mark.parametrize("name", ["std", "change"])
def test_scales_go_with_the_unit_and_not_with_its_zero(name):
    values = history(2, 3, 2, 1, 8, 8)
    one, other = normalisation_of(values), normalisation_of(1000 * values + 7)
    assert torch.allclose(getattr(other, name), 1000 * getattr(one, name), rtol=1e-10)
