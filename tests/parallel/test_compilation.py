"""A compilation that was killed, in real processes, holds no later run up."""

import sys
import time

import pytest

from tests.support.programs import clean_environment, in_background, start

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
        lock, until = tmp_path / "async_io" / "lock", time.monotonic() + 120
        while not lock.exists():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
    assert lock.exists()
    result = start([sys.executable, "-c", COMPILES], env=environment)
    assert result.returncode == 0 and not lock.exists(), result.stderr
