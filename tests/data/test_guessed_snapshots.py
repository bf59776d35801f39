"""What is guessed of a file that is one snapshot, and of arrays that are one each."""

import numpy as np

from tests.support.described_files import answered, guessed
from tests.support.laws import law
from tests.support.snapshot_files import LAYOUTS, NUM_SNAPSHOTS, VALUES, write_hdf5

FIRST = {
    "HDF5": "run_0/plt_0.h5",
    "NumPy": "sim0_u_0000.npy",
    "netCDF": "run_0/out0.nc",
    "Zarr": "run_0/0.zarr",
}
ANSWERS = {"system": "advection", "boundary": {"y": "wall", "x": "periodic"}, "spacing": {"y": 0.25, "x": 0.125}}
BY_HAND = {
    "HDF5": {"axes": ["y", "x"]},
    "NumPy": {
        "axes": ["component", "y", "x"],
        "files": "sim*_u_*.npy",
        "fields": {name: {"index": number} for number, name in enumerate("hq")},
        "time_step": 0.25,
    },
}


@law("layout", FIRST, quick=["NumPy", "netCDF"])
def test_a_guess_from_one_snapshot_with_its_questions_answered_reads_all(tmp_path, layout):
    LAYOUTS[layout](tmp_path)
    data = answered(tmp_path / FIRST[layout], tmp_path, **ANSWERS | BY_HAND.get(layout, {}))
    assert data.num_trajectories == 2
    for number in range(2):
        np.testing.assert_array_equal(data.read(number, 0, NUM_SNAPSHOTS)[:, :, 0], VALUES[number])


def test_files_that_a_number_tells_apart_are_said_to_be_snapshots(tmp_path):
    write_hdf5(tmp_path)
    guess = guessed(tmp_path / "run_0" / "plt_0.h5", tmp_path)
    assert (
        "# Files run_*/plt_*.h5 differ in a number: where each is one snapshot, leave time out of axes." in guess.text
    )
    assert guess.tree["time_step"] == {"attribute": "time"} and list(guess.tree["parameters"]) == ["nu"]
    alone = guessed(tmp_path / "run_0" / "plt_0.h5")
    assert alone.tree["files"] == "plt_*.h5"
