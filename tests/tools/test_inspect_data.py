"""What the inspection says of good data and of each fault; pictures of meshes and rollouts."""

import re
import sys

import h5py
import numpy as np
import pytest
import yaml

from matey.commands import inspect_data
from tests.support.described_files import BY_NAME, dataset
from tests.support.programs import start
from tests.support.small_files import write_swe


def inspect(*arguments):
    return start([sys.executable, "tools/inspect_data.py", *arguments])


@pytest.fixture
def good(tmp_path):
    return write_swe(tmp_path / "data" / "a.h5", 3)


def test_a_good_file_is_described_with_the_range_of_its_fields(good, tmp_path):
    result = inspect(good, "--plot", "--out", tmp_path / "sheet.png")
    assert result.returncode == 0, result.stdout + result.stderr
    with h5py.File(good) as file:
        values = np.concatenate([group["data"][:] for group in file.values()]).astype(np.float64)
    for part in ("shallow_water", "3 of 12 frames", "16 cells of 0.3125, open", "dam_radius", "0 to 2", "systems: 1"):
        assert part in result.stdout
    (row,) = (line.split() for line in result.stdout.splitlines() if line.lstrip().startswith("water_height"))
    expected = [values.min(), values.mean(), values.max(), values.std()]
    assert [float(number) for number in row[2:]] == pytest.approx(expected, rel=1e-4)
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_every_fault_of_a_folder_has_one_line_and_the_good_files_are_described(good):
    folder = good.parent
    for name in ("nan.h5", "time.h5", "truncated.h5"):
        write_swe(folder / name, 3)
    with h5py.File(folder / "nan.h5", "a") as file:
        file["0001/data"][5, 3, 2] = np.nan
        file["0002/data"][11, 3, 2] = np.inf
    with h5py.File(folder / "time.h5", "a") as file:
        file["0001/grid/t"][4] = file["0001/grid/t"][3]
    content = (folder / "truncated.h5").read_bytes()
    (folder / "truncated.h5").write_bytes(content[: len(content) // 2])
    (folder / "text.nc").write_text("not data")
    with h5py.File(folder / "other.h5", "w") as file:
        file["rain"] = np.zeros(3)
    result = inspect(folder)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    found = [line for line in result.stdout.splitlines() if line.startswith("fault: ")]
    for words in (
        ("nan.h5, trajectory 0001", "nan in frame 5 at (z, y, x) = (0, 2, 3)"),
        ("nan.h5, trajectory 0002", "inf in frame 11"),
        ("time.h5, 0001/grid/t", "expected increasing coordinates"),
        ("truncated.h5", "truncated"),
        ("text.nc", "is none of HDF5, classic netCDF, NumPy"),
        ("other.h5", "a layout that no reader knows: it holds rain (3,)"),
    ):
        assert len([line for line in found if all(word in line for word in words)]) == 1
    assert len(found) == 6 and "6 of 12 frames" in result.stdout and "faults in 2 trajectories" in result.stdout


@pytest.mark.parametrize(("about", "num_faults"), [({"units": "degC"}, 1), ({}, 0)])
def test_files_with_other_units_have_the_fault_that_ends_a_run(tmp_path, capsys, about, num_faults):
    for number, attributes in enumerate(({"units": "K"}, about)):
        values = dataset()
        values.h.attrs, values.h.values = attributes, values.h.values + number
        values.to_netcdf(tmp_path / f"{number}.nc")
    (tmp_path / "matey.yaml").write_text(yaml.safe_dump(BY_NAME | {"system": "waves"}))
    assert inspect_data.inspect([str(tmp_path)], None) == num_faults
    assert capsys.readouterr().out.count("fault: height: expected one unit, got 'K' in") == num_faults


@pytest.mark.parametrize(("num_files", "num_frames", "words"), [(3, 1, "at least 3 frames"), (1, 6, "at least 3 traj")])
def test_data_that_a_run_cannot_split_or_learn_from_has_the_fault_that_ends_the_run(
    tmp_path, capsys, num_files, num_frames, words
):
    for number in range(num_files):
        dataset().isel(time=slice(num_frames)).to_netcdf(tmp_path / f"{number}.nc")
    (tmp_path / "matey.yaml").write_text(yaml.safe_dump(BY_NAME | {"system": "waves", "time_step": 0.1}))
    assert inspect_data.inspect([str(tmp_path)], None) == 1
    assert words in capsys.readouterr().out
    assert inspect_data.inspect([str(tmp_path / "0.nc")], None) == 0


def test_a_mistake_of_the_description_is_one_fault_that_names_every_file(tmp_path, capsys):
    for number in range(3):
        dataset().to_netcdf(tmp_path / f"{number}.nc")
    (tmp_path / "matey.yaml").write_text(yaml.safe_dump(BY_NAME | {"system": "waves", "fields": {"height": "depth"}}))
    assert inspect_data.inspect([str(tmp_path)], None) == 1
    printed = capsys.readouterr().out
    assert "faults: 1" in printed and all(f"{number}.nc" in printed for number in range(3))


def test_the_rollout_is_drawn_and_its_tokens_and_errors_are_printed(tmp_path):
    data, out = write_swe(tmp_path / "2D_rdb_NA_NA.h5", 2, resolution=64), tmp_path / "forecast.png"
    command = [sys.executable, "tools/show_forecast.py", "--checkpoint", "models/matey-micro", "--data", data]
    result = start([*command, "--out", out, "--start", "3", "--steps", "5,2"])
    assert result.returncode == 0, result.stderr
    assert out.read_bytes().startswith(b"\x89PNG")
    known, *forecasts = result.stdout.splitlines()
    assert re.fullmatch(r" +0 snapshots later: \d+ tokens, known", known)
    assert [line.split()[0] for line in forecasts] == ["2", "5"]
    errors = [re.search(r"VRMSE (\S+), persistence (\S+)", line) for line in forecasts]
    assert all(0 < float(error[1]) < 1 and 0 < float(error[2]) < 1 for error in errors)
    tokens = [int(line.split()[3]) for line in result.stdout.splitlines()]
    assert all(16 <= number <= 256 for number in tokens)  # of 8 x 8 or 4 x 4 cells


def test_the_mesh_is_drawn_and_its_tokens_counted(run_yaml, tmp_path):
    data, out = write_swe(tmp_path / "drawn" / "2D_rdb_NA_NA.h5", 2), tmp_path / "mesh.png"
    command = [sys.executable, "tools/show_tokens.py", data, "--config", run_yaml(), "--out", out]
    result = start([*command, "--set", "tokens.rule=budget", "--set", "tokens.refine=20"])
    assert result.returncode == 0, result.stderr
    assert out.read_bytes().startswith(b"\x89PNG")
    rows = [line.split() for line in result.stdout.splitlines()[2:]]
    # 16 x 16 cells and two frames: 2 x 4 coarse tokens, 6 more per split, 32 in the fine grid
    assert [row[1:] for row in rows] == [["4", "16", "20", "32", "62%"]] * 3
