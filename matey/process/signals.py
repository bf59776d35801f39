"""The signals that ask a run to stop: how they are heard, released, and acted on by all ranks together, once a step.

For a study or a simulation, they are an interrupt: it saves before it ends.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from matey.process.launchers import launcher_has_gone

# SIGUSR1 comes ahead of the time limit where the job asked for it (sbatch --signal=USR1@600); SIGTERM comes with
# preemption, `scancel`, the time limit itself, and from a launcher that ends; some 30 seconds later follows SIGKILL.
SIGNALS = (signal.SIGUSR1, signal.SIGTERM)

# Ends a process that reads data for a run. It ignores the signals above, which a scheduler sends to all processes.
END_READING = signal.SIGQUIT


def release() -> None:
    """Unblock the signals; those that came in the meantime are delivered now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


# Exit code of a run that saved and left before its end; a job script may start it again with --resume.
EXIT_CODE = os.EX_TEMPFAIL  # 75

# With the terminal's ctrl-C and hang-up, once a run listens; during imports these end the run at once.
HEARD = (*SIGNALS, signal.SIGINT, signal.SIGHUP)

_has_heard = False
_must_wait = False


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


def interrupt_at_signals() -> None:
    """Have SIGINT and SIGTERM raise KeyboardInterrupt; a shell lets commands that are started with "&" ignore the first."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not _must_wait:
        raise KeyboardInterrupt
    _note(number, frame)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Have them raise KeyboardInterrupt after the block: what a callback of HDF5 raises within it is lost or another error."""
    global _must_wait
    _must_wait = True
    try:
        yield
    finally:
        _must_wait = False
    if _has_heard:
        raise KeyboardInterrupt
