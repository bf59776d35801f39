"""The radial dam break against the published solver, and its symmetries and conservation.

Files with a group per trajectory against those of the published generators.
"""

import h5py
import numpy as np
import pytest
import torch
import yaml

from matey.simulate.catalogue import SYSTEMS
from matey.simulate.ensemble import make
from matey.simulate.shallow_water import dam_break, dam_radius
from tests.support.laws import law


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


@law("system", ["shallow_water", "diffusion_reaction"], quick=["diffusion_reaction"])
def test_file_is_laid_out_as_the_published_one(system, request, tmp_path):
    published = request.getfixturevalue({"shallow_water": "published_dam_break"}.get(system, f"published_{system}"))
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
