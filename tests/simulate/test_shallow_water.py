"""The radial dam break against the published solver, and its symmetries and conservation."""

import numpy as np
import pytest
import torch

from matey.simulate.shallow_water import dam_break, dam_radius


@pytest.mark.whole
def test_depth_agrees_with_the_published_solver(published_dam_break, read_trajectories):
    settings, published = read_trajectories(published_dam_break)
    radius = torch.tensor([setting["dam_radius"] for setting in settings], dtype=torch.float64)
    published = torch.from_numpy(np.stack(published)[..., 0])  # (b, t, x, y)
    depth = dam_break(radius, resolution=64, num_frames=101)
    assert torch.equal(depth[:, 0].float(), published[:, 0])
    error = (depth - published).norm(dim=(2, 3)) / published.norm(dim=(2, 3))
    assert error[:, -1].max() < 0.003
    assert error.max() < 0.01
    waves = (depth - published).norm(dim=(2, 3)) / (published - 1).norm(dim=(2, 3))  # relative to what moves
    assert waves[:, -1].max() < 0.03


def test_radius_is_that_of_the_published_seed(published_dam_break, read_trajectories):
    settings, _ = read_trajectories(published_dam_break)
    assert [dam_radius(setting["seed"]) for setting in settings] == [setting["dam_radius"] for setting in settings]


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
def test_wave_is_nearly_round():
    depth = dam_break(torch.tensor([0.5]), resolution=128, num_frames=61)[0, -1]
    diagonal = depth.diagonal()[64:]  # at distances (i + 1/2) sqrt(2) dx
    place = (torch.arange(64, dtype=torch.float64) + 0.5) * 2**0.5 - 0.5
    below = place.long().clamp(max=62)
    along_axis = 0.5 * (depth[64, 64:] + depth[63, 64:])
    interpolated = torch.lerp(along_axis[below], along_axis[below + 1], place - below)
    assert (interpolated - diagonal)[place < 62].abs().mean() < 0.01


@pytest.mark.whole
def test_waves_leave_through_the_sides():
    # A column nearly as wide as the domain: all waves have crossed the sides long before t = 12.
    depth = dam_break(torch.tensor([2.4]), resolution=16, num_frames=1201)
    assert depth[0, 0].mean() > 1.6
    assert (depth[0, -1] - 1).abs().max() < 0.1


def test_neighbours_in_the_batch_change_no_bit():
    radius = torch.tensor([0.3, 0.52, 0.7])
    together = dam_break(radius, resolution=19, num_frames=16)
    alone = torch.cat([dam_break(one[None], resolution=19, num_frames=16) for one in radius])
    assert torch.equal(together, alone)
