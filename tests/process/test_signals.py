"""A signal that comes while a program still imports does not kill it, and is heard once the program listens.

Tests of `matey.process.signals`.
"""

import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from matey.process.signals import SIGNALS
from tests.support.paths import ROOT
from tests.support.programs import held_back, in_background

PROGRAM = """
from matey.process.start import hold
hold()
print("importing", flush=True)
input()
from matey.process.signals import asked_to_leave, listen
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


@contextmanager
def importing(script, config):
    """A run in a new interpreter, which holds signals back and has yet to import PyTorch."""
    command = [sys.executable, f"launch/{script}.py", "--deepspeed_config", "ds_configs/zero1.json", "--config", config]
    command += ["--pretrained", "none"] if script == "finetune" else []
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    # Behind `&`, ctrl-C is ignored by the tests, and by what they start.
    with in_background(command, preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL), **streams) as process:
        until = time.monotonic() + 60
        while not {*SIGNALS} <= held_back(process.pid):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.001)
        assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text(), "it imports first"
        yield process


@pytest.mark.parametrize(
    ("script", "number"),
    [("pretrain", signal.SIGTERM), pytest.param("finetune", signal.SIGUSR1, marks=pytest.mark.slow)],
)
def test_a_run_asked_to_leave_while_it_imports_saves_and_leaves(run_yaml, tmp_path, script, number):
    with importing(script, run_yaml(model={"scheme": "vit"})) as process:
        process.send_signal(number)
        said, _ = process.communicate(timeout=240)
    assert process.returncode == 75 and "of 4 is saved" in said, said
    assert (tmp_path / "run" / "checkpoints" / "latest").exists()


@pytest.mark.parametrize("script", ["pretrain", pytest.param("finetune", marks=pytest.mark.slow)])
def test_ctrl_c_while_a_run_imports_ends_it_with_a_word(run_yaml, script):
    with importing(script, run_yaml(model={"scheme": "vit"})) as process:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "Interrupted.\n")


def test_an_interrupt_waits_until_a_file_is_written():
    run = "from matey.process.signals import *; interrupt_at_signals()\nwith interrupts_wait(): signal.raise_signal(2); print()"
    done = subprocess.run([sys.executable, "-c", run], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "\n" and done.stderr.endswith("KeyboardInterrupt\n")
