"""Files with a group per trajectory against those of the published generators."""

import h5py
import numpy as np
import yaml

from matey.simulate.ensemble import make
from matey.simulate.systems import SYSTEMS
from tests.support.laws import law


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
