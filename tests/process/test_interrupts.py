"""Tests of `matey.process.signals`."""

import subprocess
import sys

import pytest

from tests.support.paths import ROOT

SCRIPT = """
import os, signal, time, weakref
from matey.process.signals import interrupt_at_signals

def callback(_):  # Python drops what is raised in it
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000):
        pass

interrupt_at_signals()
class Thing: pass
thing = Thing()
reference = weakref.ref(thing, callback)
try:
    del thing
    time.sleep(30)
except KeyboardInterrupt:
    os.kill(os.getpid(), signal.SIGTERM)  # does nothing
    print("saved")
"""


@pytest.mark.processes
def test_an_interrupt_that_comes_in_a_callback_is_not_lost():
    result = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=25)
    assert (result.returncode, result.stdout, result.stderr) == (0, "saved\n", "")
