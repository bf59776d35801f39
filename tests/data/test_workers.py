"""Processes that read data: they give what one process would, and end with who reads from them."""

import gc
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from multiprocessing import active_children
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
import torch

from matey.data import DataError, Mixture, micro_batches, open_dataset
from matey.data.stream import ends_of_workers_heard_later
from matey.process.ending import end_workers
from tests.support.paths import ROOT
from tests.support.programs import clean_environment, start


@pytest.fixture
def mixture(shallow_water_file, diffusion_reaction_file):
    sets = [open_dataset(shallow_water_file), open_dataset(diffusion_reaction_file)]
    return Mixture(sets, [(0, 2), (1,)], weights=(3, 1), num_frames=3, lead_max=4, seed=5)


@pytest.fixture
def short_folder():
    """A folder of its own whose path leaves room for the names of sockets, which those of `tmp_path` do not always."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.processes
@pytest.mark.parametrize(("workers", "start_method"), [(2, "fork"), (1, "spawn")])
def test_workers_give_the_stream_of_one_process_and_leave_torch_random_numbers_alone(mixture, workers, start_method):
    expected = list(micro_batches(mixture, 2, 3, 3, 2, rank=0, num_ranks=2))
    mixture.sets[0].read(0, 0, 1)
    state = torch.get_rng_state()
    came = list(micro_batches(mixture, 2, 3, 3, 2, 0, 2, workers=workers, start_method=start_method))
    assert torch.equal(torch.get_rng_state(), state)
    for one, other in zip(came, expected, strict=True):
        for batch, same in zip(one, other, strict=True):
            assert batch.system == same.system
            assert torch.equal(batch.history, same.history) and torch.equal(batch.target, same.target)
            assert torch.equal(batch.lead_time, same.lead_time)


@pytest.mark.processes
def test_workers_that_are_ended_in_the_middle_leave_no_temporary_files(mixture, monkeypatch, short_folder):
    monkeypatch.setattr(tempfile, "tempdir", str(short_folder))
    stream = micro_batches(mixture, 0, 100, 1, 1, rank=0, num_ranks=1, workers=2, start_method="fork")
    next(stream), next(stream)
    assert list(short_folder.iterdir()) and len(active_children()) == 2
    handler = signal.getsignal(signal.SIGCHLD)
    end_workers()
    assert list(short_folder.iterdir()) == [] and active_children() == []
    assert signal.getsignal(signal.SIGCHLD) is handler, "the loader hears of the workers of the next stream"


@pytest.mark.processes
def test_workers_end_with_the_error_that_one_of_them_met(shallow_water_file):
    with h5py.File(shallow_water_file, "a") as file:
        file["0000/data"][...] = np.nan
    mixture = Mixture([open_dataset(shallow_water_file)], [(0,)], weights=[1], num_frames=3, lead_max=1, seed=0)
    gc.disable()  # whether or not it happens to run
    try:
        with pytest.raises(DataError, match="expected finite values") as met:
            next(micro_batches(mixture, 0, 2, 2, 1, rank=0, num_ranks=1, workers=2))
        assert met.value is not None and active_children() == []
    finally:
        gc.enable()


class Unsendable:
    """What no process can hand to another, as tensors where /dev/shm is full."""

    def __reduce__(self):
        raise OSError("No space left on device")


@pytest.mark.processes
def test_a_worker_that_cannot_hand_over_what_it_read_ends_the_stream(mixture, capfd):
    stream = micro_batches(mixture, 0, 9, 1, 1, 0, 1, workers=1, start_method="fork", finish=lambda *_: Unsendable())
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        next(stream)
    assert "cannot hand over what it has read (No space left on device): is /dev/shm full?" in capfd.readouterr().err


@pytest.mark.processes
def test_a_worker_that_dies_during_a_save_raises_its_error_after_it(mixture, monkeypatch, short_folder):
    monkeypatch.setattr(tempfile, "tempdir", str(short_folder))
    stream = micro_batches(mixture, 0, 100, 1, 1, rank=0, num_ranks=1, workers=1, start_method="fork")
    next(stream)
    saved = False
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        with ends_of_workers_heard_later():
            (worker,) = active_children()
            worker.kill()
            os.waitid(
                os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT
            )  # all its threads have ended, and the signal was sent
            saved = True
    assert saved and list(short_folder.iterdir())
    end_workers()
    assert list(short_folder.iterdir()) == [], "nobody else would remove what a killed worker leaves"


def test_what_was_read_belongs_to_who_took_it(mixture):
    stream = micro_batches(
        mixture, 0, 2, 1, 1, rank=0, num_ranks=1, finish=lambda number, batches: set(map(id, batches))
    )
    taken = weakref.ref(next(stream))
    gc.collect()
    assert taken() is None


def test_a_program_that_ends_in_the_middle_of_a_stream_ends_its_workers(shallow_water_file):
    program = f"""
from matey.data import open_dataset
from matey.data.stream import micro_batches
from matey.data.windows import Mixture
mixture = Mixture([open_dataset({str(shallow_water_file)!r})], [(0,)], weights=[1], num_frames=3, lead_max=1)
stream = micro_batches(mixture, 0, 100, 1, 1, rank=0, num_ranks=1, workers=2)
print(len(next(stream)))
"""
    result = start([sys.executable, "-c", program], timeout=100)
    assert (result.returncode, result.stdout, result.stderr) == (0, "1\n", "")


KILLED_AS_WORKERS_START = """
import os, sys, time
from multiprocessing import active_children
from matey.data import open_dataset, stream
from matey.data.windows import Mixture
made = stream.tempfile.mkdtemp
stream.tempfile.mkdtemp = lambda **how: time.sleep(1) or made(**how)
mixture = Mixture([open_dataset(sys.argv[1])], [(0,)], [1], 3, 4, 5)
kept = stream.micro_batches(mixture, 0, 9, 1, 1, 0, 1, workers=2, start_method="fork")
print(*(child.pid for child in active_children()), flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.processes
def test_workers_whose_run_is_killed_while_they_start_end_too(shallow_water_file):
    command = [sys.executable, "-c", KILLED_AS_WORKERS_START, shallow_water_file]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=clean_environment(), cwd=ROOT) as run:
        numbers = [int(number) for number in run.stdout.readline().split()]
        workers = [psutil.Process(number) for number in numbers if psutil.pid_exists(number)]
        _, left = psutil.wait_procs(workers, timeout=12)  # PyTorch's watchdog looks every five seconds
        for worker in left:
            worker.kill()
    assert run.returncode == -signal.SIGKILL and len(numbers) == 2 and not left
