"""Guesses and writes the description of a file of unknown layout, for tools/inspect_data.py --describe."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from matey.config import DataDescription
from matey.config.flags import started_as
from matey.config.loading import sentences
from matey.data import DataError, open_dataset
from matey.data.arrays.kinds import gridded_files
from matey.data.describing import Guess, guess_description
from matey.data.remote import place
from matey.mistakes import Mistake, writing
from matey.report.contact_sheet import contact_sheet, first_readable
from matey.report.png import write_png


def main(path: str, out: Path, sheet: Path | None) -> int:
    """Write the description of a file and, if there is a path for a PNG, draw the described fields; return 0."""
    guess = guess_description(_one_file(path), out.parent)
    with writing(out):
        try:
            with out.open("x", encoding="utf-8") as file:
                file.write(guess.text)
        except FileExistsError:
            raise Mistake(f"{out} exists already; choose another name, or remove it.") from None
    print(guess.text)
    print(f"description: {out}")
    if guess.questions:
        command = f"{started_as('tools/inspect_data.py', 'inspect')} {out} --plot"
        print(f"to answer in it: {', '.join(guess.questions)}; then: {command}")
    if sheet is not None:
        _draw(guess, path, sheet)
    return 0


def _one_file(path: str) -> Path:
    """Return the path of one file; raise DataError for a glob and for a path that leads nowhere."""
    file = place(path)
    if file.exists():
        return file
    found = gridded_files(file)  # a glob in quotes, which the shell left as it is
    if len(found) == 1:
        return found[0]
    said = f"stands for {len(found)} files; name one of them, such as {found[0]}" if found else "does not exist"
    raise DataError(f"{path} {said}.")


def _draw(guess: Guess, path: str, sheet: Path) -> None:
    """Draw the fields as described by the guess."""
    tree = guess.provisional
    if tree is None:
        print("not drawn: the axes must be known first")
        return
    try:
        rows = first_readable(open_dataset(path, DataDescription.model_validate(tree)))
        if rows is None:
            print("not drawn: no trajectory has values that are finite all over in the frames to draw")
            return
        write_png(contact_sheet([rows]), sheet)
    except (DataError, OSError, ValidationError) as error:
        reason = sentences(error, DataDescription) if isinstance(error, ValidationError) else error
        raise Mistake(f"{sheet} was not drawn: {reason}") from None
    print(f"contact sheet: {sheet}")
