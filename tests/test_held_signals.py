"""A signal that comes while a program still imports does not kill it, and is heard once the program listens."""

import signal
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

PROGRAM = """
from matey.held_signals import hold
hold()
print("importing", flush=True)
input()
from matey.parallel.signals import asked_to_leave, listen
listen()
print("asked to leave:", asked_to_leave(), flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_during_the_imports_is_heard_after_them(number):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(number)
        rest, _ = process.communicate("\n", timeout=60)
    assert (process.returncode, rest) == (0, "asked to leave: True\n")


def test_training_imported_as_a_library_holds_back_nothing():
    code = "import matey.train.run, signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "set()"
