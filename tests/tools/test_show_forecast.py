"""The picture of a rollout beside the truth."""

import re
import sys

from tests.support.programs import start
from tests.support.small_files import write_swe


def show(tmp_path, *more):
    data = write_swe(tmp_path / "2D_rdb_NA_NA.h5", 2, resolution=64)
    command = [sys.executable, "tools/show_forecast.py", "--checkpoint", "models/matey-micro", "--data", data]
    return start([*command, "--out", tmp_path / "forecast.png", *more])


def test_the_rollout_is_drawn_and_its_tokens_and_errors_are_printed(tmp_path):
    result = show(tmp_path, "--start", "3", "--steps", "5,2")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "forecast.png").read_bytes().startswith(b"\x89PNG")
    known, *forecasts = result.stdout.splitlines()
    assert re.fullmatch(r" +0 snapshots later: \d+ tokens, known", known)
    assert [line.split()[0] for line in forecasts] == ["2", "5"]
    errors = [re.search(r"NRMSE (\S+), persistence (\S+)", line) for line in forecasts]
    assert all(0 < float(error[1]) < 1 and 0 < float(error[2]) < 1 for error in errors)
    tokens = [int(line.split()[3]) for line in result.stdout.splitlines()]
    assert all(16 <= number <= 256 for number in tokens)  # of 8 x 8 or 4 x 4 cells
