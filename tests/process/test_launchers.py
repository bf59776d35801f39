"""A process notices that its launcher has gone, and minds no shell's end, in real processes."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress

import psutil
import pytest

from tests.support.paths import ROOT

# Starts what follows, waits for it, and passes nothing on.
PARENT = "import subprocess, sys; subprocess.run(sys.argv[1:])"
CHILD = """
import sys
from matey.process.launchers import launcher_has_gone
print("ready", flush=True)
for _ in sys.stdin:
    print(launcher_has_gone(), flush=True)
"""


@contextmanager
def started_through(folder, *names):
    """A process with ancestors of these names, the outermost first; gives the ancestors' numbers and a question to it."""
    scripts = []
    for name in names:
        script = folder / name
        script.write_text(f"import os; print(os.getpid(), flush=True)\n{PARENT}")
        scripts += [sys.executable, str(script)]
    command = [*scripts, sys.executable, "-c", CHILD]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, start_new_session=True, **streams
    ) as process:
        numbers = [int(process.stdout.readline()) for _ in names]
        assert process.stdout.readline() == "ready\n"

        def has_gone():
            process.stdin.write("?\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        try:
            yield numbers, has_gone
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("names", "killed", "expected"),
    [
        (["deepspeed"], 0, "True"),
        (["deepspeed", "launch_script"], 0, "True"),  # the outer one of two
        (["deepspeed", "launch_script"], 1, "True"),  # what lies between
        (["a_shell", "torchrun"], 0, "False"),  # above the launcher
        (["a_shell"], 0, "False"),  # there is none
    ],
)
def test_only_the_end_of_a_launcher_or_of_what_it_started_counts(tmp_path, names, killed, expected):
    with started_through(tmp_path, *names) as (numbers, has_gone):
        assert has_gone() == "False"
        ended = psutil.Process(numbers[killed])
        ended.kill()
        # The kill returns before the process has ended. The test's own child keeps its number until it is waited for.
        ended.wait(timeout=60)
        assert has_gone() == expected
