"""Files of compressible flow against those of the published generator."""

import h5py
import numpy as np
import torch

from matey.simulate.compressible_initial import rand
from matey.simulate.ensemble import make
from matey.simulate.systems import SYSTEMS
from tests.support.laws import law
from tests.support.paths import published_file

PUBLISHED = {
    "compressible_rand": "cfd_rand/2D_CFD_Rand_M0.1_Eta0.01_Zeta0.01_periodic_64_Train.hdf5",
    "compressible_turb": "cfd_turb/2D_CFD_Turb_M1.0_Eta1e-08_Zeta1e-08_periodic_64_Train.hdf5",
}


@law("system", PUBLISHED, quick=["compressible_turb"])
def test_file_is_laid_out_as_the_published_one(system, tmp_path):
    published = published_file(PUBLISHED[system])
    ensemble = SYSTEMS[system].ensemble(num_trajectories=1, resolution=16)
    (ours,) = make(tmp_path, ensemble)
    assert ours.name == published.name.replace("_64_", "_16_")
    with h5py.File(ours) as our_file, h5py.File(published) as their_file:
        assert our_file.keys() == their_file.keys()
        for name, theirs in their_file.items():
            assert our_file[name].dtype == theirs.dtype == np.float32
            assert our_file[name].ndim == theirs.ndim and our_file[name].chunks is theirs.chunks is None
        np.testing.assert_allclose(our_file["t-coordinate"], their_file["t-coordinate"], rtol=2e-7)
        np.testing.assert_array_equal(our_file["x-coordinate"][0], 0.5 / 16)
        theirs = dict(their_file.attrs)
        assert {name: value for name, value in our_file.attrs.items() if name != "config"} == theirs
        assert our_file["Vx"].shape == (1, 21, 16, 16)


def test_fields_and_axes_are_where_the_file_says(tmp_path):
    (path,) = make(tmp_path, SYSTEMS["compressible_rand"].ensemble(num_trajectories=2, resolution=16, num_frames=2))
    with h5py.File(path) as file:
        for position in range(2):
            initial = rand(position, 16, 0.1).float().numpy()  # (f, x, y)
            stored = [file[name][position, 0] for name in ("density", "pressure", "Vx", "Vy")]
            np.testing.assert_array_equal(stored, initial)
    # A velocity along x stretches along the first axis of the arrays.
    assert not torch.equal(rand(0, 16, 0.1)[2], rand(0, 16, 0.1)[2].T)
