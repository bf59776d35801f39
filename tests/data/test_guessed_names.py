"""Layouts of well-known models: axes by the names that these give them, what lies between cells, blocks, numbered groups."""

import h5py
import numpy as np
import pytest
import xarray

from matey.data import DataError, open_dataset
from matey.data.describing import guess_description
from tests.support.described_files import answered, flow, guessed
from tests.support.laws import law
from tests.support.snapshot_files import LAYOUTS, NUM_SNAPSHOTS, VALUES, write_hdf5

SIZES = {"t": 7, "z": 5, "y": 8, "x": 12}
MODELS = {
    "ERA5": "valid_time pressure_level latitude longitude",
    "MOM6": "time z_l yh xh",
    "NEMO": "time_counter deptht y x",
    "Oceananigans": "time z_aac y_aca x_caa",
    "BOUT++": "t x y z",
}


def write(path, **arrays):
    """Write netCDF with arrays of random numbers on axes of these names, longer by one where a name ends with +."""
    held, coordinates = {}, {}
    for name, axes in arrays.items():
        kinds = axes.split()
        letters = "tyx" if len(kinds) == 3 else "tzyx"
        sizes = [SIZES[letter] + axis.endswith("+") for letter, axis in zip(letters, kinds, strict=True)]
        held[name] = tuple(axis.rstrip("+") for axis in kinds), np.random.default_rng(0).normal(size=sizes).astype("f4")
        coordinates |= {axis.rstrip("+"): np.arange(size) + 0.5 for axis, size in zip(kinds, sizes, strict=True)}
    xarray.Dataset(held, coordinates).to_netcdf(path)
    return guess_description(path, path.parent)


@pytest.mark.parametrize("model", MODELS)
def test_few_levels_of_a_known_name_are_no_components(tmp_path, model):
    tree = write(tmp_path / "run.nc", q=MODELS[model]).tree
    assert sorted(tree["axes"]) == ["time", "x", "y", "z"] and tree["fields"] == {"q": "q"}
    assert {*tree["spacing"].values(), tree["time_step"]} == {*MODELS[model].split()}


def test_uneven_levels_are_a_question(tmp_path):
    places = {"level": [300.0, 500, 850], "lat": np.linspace(80, -80, 9), "lon": np.arange(0, 360, 30.0)}
    data = xarray.Dataset({"t": (("time", *places), np.ones((4, 3, 9, 12), "f4"))}, {"time": np.arange(4.0), **places})
    data["lon"].attrs["units"] = "degrees_east"
    data.to_netcdf(tmp_path / "era.nc")
    guess = guess_description(tmp_path / "era.nc", tmp_path)
    assert guess.tree["boundary"] == {"z": "TODO", "y": "TODO", "x": "TODO"}
    assert guess.tree["spacing"] == {"z": "TODO", "y": "lat", "x": "lon"}
    assert guess.questions == ["system", "spacing.z", "boundary.z", "boundary.y", "boundary.x"]
    assert "level is uneven, which is not supported" in guess.text


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


def test_a_description_of_fields_and_what_lies_between_them_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["p"], file["u"] = np.zeros((5, 8, 12), "f4"), np.zeros((5, 8, 13), "f4")
    for fields in ({"p": "p", "u": "u"}, {"u": "u", "p": "p"}):
        with pytest.raises(
            DataError, match=r"average a field of a staggered grid to the cells first \(docs/own_data.md\)"
        ):
            open_dataset(tmp_path / "a.h5", flow(fields=fields))


def test_without_names_of_axes_a_staggered_grid_is_known_by_its_sizes(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["p"], file["u"], file["v"] = (np.zeros((5, 8 + y, 12 + x), "f4") for y, x in ((0, 0), (0, 1), (1, 0)))
        file["t"], file["y"], file["x"] = np.arange(5.0), np.arange(8.0), np.arange(12.0)
    guess = guessed(tmp_path / "a.h5")
    assert guess.tree["fields"] == {"pressure": "p"} and guess.tree["axes"] == ["time", "y", "x"]
    assert "Left out, of other shapes than the fields: u (5, 8, 13)" in guess.text


def test_components_one_more_than_others_are_no_staggered_grid(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["velocity"], file["b"] = np.zeros((5, 8, 12, 3), "f4"), np.zeros((5, 8, 12, 2), "f4")
        file["t"], file["y"], file["x"] = np.arange(5.0), np.arange(8.0), np.arange(12.0)
    vectors = {"velocity_x", "velocity_y", "velocity_z", "magnetic_x", "magnetic_y"}
    assert guessed(tmp_path / "a.h5").tree["fields"].keys() == vectors
