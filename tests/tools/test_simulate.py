"""``tools/simulate.py`` as people run it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--trajectories", "3", "--resolution", "16", "--frames", "4")


def start(*arguments):
    command = [sys.executable, str(ROOT / "tools" / "simulate.py"), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*arguments):
    process = start(*arguments)
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def test_a_file_is_written_once_then_left_alone_and_replaced_only_on_demand(tmp_path):
    folder = tmp_path / "new" / "folder"
    path = folder / "2D_rdb_NA_NA.h5"
    status, output, errors = run("shallow_water", "--out", folder, *SMALL)
    assert (status, errors) == (0, "") and output.startswith(f"Wrote {path}: 3 x 4 frames")
    assert [item.name for item in folder.iterdir()] == [path.name]
    before = path.stat()
    with h5py.File(path) as file:
        data = np.stack([group["data"][:] for group in file.values()])
        assert data.shape == (3, 4, 16, 16, 1)

    status, output, errors = run("shallow_water", "--out", folder, *SMALL)
    assert (status, output, errors) == (0, f"{path} is there already, with these settings.\n", "")
    status, output, errors = run("shallow_water", "--out", folder, *SMALL, "--seed", 1)
    assert (status, output) == (2, "") and "exists with other contents" in errors and "--overwrite" in errors
    assert path.stat() == before

    assert run("shallow_water", "--out", folder, *SMALL, "--seed", 1, "--overwrite")[0] == 0
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["0000/data"][:], data[1])


def test_list_names_every_system():
    status, output, errors = run("--list")
    assert (status, errors) == (0, "")
    assert [line.split()[0] for line in output.splitlines()] == ["shallow_water", "diffusion_reaction"]


MISTAKES = {
    "unknown system": (["shalow_water", "--out", "OUT"], "No system 'shalow_water'. Did you mean 'shallow_water'?"),
    "no system": (["--out", "OUT"], "Name a system: shallow_water or diffusion_reaction."),
    "no folder": (["shallow_water"], "Name the folder for the file: --out DIR."),
    "coarse": (["shallow_water", "--out", "OUT", "--resolution", "4"], "resolution must be at least 8, got 4."),
    "nothing": (["shallow_water", "--out", "OUT", "--trajectories", "0"], "trajectories must be at least 1, got 0."),
    "no number": (["shallow_water", "--out", "OUT", "--frames", "many"], "invalid int value: 'many'; see --help."),
    "no option": (["shallow_water", "--out", "OUT", "--frame_rate"], "Unrecognized arguments: --frame_rate"),
    "folder is a file": (["shallow_water", "--out", "FILE"], "--out names a folder, but FILE is a file."),
    "folder below a file": (["shallow_water", "--out", "FILE/x"], "Cannot write to FILE/x: Not a directory;"),
    "too big": (["shallow_water", "--out", "OUT", "--trajectories", "1000000000"], "GB free."),
}


@pytest.fixture(scope="module")
def mistaken_runs(tmp_path_factory):
    """All of ``MISTAKES``, side by side because most of their time goes into importing torch."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "file").write_text("not a folder")

    def place(text):
        return text.replace("OUT", str(folder / "out")).replace("FILE", str(folder / "file"))

    processes = {name: start(*map(place, arguments)) for name, (arguments, _) in MISTAKES.items()}
    results = {name: (*process.communicate(timeout=120), process.returncode) for name, process in processes.items()}
    return results, place, folder


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_one_line_and_by_the_exit_code(mistaken_runs, name):
    results, place, folder = mistaken_runs
    output, errors, status = results[name]
    assert (status, output) == (2, "")
    assert errors.startswith("simulate.py: ") and errors.count("\n") == 1
    assert place(MISTAKES[name][1]) in errors
    assert not list((folder / "out").glob("*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(tmp_path, number):
    process = start("diffusion_reaction", "--out", tmp_path, "--trajectories", 1000, "--resolution", 32)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".*/*.h5")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "simulate.py: interrupted; nothing was written.\n")
    assert not list(tmp_path.iterdir())
