"""Joins files that follow each other in time into trajectories, and refuses pieces that do not fit.

Windows read only the pieces that hold their snapshots. Pieces are ordered by the numbers in their names; a missing piece shows
in the times that they hold or, where they hold none, in those numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from matey.config import DataDescription
from matey.config.description import WILDCARD, TimeSource
from matey.data.coordinates import UNEVEN_SPACE, UNEVEN_TIME, even_step
from matey.data.dates import counted_from, numbers_in, seconds_of
from matey.data.described_file import Located, check_frames
from matey.data.remote import place
from matey.data.trajectories import DataError


def put_together(description: DataDescription, pieces: Sequence[Located]) -> list[Located]:
    """Return the trajectories that consist of these pieces, which come in the order of time.

    Args:
        description: description of the files.
        pieces: pieces of one trajectory, or of all trajectories in the same files.

    Raises:
        DataError: a piece does not fit the others, or one is missing between them.
    """
    found: dict[int, list[Located]] = {}
    for piece in pieces:
        found.setdefault(piece.sample, []).append(piece)
    if len({len(each) for each in found.values()}) > 1:
        counts = ", ".join(f"{each[0].about.name} in {len(each)}" for each in found.values())
        raise DataError(
            f"{pieces[0].about.source}: expected all trajectories in each of the files, got {counts[:300]}."
        )
    return [_joined(description, each) for each in found.values()]


def trajectory_of(file: Path, pattern: Path) -> str:
    """Return the key that files of a trajectory share: the path with ``*`` where the pattern's last wildcard matches.

    For a pattern without wildcards, and for a file in a folder that the pattern matches, the key is the folder.
    """
    parts = WILDCARD.split(str(pattern))
    if len(parts) > 1 and parts[-2] != "**":
        *before, _, tail = parts
        head = "".join(".*" if number % 2 else re.escape(part) for number, part in enumerate(before))
        if match := re.fullmatch(f"({head})[^/]*({re.escape(tail)})", str(file)):
            return "*".join(match.groups())
    return str(file.parent)


def own_file(file: Path, pattern: Path, own: Path) -> Path:
    """Return the field's own file that belongs to another file.

    Args:
        file: the other file.
        pattern: path or glob by which the other file was found.
        own: path of the field's file; its wildcards stand for the same texts, in order, as those of ``pattern``.

    Raises:
        DataError: the wildcards of ``pattern`` do not tell what those of ``own`` stand for.
    """
    parts, path = WILDCARD.split(str(pattern)), WILDCARD.split(str(own))
    alike = "".join("([^/]*)" if number % 2 else re.escape(part) for number, part in enumerate(parts))
    match = re.fullmatch(alike, str(file))
    found = match.groups() if match else ()
    if len(path) // 2 > len(found):
        raise DataError(
            f"{own}: expected wildcards that 'files' has too, but {file}, found as {pattern}, does not say what they "
            f"stand for; write a * into 'files' for each of them."
        )
    path[1::2] = found[: len(path) // 2]
    return place("".join(path))


def _joined(description: DataDescription, pieces: Sequence[Located]) -> Located:
    first = pieces[0]
    for piece in pieces[1:]:
        _check_alike(first, piece)
    num_frames = check_frames(description, sum(piece.about.num_frames for piece in pieces), first.about.source)
    step = description.time_step
    if isinstance(step, TimeSource) and step.number_in_name is not None:
        times = tuple(number * step.number_in_name for number in _numbers(pieces))
    elif isinstance(step, TimeSource) and step.date_in_name is not None:
        times = tuple(_seconds(pieces, step.date_in_name))
    else:
        times = tuple(time for piece in pieces for time in _times(first, piece))
    whole = replace(first, times=times, pieces=tuple(_shared(first, piece) for piece in pieces))
    if isinstance(step, float):
        _check_numbers(pieces)
        time_step = step * description.stride
    else:
        time_step = _step(description, whole)
    return replace(whole, about=replace(first.about, num_frames=num_frames, time_step=time_step))


def _shared(first: Located, piece: Located) -> Located:
    """Return a piece that shares equal attributes with the first in memory, since there may be thousands of pieces."""
    names = ("arrays", "given", "along", "stored", "turned")
    alike = {name: getattr(first, name) for name in names if getattr(first, name) == getattr(piece, name)}
    return replace(piece, **alike)


def _check_alike(first: Located, piece: Located) -> None:
    ours, theirs = first.about, piece.about
    is_near = (math.isclose(a, b, rel_tol=UNEVEN_SPACE) for a, b in zip(ours.spacing, theirs.spacing, strict=True))
    if ours.grid != theirs.grid or not all(is_near) or first.turned != piece.turned:
        raise DataError(
            f"{_label(piece)}: expected the grid (z, y, x) = {ours.grid} with cells of {ours.spacing}, as in {_label(first)}, "
            f"got {theirs.grid} with {theirs.spacing}; all snapshots of a trajectory need one grid: interpolate them to it."
        )


def _times(first: Located, piece: Located) -> tuple[float, ...]:
    """Return the times of a piece in the unit and from the starting date of the first piece."""
    if "time" not in piece.along:
        return piece.times
    ours, own = (each.stored[each.along["time"]] for each in (first, piece))
    times = counted_from(piece.times, own, ours)
    if times is None:
        units = [f"{each.unit} {each.calendar}".strip() for each in (own, ours)]
        raise DataError(
            f"{_label(piece)}: its times are in {units[0]!r}, those of {_label(first)} in {units[1]!r}; write them in one unit "
            "and from one date, or give a time_step."
        )
    return times


def _step(description: DataDescription, whole: Located) -> float:
    """Return the step between the times of the snapshots, which must be evenly spaced."""
    first, stride = description.first_frame, description.stride
    taken = np.array(whole.times[first::stride])
    remedy = "write snapshots at even times, or give a time_step"
    if len(taken) > 2:
        gaps = np.diff(taken)
        worst = first + int(np.argmax(np.abs(gaps - np.median(gaps)))) * stride
        near, after = (
            _label(piece) for at in (worst, worst + stride) for piece, _ in whole.pieces_at(slice(at, at + 1, 1))
        )
        remedy = f"if a snapshot is missing between {near} and {after}, put it there; else {remedy}"
    return even_step(taken, f"{_label(whole)} and what follows it, times", UNEVEN_TIME, remedy)


def _numbers(pieces: Sequence[Located]) -> list[float]:
    """Return the number that tells the name of each piece from the others.

    Raises:
        DataError: the names differ in more than one number.
    """
    numbers = numbers_in([_label(piece) for piece in pieces])
    if numbers is None:
        raise DataError(
            f"{_label(pieces[0])} to {_label(pieces[-1])}: expected names that differ in one number, such as u_0001 and "
            "u_0002, as the snapshots of a trajectory. Write a * for that number into 'files' and others for what tells "
            "trajectories apart, such as run_*/u_*.npy; or name the times that the files hold in time_step."
        )
    return numbers


def _seconds(pieces: Sequence[Located], form: str) -> list[float]:
    """Return the seconds from 1970 to the date in the name of each piece.

    Raises:
        DataError: a name has no date of this form.
    """
    labels = [_label(piece) for piece in pieces]
    seconds = seconds_of(labels, form)
    if seconds is None:
        wrong = next(label for label in labels if seconds_of([label], form) is None)
        raise DataError(f"{wrong}: expected a date of the form {form} in its name; correct date_in_name of time_step.")
    return seconds


def _check_numbers(pieces: Sequence[Located]) -> None:
    """Raise DataError if the numbers in the names of pieces without times are not evenly spaced."""
    numbers = _numbers(pieces)
    gaps = np.diff(numbers)
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    for number, gap in enumerate(gaps):
        if abs(gap - usual) > UNEVEN_TIME * usual or gap <= 0:
            raise DataError(
                f"{_label(pieces[number + 1])}: expected number {numbers[number] + usual:.12g} after {numbers[number]:.12g}, "
                f"since the others are {usual:g} apart, got {numbers[number + 1]:.12g}; a snapshot is missing: add it, "
                "or name the times that the files hold in time_step."
            )


def _label(piece: Located) -> str:
    return str(piece.about.source)
