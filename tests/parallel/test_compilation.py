"""A lock that a killed compilation left behind is named, by a process that really waits for it."""

import os
import subprocess
import sys
import time

from tests.support.programs import clean_environment, in_background

WAITS = """
from deepspeed.ops.op_builder import CPUAdamBuilder
from matey.parallel.compilation import said_when_locked
with said_when_locked(2):
    CPUAdamBuilder().load()
"""


def test_a_run_that_waits_for_a_killed_compilation_says_which_file_holds_it_up(tmp_path):
    lock = tmp_path / "cpu_adam" / "lock"
    lock.parent.mkdir()
    lock.touch()
    hour_ago = time.time() - 3600
    os.utime(lock, (hour_ago, hour_ago))
    env = clean_environment() | {"TORCH_EXTENSIONS_DIR": str(tmp_path)}
    with in_background([sys.executable, "-c", WAITS], env, stderr=subprocess.PIPE) as process:
        said = next(line for line in process.stderr if "compiling" in line)
        assert process.poll() is None
    assert "for 36" in said and f"end this run, delete {lock} and start the run again." in said
