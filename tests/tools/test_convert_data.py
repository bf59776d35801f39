"""The command that converts data, as a user calls it."""

import sys

from matey.data import open_dataset
from tests.support.programs import start
from tests.support.small_files import write_swe


def convert(*words):
    return start([sys.executable, "tools/convert_data.py", *words])


def test_data_is_converted_split_and_opened_again(tmp_path):
    write_swe(tmp_path / "swe" / "2D_rdb_NA_NA.h5", 10)
    done = convert(tmp_path / "swe", "--to", "the_well", "--out", tmp_path / "out", "--split", "0.5", "0.3", "0.2")
    assert done.returncode == 0, done.stderr
    assert f"Wrote {tmp_path / 'out'}: 5 train, 3 valid, 2 test trajectories of shallow_water." in done.stdout
    assert open_dataset(tmp_path / "out").num_trajectories == 10
    again = convert(tmp_path / "swe", "--out", tmp_path / "out")
    assert again.returncode == 2 and "exists already; choose another --out" in again.stderr
    missing = convert(tmp_path / "nowhere", "--out", tmp_path / "other")
    assert missing.returncode == 2 and "nowhere" in missing.stderr and "Traceback" not in missing.stderr
