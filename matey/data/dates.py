"""Times that a file writes as text, such as WRF's ``Times`` of characters: the date of each snapshot, read as seconds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from matey.data.arrays.stored import StoredArray
from matey.data.trajectories import DataError

UNIT, CALENDAR = "seconds since 1970-01-01", "proleptic_gregorian"
_LONGEST = 40  # characters of a date


def is_text(stored: StoredArray) -> bool:
    """Whether an array holds texts or characters."""
    return stored.dtype.kind in "SUO"


def as_times(stored: StoredArray) -> StoredArray:
    """Return an array of texts as what it is read as."""
    if not is_text(stored):
        return stored
    plain = np.dtype(stored.dtype.str)  # without what h5py notes in it, which is no part of a description in an index
    return replace(stored, dtype=plain, unit=UNIT, calendar=CALENDAR)


def numbers_of(stored: StoredArray, raw: np.ndarray, label: str) -> np.ndarray:
    """Return coordinates as numbers, those written as texts in seconds from 1970; ``label`` names them in errors.

    Raises:
        DataError: a text is no date.
    """
    if not is_text(stored):
        return stored.packing.unpacked(raw).astype(np.float64)
    texts = np.array(
        [each.decode("ascii", "replace") if isinstance(each, bytes) else str(each) for each in raw.reshape(-1)]
    )
    if raw.ndim > 1 and raw.dtype in (np.dtype("S1"), np.dtype("U1")):  # the characters of each text
        texts = np.array(["".join(each) for each in texts.reshape(-1, raw.shape[-1])]).reshape(raw.shape[:-1])
    return np.array([_seconds(text.strip(" \0"), label) for text in texts.reshape(-1)]).reshape(texts.shape)


def _seconds(text: str, label: str) -> float:
    try:
        date = datetime.fromisoformat(text)  # any character may stand between day and time
    except ValueError:
        raise DataError(
            f"{label}: expected dates such as 2000-01-24_12:00:00 as times, got {text[:_LONGEST]!r}; give time_step as a "
            "number."
        ) from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
