"""Mistakes of whoever uses MATEY: each is a sentence, with which a command ends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec

Arguments = ParamSpec("Arguments")


class Mistake(ValueError):
    """Something that the user can mend: one sentence that says what was expected, what came, and what to do."""


def told(command: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Decorate a command, which returns its exit code: a mistake ends it with its sentence and the exit code 2."""

    @wraps(command)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        try:
            return command(*args, **kwargs)
        except Mistake as error:
            sys.stderr.write(f"error: {error}\n")
            return 2

    return run


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn an error of the operating system into a mistake about where results are written, a file or a folder."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise Mistake(f"Cannot write to {out} ({reason}); make room or choose another place.") from None
