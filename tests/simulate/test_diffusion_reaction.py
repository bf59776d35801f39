"""FitzHugh-Nagumo against the published solver, linear theory and its own conservation laws."""

import math

import numpy as np
import pytest
import torch

from matey.simulate.diffusion_reaction import fitzhugh_nagumo, laplacian, white_noise


@pytest.mark.whole
def test_fields_agree_with_the_published_solver_at_every_frame(published_diffusion_reaction, read_trajectories):
    _, published = read_trajectories(published_diffusion_reaction)
    published = torch.from_numpy(np.stack(published)).double().movedim(-1, 2)  # (b, t, f, y, x)
    times = torch.linspace(0, 5, 101, dtype=torch.float64)
    error = (fitzhugh_nagumo(published[:, 0], times) - published).norm(dim=(3, 4)) / published.norm(dim=(3, 4))
    assert error.max() < 0.002


def test_noise_is_that_of_the_published_seed(published_diffusion_reaction, read_trajectories):
    settings, published = read_trajectories(published_diffusion_reaction)
    for setting, trajectory in zip(settings, published, strict=True):
        noise = white_noise(setting["seed"], setting["xdim"]).movedim(0, -1)
        np.testing.assert_array_equal(noise.float().numpy(), trajectory[0])


def test_small_cosine_about_the_fixed_point_follows_linear_theory():
    resolution, wave_y, wave_x, amplitude = 24, 2, 3, 1e-6
    fixed_point = -(0.005 ** (1 / 3))  # u = v and u^3 = -k
    centres = torch.arange(resolution, dtype=torch.float64) + 0.5
    cosine = torch.outer(
        (math.pi * wave_y / resolution * centres).cos(), (math.pi * wave_x / resolution * centres).cos()
    )
    initial = fixed_point + amplitude * torch.stack((cosine, -2 * cosine))
    times = torch.tensor([0.0, 1.3, 2.0], dtype=torch.float64)
    measured = ((fitzhugh_nagumo(initial[None], times)[0] - fixed_point) * cosine).sum((2, 3)) / cosine.square().sum()

    # The five-point Laplacian's eigenvalue between closed walls, cells of size 2 / resolution.
    squared = sum((resolution / 2) ** 2 * (2 - 2 * math.cos(math.pi * wave / resolution)) for wave in (wave_y, wave_x))
    growth = torch.tensor(
        [[1 - 3 * fixed_point**2 - 1e-3 * squared, -1.0], [1.0, -1 - 5e-3 * squared]], dtype=torch.float64
    )
    start = torch.tensor([amplitude, -2 * amplitude], dtype=torch.float64)
    expected = torch.stack([torch.matrix_exp(growth * time) @ start for time in times])
    torch.testing.assert_close(measured, expected, rtol=1e-4, atol=1e-11)


def test_inhibitor_mean_follows_the_activator_mean():
    # Diffusion moves no mean through closed walls, so d<v>/dt = <u> - <v>.
    times = torch.linspace(0, 2, 201, dtype=torch.float64)
    activator, inhibitor = fitzhugh_nagumo(white_noise(3, 24)[None] + 0.5, times)[0].mean((2, 3)).unbind(1)
    difference = activator - inhibitor
    trapezoids = (difference[1:] + difference[:-1]) / 2 * 0.01
    torch.testing.assert_close(inhibitor.diff(), trapezoids, rtol=0, atol=2e-6)
    assert (inhibitor[-1] - inhibitor[0]).abs() > 0.05


def test_walls_are_closed():
    field = torch.rand(2, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(laplacian(field, (0.2, 0.3)).sum((1, 2)), torch.zeros(2).double(), rtol=0, atol=1e-11)
