"""The picture of the mesh."""

import sys

from tests.support.programs import start
from tests.support.small_files import write_swe


def show(run_yaml, tmp_path, *more):
    data = write_swe(tmp_path / "drawn" / "2D_rdb_NA_NA.h5", 2)
    command = [sys.executable, "tools/show_tokens.py", data, "--config", run_yaml(), "--out", tmp_path / "mesh.png"]
    return start([*command, *more])


def test_the_mesh_is_drawn_and_its_tokens_counted(run_yaml, tmp_path):
    result = show(run_yaml, tmp_path, "--set", "tokens.rule=budget", "--set", "tokens.refine=20")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "mesh.png").read_bytes().startswith(b"\x89PNG")
    rows = [line.split() for line in result.stdout.splitlines()[2:]]
    # 16 x 16 cells and two frames: 2 x 4 coarse tokens, 6 more per split, 32 in the fine grid
    assert [row[1:] for row in rows] == [["4", "16", "20", "32", "62%"]] * 3
