"""The locks on a run's folder and on a file that is being made, between real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress

import pytest

from matey.checkpoints.run_files import LOCK
from matey.train import folder as lock
from matey.train.folder import FileLock, FolderLock, LockedError, not_shared
from tests.support.paths import ROOT

HOLDER = """
import os, sys, time
from pathlib import Path
from matey.train.folder import FileLock, FolderLock
held = (FileLock if "of_a_file" in sys.argv else FolderLock)(Path(sys.argv[1]))
held.take()
if "with_a_worker" in sys.argv and os.fork() == 0:
    time.sleep(60)
print("held", flush=True)
sys.stdin.readline()
held.release()
print("released", flush=True)
sys.stdin.readline()
"""


@contextmanager
def holder(folder, *more):
    command = [sys.executable, "-c", HOLDER, str(folder), *more]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, start_new_session=True, **streams) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def name(folder, **about):
    """Write a holder's name into the file, as one on another node leaves it there."""
    (folder / LOCK).write_text(json.dumps({"process": 7, "since": "2026-01-01 00:00:00", "job": "77", **about}))


def test_a_second_process_is_refused_and_told_who_since_when_and_what_to_do(tmp_path):
    with holder(tmp_path) as process:
        with pytest.raises(LockedError) as refused:
            FolderLock(tmp_path).take()
        said = str(refused.value)
        for words in (
            f"process {process.pid} on {socket.gethostname()}",
            "since 20",
            f"kill {process.pid}",
            LOCK,
            "remove that file",
        ):
            assert words in said, said
        # Refusing it has not let go of the lock.
        with pytest.raises(LockedError):
            FolderLock(tmp_path).take()


@pytest.mark.parametrize("more", [(), ("with_a_worker",)])
def test_the_lock_of_a_killed_process_can_be_taken_while_its_child_lives_on(tmp_path, more):
    with holder(tmp_path, *more) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert str(process.pid) in (tmp_path / LOCK).read_text()
        own = FolderLock(tmp_path)
        own.take()
        own.release()


def test_another_nodes_lock_is_taken_once_nobody_has_touched_it_for_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "SILENCE", 0.3)
    monkeypatch.setattr(lock, "LOOK", 0.1)
    name(tmp_path, node="elsewhere")
    own = FolderLock(tmp_path)
    own.take()
    assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
    own.release()


def test_another_nodes_lock_that_is_touched_is_refused_without_help_of_the_kernel(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "LOOK", 0.1)
    name(tmp_path, node="elsewhere")
    refused = threading.Event()

    def beat():
        while not refused.wait(0.3):
            os.utime(tmp_path / LOCK)

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with pytest.raises(LockedError, match=r"process 7 on elsewhere, job 77, trains there since 2026.*scancel 77"):
            FolderLock(tmp_path).take()
    finally:
        refused.set()
        heart.join()


def test_the_holder_touches_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.05)
    own = FolderLock(tmp_path)
    own.take()
    os.utime(tmp_path / LOCK, (0, 0))
    touched = threading.Event()
    for _ in range(100):
        if (tmp_path / LOCK).stat().st_mtime > 0:
            touched.set()
            break
        touched.wait(0.05)
    own.release()
    assert touched.is_set()


def test_a_file_that_its_owner_removed_is_broken_and_another_process_may_start(tmp_path):
    with holder(tmp_path):
        (tmp_path / LOCK).unlink()
        own = FolderLock(tmp_path)
        own.take()
        own.release()


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "other").write_text("mine")
    (tmp_path / LOCK).symlink_to(tmp_path / "other")
    with pytest.raises(OSError):
        FolderLock(tmp_path).take()
    assert (tmp_path / "other").read_text() == "mine"


@pytest.mark.parametrize("loss", ["file removed", "folder removed", "folder moved", "another's file", "taken over"])
def test_a_lock_whose_file_has_gone_is_noticed_and_what_is_there_now_stays(tmp_path, loss):
    folder = tmp_path / "run"
    own = FolderLock(folder)
    own.take()
    assert own.loss() is None
    if loss == "folder moved":
        folder.rename(tmp_path / "elsewhere")
    elif loss == "taken over":
        name(folder, node="another node")
    else:
        (folder / LOCK).unlink()
    if loss == "folder removed":
        folder.rmdir()
    if loss == "another's file":
        (folder / LOCK).write_text("theirs")
    assert "is no longer this run's" in own.loss()
    own.release()
    assert loss != "another's file" or (folder / LOCK).read_text() == "theirs"
    assert loss != "taken over" or json.loads((folder / LOCK).read_text())["node"] == "another node"


def test_a_folder_with_the_lock_of_another_process_is_shared(tmp_path):
    with holder(tmp_path / "run"):
        seen = json.loads((tmp_path / "run" / LOCK).read_text())
        assert not_shared(tmp_path / "run", seen, patience=0) is None
        for there in ({**seen, "node": "n7"}, {**seen, "process": 1}):
            assert "does not see there what rank 0 has written on" in not_shared(tmp_path / "run", there, patience=0)
        assert "all nodes share" in not_shared(tmp_path / "elsewhere", seen, patience=0)
        later = threading.Timer(0.2, os.symlink, [tmp_path / "run", tmp_path / "late"])
        later.start()
        assert not_shared(tmp_path / "late", seen, patience=30) is None
        later.join()


def test_the_lock_of_a_file_ends_with_its_process_and_leaves_nothing(tmp_path):
    file = tmp_path / "made" / "forecast.nc"
    with holder(file, "of_a_file") as process:
        with pytest.raises(LockedError, match=rf"forecast.nc is in use: process {process.pid} on .* makes it since 20"):
            FileLock(file).take()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert str(process.pid) in (file.parent / ".forecast.nc.lock").read_text()
        own = FileLock(file)
        own.take()
        own.check()
        own.release()
    assert not any(file.parent.iterdir())
