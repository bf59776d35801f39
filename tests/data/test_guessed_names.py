"""Layouts of well-known models: axes by the names that these give them, what lies between cells, blocks, numbered groups."""

import h5py
import numpy as np
import pytest
import xarray

from matey.data import DataError, open_dataset
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


def test_levels_of_an_unknown_name_with_coordinates_are_no_components_but_a_question(tmp_path):
    assert write(tmp_path / "run.nc", q="time mbar lat lon").tree["axes"] == "TODO"


@pytest.mark.parametrize(
    ("cells", "between"),
    [
        ("time zh yh xh", {"u": "time zh yh xf+", "w": "time zf+ yh xh"}),
        ("time z_aac y_aca x_caa", {"v": "time z_aac y_aca x_faa+", "w": "time z_aaf+ y_aca x_caa"}),
        ("time zC yC xC", {"w": "time zF+ yC xC"}),
    ],
)
def test_faces_that_are_named_as_such_are_told_from_cells_of_few_levels(tmp_path, cells, between):
    guess = write(tmp_path / "run.nc", p=cells, **between)
    assert [*guess.tree["fields"]] == ["pressure"]
    assert any(note.startswith("Left out, since they lie between the cells") for note in guess.notes)


def test_velocities_on_as_many_faces_are_fields_and_vertical_faces_are_not(tmp_path):
    guess = write(tmp_path / "run.nc", b="time zC yC xC", u="time zC yC xF", w="time zF+ yC xC")
    assert guess.tree["fields"] == {"b": "b", "velocity_x": "u"}


def test_fields_in_space_count_where_some_in_the_plane_stand_before_them(tmp_path):
    tree = write(tmp_path / "run.nc", SSH="time yh xh", salt="time z_l yh xh").tree
    assert tree["fields"] == {"salt": "salt"} and tree["axes"] == ["time", "z", "y", "x"]


@pytest.mark.parametrize(
    ("program", "names"), [("Athena++", ["LogicalLocations", "Levels"]), ("FLASH", ["refine level", "bounding box"])]
)
def test_blocks_of_a_mesh_are_refused_with_what_puts_them_on_one_grid(tmp_path, program, names):
    with h5py.File(tmp_path / "out.h5", "w") as file:
        for name in ("dens", *names):
            file[name] = np.ones((4, 1, 8, 8), "f4")
    with pytest.raises(DataError, match=rf"blocks of a mesh of {program.replace('+', '.')} lie .* yt.load"):
        guess_description(tmp_path / "out.h5", tmp_path)


def test_the_group_of_a_snapshot_is_known_by_the_number_of_its_file(tmp_path):
    for number in range(4):
        with h5py.File(tmp_path / f"data.{number:04d}.dbl.h5", "w") as file:  # as PLUTO writes them
            file[f"Timestep_{number}/vars/rho"] = np.ones((6, 8), "f4")
            file[f"Timestep_{number}"].attrs["Time"] = 0.1 * number
            mesh_x, mesh_y = np.meshgrid(np.arange(8.0), np.arange(6.0))
            file["cell_coords/X"], file["cell_coords/Y"] = mesh_x, mesh_y
    tree = guess_description(tmp_path / "data.0001.dbl.h5", tmp_path).tree
    assert tree["fields"] == {"density": "Timestep_*/vars/rho"} and tree["concat"] == "time"
    assert tree["time_step"] == {"attribute": "Time"}


def test_numbered_arrays_in_groups_are_snapshots_and_their_times_are_found(tmp_path):
    with h5py.File(tmp_path / "run.jld2", "w") as file:  # as Oceananigans writes them
        for number in range(0, 120, 10):
            for name, value in {"u": np.ones((4, 6, 8)), "b": np.ones((4, 6, 8)), "t": 0.5 * number}.items():
                file[f"timeseries/{name}/{number}"] = value
        file["grid/x1"], file["grid/x2"] = np.arange(8.0), np.arange(6.0)
    tree = guess_description(tmp_path / "run.jld2", tmp_path).tree
    assert tree["fields"] == {"b": "timeseries/b/*", "velocity_x": "timeseries/u/*"}
    assert tree["time_step"] == "timeseries/t/*" and "parameters" not in tree


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("system/controlDict", "it is a case of OpenFOAM; convert it by foamToVTK"),
        ("Level_0/Cell_H", r"it is a plotfile of AMReX; .* yt.load\('run'\)"),
        ("md.idx", "it is a folder of ADIOS2; .* openpmd-pipe --infile run --outfile"),
    ],
)
def test_a_folder_of_another_program_says_so_and_the_line_that_converts_it(tmp_path, inside, words):
    (tmp_path / "run" / inside).parent.mkdir(parents=True)
    (tmp_path / "run" / inside).write_text("")
    for look in (open_dataset, lambda path: guess_description(path, tmp_path)):
        with pytest.raises(DataError, match=words):
            look(tmp_path / "run")


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


@pytest.mark.parametrize(
    ("axes", "found"),
    [
        ("time z x", {"velocity_x": "u", "velocity_z": "v", "velocity_y": "w"}),
        ("time z y", {"velocity_z": "u", "velocity_x": "v", "velocity_y": "w"}),
        ("time y x", {"velocity_x": "u", "velocity_y": "v", "velocity_z": "w"}),
    ],
)
def test_each_component_in_a_plane_is_named_after_the_axis_of_ours_that_it_is_along(tmp_path, axes, found):
    tree = write(tmp_path / "run.nc", u=axes, v=axes, w=axes).tree
    assert tree["fields"] == found and tree["axes"] == ["time", "y", "x"]


def test_the_vertical_component_keeps_its_name_where_none_is_across(tmp_path):
    assert {*write(tmp_path / "run.nc", u="time z x", w="time z x").tree["fields"]} == {"velocity_x", "velocity_z"}
    assert {*write(tmp_path / "b.nc", v="time z y", w="time z y").tree["fields"]} == {"velocity_x", "velocity_y"}
