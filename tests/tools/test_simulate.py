"""``tools/simulate.py`` as people run it."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from matey.data import open_dataset
from matey.simulate.catalogue import SYSTEMS
from matey.train.folder import FileLock

TOOL = Path(__file__).resolve().parents[2] / "tools" / "simulate.py"
SMALL = ("--trajectories", "3", "--resolution", "16", "--frames", "4")


@pytest.fixture
def run(run_here):
    """Run the tool's command line in this process; return exit status, output and errors."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    num_threads = torch.get_num_threads()
    yield partial(run_here, "tools/simulate.py")
    torch.set_num_threads(num_threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_file_is_written_once_then_left_alone_and_replaced_only_on_demand(run, tmp_path):
    folder = tmp_path / "new" / "folder"
    path = folder / "2D_rdb_NA_NA.h5"
    status, output, _ = run("shallow_water", "--out", folder, *SMALL)
    assert status == 0 and output.startswith(f"Wrote {path}: ")
    assert [item.name for item in folder.iterdir()] == [path.name]
    before = path.stat().st_mtime_ns
    with h5py.File(path) as file:
        data = np.stack([group["data"][:] for group in file.values()])
    assert data.shape == (3, 4, 16, 16, 1)

    status, output, _ = run("shallow_water", "--out", folder, *SMALL)
    assert (status, output) == (0, f"3 trajectories with these settings are in {folder} already.\n")
    status, output, errors = run("shallow_water", "--out", folder, *SMALL, "--seed", 1)
    assert (status, output) == (2, "") and "holds other data" in errors and "--overwrite" in errors
    assert path.stat().st_mtime_ns == before

    assert run("shallow_water", "--out", folder, *SMALL, "--seed", 1, "--overwrite")[0] == 0
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["0001/data"][:], data[2])


@pytest.mark.processes
def test_a_call_waits_for_one_that_makes_data_in_the_same_folder(tmp_path):
    lock = FileLock(tmp_path / "out" / "data")
    lock.take()
    command = [sys.executable, TOOL, "diffusion_reaction", "--out", tmp_path / "out", *SMALL]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline().startswith(
            f"Waiting: {tmp_path / 'out' / 'data'} is in use: process {os.getpid()} "
        )
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".data.lock"]
        lock.release()
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and output.startswith("Wrote "), errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["2D_diff-react_NA_NA.h5"]


def test_cavities_are_written_as_the_published_arrays_on_demand(run, tmp_path):
    flags = "--out", tmp_path, *SMALL, "--layout", "npy"
    assert run("mhd_cavity", *flags)[0] == 0
    found = sorted(path.name for path in tmp_path.iterdir())
    assert len(found) == 3 and found[0] == "numpy_Bx_0.10_Re_100.npy"
    assert "already" in run("mhd_cavity", *flags)[1]
    assert "holds other data" in run("mhd_cavity", *flags, "--resolution", "20")[2]
    (tmp_path / found[0]).write_bytes(b"")
    assert "holds other data" in run("mhd_cavity", *flags)[2]
    assert run("mhd_cavity", *flags, "--overwrite")[0] == 0
    assert (open_dataset(tmp_path).system, open_dataset(tmp_path).num_trajectories) == ("mhd_cavity", 3)


def test_list_names_every_system(run):
    status, output, errors = run("--list")
    assert (status, errors) == (0, "")
    assert [line.split()[0] for line in output.splitlines()] == list(SYSTEMS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shalow_water", "--out", "OUT"], "there is no system 'shalow_water'"),
        (["shallow_water", "--out", "OUT", "--resolution", "4"], "The resolution must be at least 8, got 4."),
        (["shallow_water", "--out", "OUT", "--mach", "1"], "shallow_water has no --mach, only compressible_rand and"),
        (["shallow_water", "--out", "OUT", "--layout", "npy"], "has no --layout npy, only mhd_cavity has."),
        (["shallow_water", "--out", "FILE/x"], "Cannot write to FILE/x (Not a directory);"),
        (["shallow_water", "--out", "OUT", "--resolution", "16000"], "GB free."),
        (["compressible_rand", "--out", "OUT", "--mach", "1e9"], "setting mach must be above 0 and at most 10"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_by_the_exit_status(run, tmp_path, arguments, message):
    (tmp_path / "file").write_text("not a folder")

    def place(text):
        return text.replace("OUT", str(tmp_path / "out")).replace("FILE", str(tmp_path / "file"))

    status, output, errors = run(*map(place, arguments))
    assert (status, output) == (2, "")
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert place(message) in errors
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_run_goes_on_to_the_same_file(run, tmp_path, number):
    arguments = "diffusion_reaction --trajectories 60 --resolution 32 --frames 21 --workers 1 --out".split()
    tool = subprocess.Popen([sys.executable, TOOL, *arguments, tmp_path / "stopped"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("stopped/.*.unfinished")) and time.monotonic() < deadline:
        time.sleep(0.02)
    tool.send_signal(number)
    _, errors = tool.communicate(timeout=60)
    assert (tool.returncode, errors) == (130, "Interrupted; the same command continues from here.\n")
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == [".2D_diff-react_NA_NA.h5.unfinished"]

    for folder in ("stopped", "whole"):
        assert run(*arguments, tmp_path / folder)[0] == 0
    stopped, whole = (h5py.File(tmp_path / folder / "2D_diff-react_NA_NA.h5") for folder in ("stopped", "whole"))
    with stopped, whole:
        assert stopped.keys() == whole.keys() and list(stopped.attrs) == []
        for name in whole:
            np.testing.assert_array_equal(stopped[name]["data"], whole[name]["data"])
