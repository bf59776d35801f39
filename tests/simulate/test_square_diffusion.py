"""Implicit diffusion on the square satisfies its equations, walls included."""

import pytest
import torch

from matey.simulate.square_diffusion import NoSlipDiffusion, ScalarDiffusion, SineTransform

NUM_NODES, SPACING = 9, 0.1


def minus_laplacian(field):
    """Of a field at all nodes, at the interior ones."""
    neighbours = field[2:, 1:-1] + field[:-2, 1:-1] + field[1:-1, 2:] + field[1:-1, :-2]
    return (4 * field[1:-1, 1:-1] - neighbours) / SPACING**2


def random_source():
    return torch.rand(NUM_NODES, NUM_NODES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def with_walls(field):
    return torch.nn.functional.pad(field, (1, 1, 1, 1))


@pytest.mark.parametrize("amount", [1e-6, 1e-3, 10.0])
def test_scalar_satisfies_its_equation(amount):
    source = random_source()
    field = ScalarDiffusion(SineTransform(NUM_NODES), amount).solve(source)
    torch.testing.assert_close(field + amount * minus_laplacian(with_walls(field)), source, rtol=0, atol=1e-11)


@pytest.mark.parametrize("amount", [1e-6, 1e-3, 10.0])
def test_vorticity_satisfies_its_equation_with_thoms_formula_on_the_walls(amount):
    source = random_source()
    stream = with_walls(NoSlipDiffusion(SineTransform(NUM_NODES), amount).solve(source))
    vorticity = with_walls(minus_laplacian(stream))
    # A wall's neighbour beyond it mirrors the one inside, so that no flow slips along the wall.
    vorticity[0], vorticity[-1] = -2 * stream[1] / SPACING**2, -2 * stream[-2] / SPACING**2
    vorticity[1:-1, 0], vorticity[1:-1, -1] = -2 * stream[1:-1, 1] / SPACING**2, -2 * stream[1:-1, -2] / SPACING**2
    solved = vorticity[1:-1, 1:-1] + amount * minus_laplacian(vorticity)
    torch.testing.assert_close(solved, source, rtol=0, atol=1e-10)
