"""Opening by path: files, folders and globs of one system, and what is said when that is not what is there."""

import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import matey
from matey.data import DataError, TrajectorySet, open_dataset
from matey.data.describing import guess_description
from matey.data.splits import split_groups
from matey.data.to_the_well import write_the_well
from tests.support import described_files
from tests.support.described_files import flow
from tests.support.layout_files import write_seed_groups
from tests.support.models import make_model
from tests.support.programs import said_to_nobody
from tests.support.small_files import write_swe
from tests.support.web_server import serve


def test_files_of_one_system_are_joined_in_the_order_of_their_paths(tmp_path):
    first = write_seed_groups(tmp_path / "set" / "a.h5", "shallow_water", num_frames=(5, 5))
    second = write_seed_groups(tmp_path / "set" / "sub" / "b.hdf5", "shallow_water", num_frames=(7,))
    (tmp_path / "set" / "README.md").write_text("not data")
    for path in (tmp_path / "set", tmp_path / "set" / "**" / "*.h*5"):
        joined = open_dataset(path)
        assert joined.sources == (first, second)
        assert [about.num_frames for about in joined.trajectories] == [5, 5, 7]
        for index, (file, inside) in enumerate([(first, 0), (first, 1), (second, 0)]):
            np.testing.assert_array_equal(joined.read(index, 2, 4), open_dataset(file).read(inside, 2, 4))


def test_hidden_files_and_folders_are_unfinished_work_and_no_data(tmp_path):
    whole = write_swe(tmp_path / "set" / "a.h5", 1)
    write_swe(tmp_path / "set" / ".b.unfinished.h5", 1)
    write_swe(tmp_path / "set" / ".c.unfinished" / "train" / "c.h5", 1)
    assert open_dataset(tmp_path / "set").sources == (whole,)
    assert open_dataset(tmp_path / "set" / ".c.unfinished").num_trajectories == 1, "one that is named is meant"


def test_a_link_that_leads_nowhere_is_not_left_out_in_silence(tmp_path, shallow_water_file):
    (shallow_water_file.parent / "b.h5").symlink_to(tmp_path / "purged.h5")
    with pytest.raises(DataError, match=r"b.h5 does not exist or is no file"):
        open_dataset(shallow_water_file.parent)


def test_a_folder_with_two_systems_is_refused_with_the_paths_of_each(
    tmp_path, shallow_water_file, diffusion_reaction_file
):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["density"] = np.zeros(3)
    with pytest.raises(DataError) as error:
        open_dataset(tmp_path)
    for part in (
        f"{tmp_path} must hold one system",
        f"shallow_water: {shallow_water_file}",
        f"diffusion_reaction: {diffusion_reaction_file}",
        f"unknown layout: {tmp_path / 'other.h5'}",
        "each as a data set of its own",
    ):
        assert part in str(error.value)


def test_a_description_may_be_a_dict(tmp_path):
    np.save(tmp_path / "u.npy", np.zeros((3, 8, 8), "f4"))
    told = flow(fields={"u": {}}, time_step=0.5)
    assert open_dataset(tmp_path / "u.npy", told).trajectories[0].time_step == 0.5
    with pytest.raises(DataError, match="The description of .*u.npy: .*time_stp"):
        open_dataset(tmp_path / "u.npy", told | {"time_stp": 1})


def test_a_missing_path_names_its_close_siblings(shallow_water_file):
    with pytest.raises(DataError, match=r"2D_rdb_NA\.h5 does not exist; did you mean .*/2D_rdb_NA_NA\.h5\?"):
        open_dataset(shallow_water_file.with_name("2D_rdb_NA.h5"))


