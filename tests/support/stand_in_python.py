"""Stands in for this Python where a launcher or a job script starts it: the program is forked from `preloaded` instead.

It passes on arguments, variables, folder, streams, affinity and ignored signals, then every signal that it gets, and ends as
the program ends. The program ends with it, since a launcher may kill it. What `preloaded` cannot run, the Python itself runs.

    python -IS stand_in_python.py ADDRESS PYTHON ARGUMENTS...
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main(address: str, python: str, *command: str) -> None:
    """Run a command; does not return."""
    request = {
        "command": command,
        "environment": {**os.environ},
        "folder": os.getcwd(),
        "affinity": sorted(os.sched_getaffinity(0)),
        "ignored": [number for number in PASSED_ON if signal.getsignal(number) == signal.SIG_IGN],
        "parent": os.getppid(),
    }
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    data = json.dumps(request).encode()
    socket.send_fds(connection, [len(data).to_bytes(8)], [1, 2, 0])
    connection.sendall(data)
    answers = connection.makefile("r")
    program = int(answers.readline())
    if not program:
        os.execv(python, [python, *command])

    def pass_on(number: int, _: object) -> None:
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(program, number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    code = os.waitstatus_to_exitcode(int(answers.readline()))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
