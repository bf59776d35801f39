"""Requests to stop the run: a signal, or the end of the launcher; checked once a step, and acted on by all ranks together."""

from __future__ import annotations

import os
import signal
from types import FrameType

from matey.process.launchers import launcher_has_gone
from matey.process.leave_signals import SIGNALS, release

# Exit code of a run that saved and left before its end; a job script may start it again with --resume.
EXIT_CODE = os.EX_TEMPFAIL  # 75

# With the terminal's ctrl-C and hang-up, once a run listens; during imports these end the run at once.
HEARD = (*SIGNALS, signal.SIGINT, signal.SIGHUP)

_has_heard = False


def listen() -> None:
    """Note the signals from now on instead of dying of them; a hang-up that nohup ignores stays ignored."""
    for number in HEARD:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _note)
    release()


def die_of_interrupts() -> None:
    """Let ctrl-C end this process at once, as SIGTERM does: while it waits in a library, Python handles no signal."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:  # else it is ignored, as behind `&` in a shell
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def stop_listening() -> None:
    """Ignore the signals from now on: this rank leaves, and must not die of a signal on its way.

    If ranks leave with `EXIT_CODE`, srun with --kill-on-bad-exit ends the others as soon as the first rank has left. At exit,
    the interpreter would replace a handler by the default, but it keeps an ignored signal ignored.
    """
    for number in HEARD:
        signal.signal(number, signal.SIG_IGN)


def asked_to_leave() -> bool:
    """Whether this rank has heard a signal, or its launcher has gone."""
    return _has_heard or launcher_has_gone()


def _note(number: int, frame: FrameType | None) -> None:
    global _has_heard
    _has_heard = True