def test_an_unknown_layout_names_what_was_found_and_what_is_known(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["density"] = np.zeros((2, 5))
        file["0000/tensor"] = np.zeros(3)
    with pytest.raises(DataError) as error:
        open_dataset(tmp_path)
    for part in ("a.h5 has a layout that no reader knows", "density (2, 5) of float64", "0000/tensor (3,)"):
        assert part in str(error.value)
    for known in ("PDEBench shallow_water (groups 0000", "PDEBench diffusion_reaction"):
        assert known in str(error.value)


@pytest.mark.parametrize("signature", [b"TREE", b"GCOL"])
def test_damage_to_groups_or_attributes_is_named_with_the_file(shallow_water_file, signature):
    content = shallow_water_file.read_bytes()
    assert signature in content
    shallow_water_file.write_bytes(content.replace(signature, b"\0\0\0\0"))
    with pytest.raises(DataError, match=r"NA\.h5 cannot be described .* corrupt: download or copy it again\.$"):
        open_dataset(shallow_water_file)


def test_a_folder_that_may_not_be_read_is_said_to_be_one():
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        (folder := Path(root) / "data").mkdir(mode=0)
        said = said_to_nobody(lambda: open_dataset(folder))
    assert said.startswith(f"{folder}") and said.endswith(
        " cannot be read (Permission denied); ask its owner, or restore what a link leads to."
    )


def test_a_description_that_was_found_beside_data_has_nothing_fetched(tmp_path):
    described_files.write(tmp_path / "served")
    with serve(tmp_path / "served") as server:
        description = described_files.write(tmp_path / "here", files=f"{server.address}/a.nc")
        for path in (tmp_path / "here", tmp_path / "here" / "a.nc", tmp_path / "here" / "*"):
            with pytest.raises(
                DataError, match=r"matey.yaml was found beside data, and would have http.*/a.nc fetched"
            ):
                open_dataset(path)
        assert server.asked == []
        assert open_dataset(description).num_trajectories and server.asked, "the user names it"


def in_memory(*fields, **parameters):
    values = np.random.default_rng(0).normal(3, 1, (4, 5, 8, 8))
    return TrajectorySet.from_arrays(
        "flow", dict.fromkeys(fields, values), spacing=(1, 1), boundary=("wall", "wall"), parameters=parameters
    )


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (in_memory("velocity/x"), "velocity/x"),
        (in_memory("."), r"\."),
        (in_memory("u", **{"a/b": 1.0}), "a/b"),
    ],
)
def test_names_that_stand_for_a_place_in_a_file_are_refused_first(data, name, tmp_path):
    model = make_model(((1, 1, 4, 4),), torch.float32, fields=data.fields)
    with pytest.raises(DataError, match=f"got {name}: rename it"):
        matey.forecast(model, data, steps=2).write(tmp_path / "out.h5")
    with pytest.raises(DataError, match=f"got {name}: rename it"):
        write_the_well(data, split_groups([[n] for n in range(4)], (0.5, 0.25, 0.25), 0), tmp_path / "well")
    assert list(tmp_path.iterdir()) == []


def test_names_that_would_steer_a_terminal_are_refused_and_quoted_with_escapes(tmp_path):
    strange = "\x1b[31mred\x07"
    np.save(tmp_path / "u.npy", np.zeros((3, 8, 8), "f4"))
    for changed in ({"system": strange}, {"fields": {strange: {}}}, {"fields": {"u": {"unit": strange}}}):
        with pytest.raises(DataError, match="holds control characters; rename it") as refused:
            open_dataset(tmp_path / "u.npy", flow(time_step=0.5, **({"fields": {"u": {}}} | changed)))
        assert str(refused.value).isprintable()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file[strange], file["x"] = np.zeros((3, 8, 8)), np.zeros((2, 2))
        file[strange].attrs["units"] = strange
    with pytest.raises(DataError, match=r"holds \\x1b\[31mred\\x07 \(3, 8, 8\)") as refused:
        open_dataset(tmp_path / "a.h5")
    assert str(refused.value).isprintable()
    guess = guess_description(tmp_path / "a.h5", tmp_path)
    assert all(line.isprintable() for line in guess.text.splitlines())
