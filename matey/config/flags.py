"""Parsers of the values of command-line flags, for ``type=`` of argparse; a value out of bounds is refused in a sentence."""

from __future__ import annotations

import math
import re
import shlex
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from matey.config.section import on_this_machine
from matey.mistakes import Mistake
from matey.process.ending import end_with_error
from matey.process.launchers import likely_place


class FlagError(Mistake):
    """A flag whose value cannot be used: one sentence that says what can."""


def whole(least: int, most: int = 10**9) -> Callable[[str], int]:
    """Return a parser of whole numbers."""

    def read(text: str) -> int:
        # Longer texts are out of all bounds, and Python itself refuses thousands of digits.
        if len(text) > 20 or not text.strip().removeprefix("-").isdecimal() or not least <= int(text) <= most:
            raise ArgumentTypeError(f"expected a whole number from {least:,} to {most:,}, got {text[:40]!r}")
        return int(text)

    return read


def number(least: float, most: float) -> Callable[[str], float]:
    """Return a parser of finite numbers."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:  # NaN fails the comparison, too
            raise ArgumentTypeError(f"expected a number from {least:g} to {most:g}, got {text[:40]!r}")
        return value

    return read


def wholes(least: int, most: int = 10**9, counts: tuple[int, ...] | None = None) -> Callable[[str], tuple[int, ...]]:
    """Return a parser of whole numbers separated by commas; if ``counts`` is given, it lists how many there may be."""

    def read(text: str) -> tuple[int, ...]:
        values = tuple(map(whole(least, most), text.split(",")))
        if counts is not None and len(values) not in counts:
            raise ArgumentTypeError(f"expected {' or '.join(map(str, counts))} numbers, got {text[:40]!r}")
        return values

    return read


def command_line() -> str:
    """Return the command of this process as one would type it again."""
    program, *rest = sys.argv
    words = program.split() if program.startswith("matey ") else ["python", program]
    return shlex.join([*words, *rest])


class RanksParser(ArgumentParser):
    """The parser of a command that several ranks may run, where only one rank reports a wrong flag."""

    def error(self, message: str) -> NoReturn:
        """End with the usage, the message, and exit code 2."""
        sys.exit(end_with_error(*likely_place(), f"{self.format_usage()}error: {message}"))


def take_local_rank(parser: ArgumentParser) -> None:
    """Accept ``--local_rank``, which the deepspeed launcher passes to each rank."""
    parser.add_argument("--local_rank", type=int, help="set by the deepspeed launcher; not used")


def check_device(name: str) -> None:
    """Raise FlagError if a name is no device for a model; PyTorch checks whether the device exists."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", name):
        raise FlagError(f"--device takes auto, cpu, cuda or cuda:1; got {name[:80]!r}.")


def path(text: str) -> Path:
    """Return a path; URLs are refused, and names that are not UTF-8, which cannot be printed or written into files."""
    try:
        text.encode("utf-8")
        return Path(on_this_machine(text))
    except UnicodeEncodeError:
        raise ArgumentTypeError(f"expected a name in UTF-8, got {ascii(text)}") from None
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def png(text: str) -> Path:
    """Return the path of a picture, whose name ends in .png."""
    if not text.lower().endswith(".png"):
        raise ArgumentTypeError(f"expected a name that ends in .png, got {text[:80]!r}")
    return path(text)


threads = whole(1, 1024)
