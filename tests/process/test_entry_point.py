"""How commands begin and end."""

import errno
import resource
import subprocess
import sys

import pytest

from matey.mistakes import Mistake, writing
from matey.process.entry_point import interruptible
from tests.support.paths import ROOT
from tests.support.programs import start_ranks


def test_a_command_may_open_as_many_files_as_its_hard_limit_allows():
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (few // 2, most))
    try:
        assert interruptible(lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0])() == most
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))


def test_several_ranks_say_a_mistake_once():
    result = start_ranks(2, "launch/predict.py", "--checkpoint", "nowhere", "--data", "x", "--out", "x.nc")
    assert result.returncode == 2 and result.stderr.count("error: There is no folder nowhere") == 1


def test_a_reader_that_has_had_enough_ends_a_command_without_a_word():
    command = [sys.executable, "tools/configs.py", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == ("", 0)


def test_a_reader_that_has_had_enough_is_no_full_disk(tmp_path):
    with pytest.raises(BrokenPipeError), writing(tmp_path):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    with pytest.raises(Mistake, match="No space left on device"), writing(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_command_whose_output_is_closed_from_the_start_does_its_work():
    result = subprocess.run(
        ["sh", "-c", 'exec "$0" tools/configs.py list >&-', sys.executable], cwd=ROOT, capture_output=True
    )
    assert (result.returncode, result.stderr) == (0, b"")
