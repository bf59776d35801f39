"""A lock that a killed compilation left behind is named, by a process that really waits for it."""

import os
import sys
import time

import pytest

from tests.support.programs import forked

WAITS = """
import os
os.environ["TORCH_EXTENSIONS_DIR"] = {folder!r}
from {module} import {function}
from matey.parallel.compilation import said_when_locked
with said_when_locked(2):
    {function}{call}
"""
LOADS = {
    "cpu_adam": ("deepspeed.ops.op_builder", "CPUAdamBuilder", "().load()"),
    # As its builder does where there is libaio.
    "async_io": ("torch.utils.cpp_extension", "load_inline", "('async_io', '')"),
}


@pytest.mark.parametrize("name", ["cpu_adam", pytest.param("async_io", marks=pytest.mark.slow)])
def test_a_run_that_waits_for_a_killed_compilation_says_which_file_holds_it_up(tmp_path, name):
    lock = tmp_path / name / "lock"
    lock.parent.mkdir()
    lock.touch()
    hour_ago = time.time() - 3600
    os.utime(lock, (hour_ago, hour_ago))
    module, function, call = LOADS[name]
    program = WAITS.format(folder=str(tmp_path), module=module, function=function, call=call)
    path, until = tmp_path / "said.txt", time.monotonic() + 120
    with path.open("w") as output, forked([sys.executable, "-c", program], output) as process:
        while "compiling" not in (said := path.read_text()):
            assert process.poll() is None and time.monotonic() < until, said
            time.sleep(0.1)
        assert process.poll() is None
    assert f"compiling DeepSpeed's {name} for 36" in said
    assert f"end this run, delete {lock} and start the run again." in said
