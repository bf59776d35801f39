"""Layouts of well-known models: axes by the names that these give them, what lies between cells, blocks, numbered groups."""

import numpy as np
import pytest
import xarray

from matey.data.describing import guess_description

SIZES = {"t": 7, "z": 5, "y": 8, "x": 12}
MODELS = {
    "ERA5": "valid_time pressure_level latitude longitude",
    "MOM6": "time z_l yh xh",
    "NEMO": "time_counter deptht y x",
    "POP": "time z_t nlat nlon",
    "FV3": "time pfull grid_yt grid_xt",
    "PALM": "time zu_3d y x",
    "DALES": "time zt yt xt",
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


@pytest.mark.parametrize(
    ("cells", "between"),
    [
        ("time z_aac y_aca x_caa", {"v": "time z_aac y_aca x_faa+", "w": "time z_aaf+ y_aca x_caa"}),
        ("time zC yC xC", {"w": "time zF+ yC xC"}),
    ],
)
def test_faces_that_are_named_as_such_are_told_from_cells_of_few_levels(tmp_path, cells, between):
    guess = write(tmp_path / "run.nc", p=cells, **between)
    assert [*guess.tree["fields"]] == ["pressure"]
    assert any(note.startswith("Left out, since they lie between the cells") for note in guess.notes)


def test_longitudes_round_the_globe_are_periodic_and_uneven_levels_a_question(tmp_path):
    places = {"level": [300.0, 500, 850], "lat": np.linspace(80, -80, 9), "lon": np.arange(0, 360, 30.0)}
    data = xarray.Dataset({"t": (("time", *places), np.ones((4, 3, 9, 12), "f4"))}, {"time": np.arange(4.0), **places})
    data["lon"].attrs["units"] = "degrees_east"
    data.to_netcdf(tmp_path / "era.nc")
    guess = guess_description(tmp_path / "era.nc", tmp_path)
    assert guess.tree["boundary"] == {"z": "TODO", "y": "TODO", "x": "periodic"}
    assert guess.tree["spacing"] == {"z": "TODO", "y": "lat", "x": "lon"}
    assert guess.questions == ["system", "spacing.z", "boundary.z", "boundary.y"]
    assert "level is uneven, which is not supported" in guess.text and "lon goes round the globe" in guess.text
