"""Mistakes of the user, whose one-sentence messages end a command, and the pieces of such messages."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Mistake(ValueError):
    """Something that the user can correct: one sentence that says what was expected, what came, and what to do."""

    def __str__(self) -> str:
        """Return the sentence, on one line even if it quotes the strange names of a file."""
        return printable(super().__str__())


class DataError(Mistake):
    """Data that cannot be used: one sentence with the file, what was expected, what came and what to do."""


def printable(text: str) -> str:
    """Return a text with escapes in the place of control characters, by which a name in a file could steer a terminal."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name closest to ``name``, or ``""`` if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def listed(items: Iterable[str], at_most: int = 8) -> str:
    """Return a text of the first items and the number of the others; "nothing" if there are no items."""
    items = list(items)
    more = f" and {len(items) - at_most} more" if len(items) > at_most else ""
    return (", ".join(items[:at_most]) or "nothing") + more


def one_line(error: BaseException) -> str:
    """Return the first 200 characters of an error's message on one line, or its type's name if it has no message."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def regular(path: Path) -> Path:
    """Return the path of a file that is to be read; raise OSError for a pipe or a device, whose reading may never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
    return path


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn an error of the operating system into a mistake that names the file or folder being written."""
    try:
        yield
    except BrokenPipeError:  # it concerns the terminal's output, not ``out``: `matey.process.start` handles it
        raise
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise Mistake(f"Cannot write to {out} ({reason}); make room or choose another place.") from None
