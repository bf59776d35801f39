"""A compilation that was killed, in real processes, holds no later run up."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.support.programs import clean_environment, in_background, start
from tests.support.runs import fail, small_run

COMPILES = """
from torch.utils.cpp_extension import load_inline
from matey.parallel.engine import wait_for_compilations
wait_for_compilations(2)
load_inline("async_io", "int one() { return 1; }", functions="one")
"""


@pytest.mark.slow
def test_a_killed_compilation_is_done_again(tmp_path):
    environment = clean_environment() | {"TORCH_EXTENSIONS_DIR": str(tmp_path)}
    with in_background([sys.executable, "-c", COMPILES], environment) as process:
        lock = tmp_path / "async_io" / "lock"
        while not lock.exists():
            assert process.poll() is None
            time.sleep(0.01)
    assert lock.exists()
    result = start([sys.executable, "-c", COMPILES], env=environment)
    assert result.returncode == 0 and not lock.exists(), result.stderr


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_while_it_compiles_says_so(tmp_path):
    environment = clean_environment() | {"TORCH_EXTENSIONS_DIR": str(tmp_path), "DS_ACCELERATOR": "cpu"}
    files = ["--deepspeed_config", "ds_configs/zero3_offload.json", "--config", small_run(tmp_path)()]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with in_background([sys.executable, "launch/pretrain.py", *files], environment, **streams) as run:
        while "cc1plus" not in {child.name() for child in psutil.Process(run.pid).children(recursive=True)}:
            assert run.poll() is None
            time.sleep(0.1)
        os.killpg(run.pid, signal.SIGTERM)
        stdout, stderr = run.communicate(timeout=60)
    result = subprocess.CompletedProcess("", run.returncode, stdout, stderr)
    fail(result, "Asked to stop while DeepSpeed started")
