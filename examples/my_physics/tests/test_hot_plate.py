import numpy as np

from matey import open_dataset


def test_a_plate_is_read_as_it_was_written(tmp_path):
    temperature = np.random.default_rng(0).uniform(300, 400, (5, 16, 24)).astype("f4")
    np.savez(tmp_path / "a.npz", temperature=temperature, cell=0.5, time_step=0.1)
    plate = open_dataset(tmp_path)
    assert plate.system == "hot_plate" and plate.trajectories[0].grid == (1, 16, 24)
    np.testing.assert_array_equal(plate.read(0, 1, 4), temperature[1:4, None, None])
