"""How commands begin and end, and that a run outlives those who read its output."""

import errno
import os
import subprocess
import sys

import pytest

from matey.mistakes import Mistake, writing
from tests.support.paths import ROOT
from tests.support.programs import start_ranks


def test_several_ranks_say_a_mistake_once():
    result = start_ranks(2, "launch/predict.py", "--checkpoint", "nowhere", "--data", "x", "--out", "x.nc")
    assert result.returncode == 2 and result.stderr.count("error: There is no folder nowhere") == 1


def test_a_reader_that_has_had_enough_ends_a_command_without_a_word():
    command = [sys.executable, "tools/configs.py"]
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
        ["sh", "-c", 'exec "$0" tools/configs.py >&-', sys.executable], cwd=ROOT, capture_output=True
    )
    assert (result.returncode, result.stderr) == (0, b"")


TALK = """
import sys
from matey.process.start import hold
hold()
for number in range(20_000):
    print("step", number)
    print("bar", number, end="\\r", file=sys.stderr)
sys.stdout.flush()
open("done", "w").close()
sys.exit(75)
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    "around",
    ["{python} | head -n 1; exit ${{PIPESTATUS[0]}}", "{python} > /dev/full 2>&1", "{python} <&- >&- 2>&-"],
)
def test_a_process_outlives_those_who_read_its_output(around, tmp_path):
    command = around.format(python=f"{sys.executable} talk.py")
    (tmp_path / "talk.py").write_text(TALK)
    result = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 75 and "Error" not in result.stderr, result.stderr
    assert (tmp_path / "done").exists()


@pytest.mark.processes
def test_output_that_is_read_arrives_whole(tmp_path):
    (tmp_path / "talk.py").write_text(TALK)
    result = subprocess.run([sys.executable, "talk.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.stdout == "".join(f"step {number}\n" for number in range(20_000))
    assert result.stderr == "".join(f"bar {number}\n" for number in range(20_000))  # \r, as read here


PAGE_FAULTS = """
import resource, sys
import torch
from matey.process.start import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for round in range(21):
    if round == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(size, 1 << 18) for size in (2, 9, 17, 4)]  # of MiB
    del tensors
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode, **variables):
    command = [sys.executable, "-c", PAGE_FAULTS, mode]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | variables).stdout)


@pytest.mark.slow  # two new interpreters import PyTorch
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_the_same_tensors_again_take_few_new_pages():
    # Nearly none as a rule; a third where a mapping lies in the heap's way, as addresses are drawn at random.
    assert page_faults("keep") < page_faults("as it is") / 2
