"""What a run says may lose its reader at any time; nothing ends by it, and exit codes stay."""

import subprocess
import sys

import pytest

TALK = """
import os, sys
from matey.process.start import hold
hold()
for number in range(20_000):
    print("step", number)
    print("bar", number, end="\\r", file=sys.stderr)
sys.stdout.flush()
open("done", "w").write(" ".join(str(os.fstat(number).st_ino) for number in range(3)))
sys.exit(75)
"""

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(
    "around",
    [
        "{python} | head -n 1; exit ${{PIPESTATUS[0]}}",
        "{python} > /dev/full 2>&1",
        "{python} <&- >&- 2>&-",
    ],
)
def test_a_process_outlives_those_who_read_its_output(around, tmp_path):
    command = around.format(python=f"{sys.executable} talk.py")
    (tmp_path / "talk.py").write_text(TALK)
    result = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 75 and "Error" not in result.stderr, result.stderr
    assert (tmp_path / "done").exists()


def test_output_that_is_read_arrives_whole_and_files_get_no_closed_descriptors(tmp_path):
    (tmp_path / "talk.py").write_text(TALK)
    result = subprocess.run([sys.executable, "talk.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.stdout == "".join(f"step {number}\n" for number in range(20_000))
    assert result.stderr == "".join(f"bar {number}\n" for number in range(20_000))  # \r, as read here
    program = """
from matey.process.start import hold
hold()
file = open("new", "w")
print(file.fileno(), file=open("number", "w"))
"""
    subprocess.run(["bash", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, program], cwd=tmp_path, check=True)
    assert int((tmp_path / "number").read_text()) > 2
