"""The transform against its defining sum."""

import math

import pytest
import torch

from matey.simulate.cosine_transform import cosine, inverse_cosine


@pytest.mark.parametrize("size", [8, 9])
def test_transform_is_the_sum_of_cosines_and_has_an_inverse(size):
    field = torch.rand(3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    index = torch.arange(size, dtype=torch.float64)
    cosines = torch.cos(math.pi * torch.outer(index, index + 0.5) / size)  # (k, x)
    torch.testing.assert_close(cosine(field), torch.einsum("kx,bxy,ly->bkl", cosines, field, cosines))
    torch.testing.assert_close(inverse_cosine(cosine(field)), field)
