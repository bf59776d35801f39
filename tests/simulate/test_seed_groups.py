"""The two systems with a group for each seed, dam breaks and FitzHugh-Nagumo, against published files, theory and laws."""

import math

import h5py
import numpy as np
import pytest
import torch
import yaml

from matey.simulate.catalogue import SYSTEMS
from matey.simulate.diffusion_reaction import fitzhugh_nagumo, laplacian, white_noise
from matey.simulate.ensemble import make
from matey.simulate.shallow_water import dam_break
from tests.support.laws import law
from tests.support.paths import published_file

PUBLISHED = {
    "shallow_water": "swe/2D_rdb_NA_NA.h5",
    "diffusion_reaction": "diffusion_reaction/2D_diff-react_NA_NA.h5",
}


def trajectories_of(system):
    """Return the settings of the simulation and the data of each group of the published file."""
    with h5py.File(published_file(PUBLISHED[system])) as file:
        settings = [yaml.safe_load(group.attrs["config"])["sim"] for group in file.values()]
        return settings, [group["data"][:] for group in file.values()]


@pytest.mark.whole
def test_depth_agrees_with_the_published_solver():
    settings, published = trajectories_of("shallow_water")
    radius = torch.tensor([setting["dam_radius"] for setting in settings], dtype=torch.float64)
    published = torch.from_numpy(np.stack(published)[..., 0])  # (b, t, x, y)
    depth = dam_break(radius, resolution=64, num_frames=101)
    assert torch.equal(depth[:, 0].float(), published[:, 0])
    error = (depth - published).norm(dim=(2, 3)) / published.norm(dim=(2, 3))
    assert error[:, -1].max() < 0.003
    assert error.max() < 0.01
    waves = (depth - published).norm(dim=(2, 3)) / (published - 1).norm(dim=(2, 3))  # relative to what moves
    assert waves[:, -1].max() < 0.03


def test_mass_is_constant_while_the_wave_is_inside():
    depth = dam_break(torch.tensor([0.3, 0.7]), resolution=32, num_frames=101)
    mass = depth.mean((2, 3))
    assert (mass / mass[:, :1] - 1).abs().max() < 1e-6
    assert (depth[:, 0] - depth[:, -1]).abs().max() > 0.5


def test_wave_is_symmetric():
    depth = dam_break(torch.tensor([0.45]), resolution=32, num_frames=61)
    assert torch.equal(depth, depth.transpose(2, 3))
    torch.testing.assert_close(depth, depth.flip(2), rtol=0, atol=1e-12)


@pytest.mark.whole
def test_waves_leave_through_the_sides():
    # A column nearly as wide as the domain: all waves have crossed the sides long before t = 12.
    depth = dam_break(torch.tensor([2.4]), resolution=16, num_frames=1201)
    assert depth[0, 0].mean() > 1.6
    assert (depth[0, -1] - 1).abs().max() < 0.1


def structure(path):
    """Return what a reader can rely on: names, shapes, types and attributes of group 0000 and of the root."""
    found = {}
    with h5py.File(path) as file:
        assert all(group.keys() == file["0000"].keys() for group in file.values())
        found["/"] = sorted(file.attrs)
        file["0000"].visititems(
            lambda name, item: found.update({name: (getattr(item, "shape", None), getattr(item, "dtype", None))})
        )
        found["0000"] = {name: type(value) for name, value in file["0000"].attrs.items()}
    return found


@law("system", PUBLISHED, quick=["diffusion_reaction"])
def test_file_is_laid_out_as_the_published_one(system, tmp_path):
    published = published_file(PUBLISHED[system])
    (ours,) = make(tmp_path, SYSTEMS[system].ensemble(num_trajectories=2, resolution=64))
    assert ours.name == published.name
    assert structure(ours) == structure(published)
    with h5py.File(ours) as our_file, h5py.File(published) as their_file:
        for axis in "xyt":
            np.testing.assert_array_equal(our_file[f"0000/grid/{axis}"], their_file[f"0000/grid/{axis}"])
        settings = [yaml.safe_load(file["0000"].attrs["config"])["sim"] for file in (our_file, their_file)]
        assert settings[0] == settings[1]
        ours_last, theirs_last = our_file["0000/data"][-1], their_file["0000/data"][-1]
        assert np.linalg.norm(ours_last - theirs_last) < 0.01 * np.linalg.norm(theirs_last)


@pytest.mark.whole
def test_fields_agree_with_the_published_solver_at_every_frame():
    _, published = trajectories_of("diffusion_reaction")
    published = torch.from_numpy(np.stack(published)).double().movedim(-1, 2)  # (b, t, f, y, x)
    times = torch.linspace(0, 5, 101, dtype=torch.float64)
    error = (fitzhugh_nagumo(published[:, 0], times) - published).norm(dim=(3, 4)) / published.norm(dim=(3, 4))
    assert error.max() < 0.002


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
