"""Recognises trajectories that a model was trained on by their first two frames, wherever they lie and whoever wrote them.

A run keeps a fingerprint of each trajectory that it trains on or, in a very large set, of an even spread of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from pathlib import Path

from matey.data.split_record import RecordedParts, SplitRecord
from matey.data.splits import Share, alone, fingerprints
from matey.data.trajectories import TrajectorySet
from matey.data.views import TimeBlocks
from matey.mistakes import regular


def trained_on(
    data: TrajectorySet,
    numbers: Sequence[int],
    seen: frozenset[str],
    record: SplitRecord | None,
    share: Share = alone,
) -> list[int]:
    """Return which trajectories of a set a run was trained on, as far as that is known.

    Of a trajectory that is cut in time, these are the blocks with frames that were trained on according to the record, or all
    blocks where the record does not know the trajectory.

    Args:
        data: the set.
        numbers: numbers of the trajectories to check.
        seen: the run's fingerprints; without any, the record alone decides, and takes files of the same place, names and sizes
            for the same.
        record: the record of the run's split; None where there is none.
        share: see `fingerprints`.

    Raises:
        DataError: a file is gone or corrupt.
    """
    known = fingerprints(data, numbers, share) if seen else {}
    found = {number for number, text in known.items() if text in seen}
    begun = _begun(data, numbers, seen, share) if seen and isinstance(data, TimeBlocks) else []
    recorded: list[bool | None] = [None] * data.num_trajectories
    if record is not None and (found or begun or not seen):
        recorded = RecordedParts(record).trained(data)
    found |= {number for number in numbers if recorded[number]}
    return sorted(found.union(number for number in begun if recorded[number] is None))


def _begun(data: TimeBlocks, numbers: Sequence[int], seen: frozenset[str], share: Share) -> list[int]:
    """Return the blocks of trajectories whose first frames were trained on; how many frames, fingerprints do not tell."""
    wholes = sorted({data.wholes[number] for number in numbers})
    known = {whole for whole, text in fingerprints(data.whole, wholes, share).items() if text in seen}
    return [number for number in numbers if data.wholes[number] in known]


def read_seen(path: Path) -> frozenset[str]:
    """Read a run's fingerprints, one a line; none where the file is missing or cannot be read."""
    try:
        return frozenset(regular(path).read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return frozenset()


def seen_text(
    sets: Iterable[TrajectorySet],
    trained: Iterable[Sequence[int]],
    share: Share = alone,
    known: Iterable[Mapping[int, str]] | None = None,
) -> str:
    """Return the text that `read_seen` reads, for the trajectories of each set that are trained on.

    Args:
        sets: the sets.
        trained: numbers of these trajectories for each of the sets.
        share: see `fingerprints`.
        known: fingerprints of each set that are known already, by the numbers of the trajectories.
    """
    known = repeat({}) if known is None else known
    found = (fingerprints(data, numbers, share, of) for data, numbers, of in zip(sets, trained, known, strict=False))
    prints = {text for of_set in found for text in of_set.values()}
    return "".join(f"{text}\n" for text in sorted(prints))


def twins_note(
    data: TrajectorySet,
    held_out: Sequence[int],
    seen: frozenset[str],
    share: Share = alone,
    known: Mapping[int, str] | None = None,
) -> str:
    """Return how many held-out trajectories begin like trained ones or like each other, as a note; empty where none does.

    Solvers that start from a few rough states make the same trajectory again and again, as the dam break does on a coarse grid.
    For ``known``, see `fingerprints`.
    """
    found = list(fingerprints(data, held_out, share, known).values())
    said = []
    if same := sum(print_ in seen for print_ in found):
        said.append(
            f"{same} of the {len(held_out)} trajectories held out begin exactly as ones that are trained on; errors on them "
            "say little of new data."
        )
    if (different := len(set(found))) < len(found):
        said.append(
            f"different trajectories among those held out: {different} of {len(found)}; errors tell of these alone."
        )
    return " ".join(f"{data.system}: {text}" for text in said)
