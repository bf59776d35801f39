import numpy as np

from matey import open_dataset
from matey.simulate.catalogue import SYSTEMS
from matey.simulate.ensemble import make


def test_the_plate_keeps_its_heat_and_evens_out(tmp_path):
    ensemble = SYSTEMS["hot_plate"].ensemble(num_trajectories=2, resolution=16, num_frames=4)
    assert len(make(tmp_path, ensemble)) == 2 and make(tmp_path, ensemble) == []
    plates = open_dataset(tmp_path)
    for number in range(2):
        frames = plates.read(number, 0, 4)
        np.testing.assert_allclose(frames.mean(axis=(1, 2, 3, 4)), frames[0].mean(), rtol=1e-5)
        assert (np.diff(frames.std(axis=(1, 2, 3, 4))) < 0).all()
