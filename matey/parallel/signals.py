"""The scheduler's wish that the run leaves: heard as a signal at any time, read once a step, answered by all ranks together."""

from __future__ import annotations

import os
import signal
from types import FrameType

from matey.held_signals import SIGNALS, release

# What a job script sees from a run that saved and left before its end, and may start again with --resume.
EXIT_CODE = os.EX_TEMPFAIL  # 75

# The terminal's ctrl-C too, once a run listens; while it imports, that ends it at once.
HEARD = (*SIGNALS, signal.SIGINT)

_heard: list[signal.Signals] = []
_launcher: list[int] = []


def listen(has_launcher: bool) -> None:
    """Note the signals from now on instead of dying of them.

    Args:
        has_launcher: whether the parent process started this rank and ends with it. One that died of a signal which it
            does not pass on (torchrun and deepspeed of SIGUSR1) leaves its ranks behind: they hear that as well.
    """
    for number in HEARD:
        signal.signal(number, _note)
    release()
    _launcher[:] = [os.getppid()] if has_launcher else []


def stop_listening() -> None:
    """Ignore the signals from now on: this rank leaves, and is not to die of a signal on its way.

    Where ranks leave with `EXIT_CODE`, srun with --kill-on-bad-exit ends the others as soon as the first one has. The
    interpreter's last steps would put the default in the place of a handler, but they let this be.
    """
    for number in HEARD:
        signal.signal(number, signal.SIG_IGN)


def asked_to_leave() -> bool:
    """Whether this rank has heard a signal, or its launcher has gone."""
    return bool(_heard) or _launcher not in ([], [os.getppid()])


def _note(number: int, frame: FrameType | None) -> None:
    _heard.append(signal.Signals(number))
