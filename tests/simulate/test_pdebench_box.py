"""Files of incompressible flow against those of the published generator."""

import h5py
import numpy as np
import yaml

from matey.simulate.ensemble import make
from matey.simulate.systems import SYSTEMS
from tests.support.paths import published_file


def test_files_are_laid_out_as_the_published_one(tmp_path):
    published = published_file("incompressible/ns_incom_inhom_2d_64-1.h5")
    paths = make(
        tmp_path, SYSTEMS["incompressible"].ensemble(num_trajectories=5, resolution=16, num_frames=3, first_seed=1)
    )
    assert [path.name for path in paths] == ["ns_incom_inhom_2d_16-1.h5", "ns_incom_inhom_2d_16-5.h5"]
    with h5py.File(paths[0]) as ours, h5py.File(published) as theirs:
        assert ours.keys() == theirs.keys() and ours.attrs.keys() == theirs.attrs.keys()
        assert {name: item.dtype for name, item in ours.items()} == {name: item.dtype for name, item in theirs.items()}
        assert ours["velocity"].shape == (4, 3, 16, 16, 2)
        assert ours["particles"].shape == (4, 3, 16, 16, 1)
        assert ours["force"].shape == (4, 16, 16, 2)
        np.testing.assert_allclose(ours["t"][:2], theirs["t"][:, :3], rtol=1e-6)
        assert ours.attrs["latestIndex"] == 2
        ours_say, theirs_say = (yaml.safe_load(file.attrs["config"]) for file in (ours, theirs))
        for name in ("NU", "domain_size", "smoothness", "scale", "force_smoothness", "force_scale", "seed"):
            assert ours_say[name] == theirs_say[name], name
    with h5py.File(paths[1]) as last:
        assert last["velocity"].shape[0] == 1


def test_velocity_along_x_is_stored_first_and_stops_at_the_walls_in_x(tmp_path):
    (path,) = make(tmp_path, SYSTEMS["incompressible"].ensemble(num_trajectories=1, resolution=32, num_frames=2))
    with h5py.File(path) as file:
        velocity = np.abs(file["velocity"][0, 1])  # (x, y, vector)
    middle = velocity[8:-8, 8:-8].mean()
    assert velocity[0, :, 0].mean() < 0.3 * middle < velocity[0, :, 1].mean()
    assert velocity[:, 0, 1].mean() < 0.3 * middle < velocity[:, 0, 0].mean()
