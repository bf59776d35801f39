"""Handles SIGINT and SIGTERM as one interrupt that is not lost: a study or a simulation saves before it ends."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

STOPS = (signal.SIGINT, signal.SIGTERM)
AGAIN = 0.1  # seconds until an interrupt that was lost is raised again


def interrupt_at_signals() -> None:
    """Have both signals raise KeyboardInterrupt in the main thread, the first time that one comes.

    A shell lets commands that are started with "&" ignore SIGINT. Further signals, such as a terminal's to all processes, would
    cut short the saving, so they do nothing. Where Python drops exceptions, as in the callbacks of weak references, the
    interrupt would be lost; then it is raised again.
    """
    for number in STOPS:
        signal.signal(number, _interrupt)
    sys.unraisablehook = _raise_again


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    for each in STOPS:
        signal.signal(each, lambda *_: None)  # not SIG_IGN, which commands that are just being started would inherit
    raise KeyboardInterrupt


def _raise_again(dropped: UnraisableHookArgs) -> None:
    """Have a dropped interrupt raised again, once this callback is left; report any other exception as usual."""
    if dropped.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(dropped)
        return
    signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, AGAIN)
