"""Writes the description of a file of unknown layout as far as it can be guessed, for tools/inspect_data.py --describe."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import ValidationError

from matey.config import DataDescription
from matey.config.flags import started_as
from matey.config.loading import sentences
from matey.data import DataError, open_dataset
from matey.data.describing import guess_description
from matey.data.guess import Guess
from matey.data.remote.paths import place
from matey.report.contact_sheet import contact_sheet, first_readable
from matey.report.png import write_png


def main(path: str, out: Path, sheet: Path | None) -> int:
    """Write the description; return 0 if it was written, 2 if not.

    Args:
        path: the file.
        out: the YAML to write.
        sheet: path of a PNG of frames to write, or None.
    """
    try:
        guess = guess_description(place(path), out.parent)
        with out.open("x", encoding="utf-8") as file:
            file.write(guess.text)
    except FileExistsError:
        return _refuse(f"{out} is there already; choose another name, or remove it.")
    except OSError as error:
        return _refuse(f"Cannot write {out} ({error.strerror}); choose another name.")
    except DataError as error:
        return _refuse(str(error))
    print(guess.text)
    print(f"description: {out}")
    if guess.questions:
        command = f"{started_as('tools/inspect_data.py', 'inspect')} {out} --plot"
        print(f"to answer in it: {', '.join(guess.questions)}; then: {command}")
    return 0 if sheet is None else _draw(guess, path, sheet)


def _draw(guess: Guess, path: str, sheet: Path) -> int:
    """Draw the fields as they are guessed; return the exit code."""
    tree = guess.provisional
    if tree is None:
        print("not drawn: the axes must be known first")
        return 0
    try:
        rows = first_readable(open_dataset(path, DataDescription.model_validate(tree)))
        if rows is None:
            print("not drawn: no trajectory has values that are finite all over in the frames to draw")
            return 0
        write_png(contact_sheet([rows]), sheet)
    except (DataError, OSError, ValidationError) as error:
        reason = sentences(error, DataDescription) if isinstance(error, ValidationError) else error
        return _refuse(f"{sheet} was not drawn: {reason}")
    print(f"contact sheet: {sheet}")
    return 0


def _refuse(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2
