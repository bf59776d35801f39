"""Tells HDF5 datasets that would read as zeros which nobody wrote: those never written, and virtual ones that lack a source.

A virtual dataset maps boxes of its cells to datasets in other files. HDF5 reads its fill value where there is no such file, no
such dataset in it, or no box, and says nothing.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import h5py
import numpy as np

from matey.data.hdf5 import check_claim, open_hdf5
from matey.data.trajectories import DataError
from matey.mistakes import listed

_CUT = "or cut this out"

# More pieces than this are not looked at one by one, for memory's sake.
_MOST_PIECES = 2**26

_Above = tuple[tuple[str, str], ...]

_Box = tuple[np.ndarray, ...]
"""A selection: for each axis stretches ``(k, 2)``, the first place and the one after the last; it is their product."""


@dataclass(frozen=True)
class _Source:
    """A dataset that a virtual one takes values from.

    Attributes:
        file: name of its file as the virtual dataset has it; "." for the same file.
        name: path of the dataset in that file.
        num_taken: number of values that are taken; 0 where each source fills one of many equal boxes.
        selection: places of these values.
    """

    file: str
    name: str
    num_taken: int
    selection: h5py.h5s.SpaceID


def check_values(item: h5py.HLObject | None) -> None:
    """Raise DataError if a dataset claims more than its file can hold, see `check_claim`, or would read as unwritten zeros.

    Groups pass, and so does what is missing.
    """
    check_claim(item)
    if isinstance(item, h5py.Dataset) and item.shape is not None and (reason := reason_of_no_values(item)):
        raise DataError(f"{item.file.filename}, {item.name}: {reason}.")


def reason_of_no_values(item: h5py.Dataset, above: _Above = ()) -> str:
    """Return why a dataset would read, somewhere, as zeros that nobody wrote, and what to do; empty if it would not.

    Args:
        item: the dataset.
        above: files and names of the virtual datasets that take values from this one.
    """
    has_fill = item.id.get_create_plist().fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED
    if item.external:
        names = listed(os.fsdecode(name) for name, _, _ in item.external)
        return f"keeps its values in {names}, and any file could be named there: h5repack it where it was written"
    if item.is_virtual:
        return _reason_of_sources(item, has_fill, above) or ("" if has_fill else _reason_of_gaps(item))
    if item.size and not has_fill and not item.id.get_storage_size():
        return "was never written to: write it again"
    return ""


def _reason_of_sources(item: h5py.Dataset, has_fill: bool, above: _Above) -> str:
    """Return why a source of a virtual dataset has no values, empty if all have some."""
    own = os.path.realpath(item.file.filename), str(item.name)
    if own in above:
        return "takes values from itself: write it again"
    for name, sources in groupby(sorted(_sources(item), key=lambda source: source.file), lambda source: source.file):
        if name != "." and item.file.driver == "fileobj":
            return f"takes values from {name}, and a remote file cannot reach others: download both"
        place = None if name == "." else _place_of(name, Path(item.file.filename))
        if name != "." and place is None:
            return f"takes values from {name}, which is not there: put it back, {_CUT}"
        try:
            with nullcontext(item.file) if place is None else open_hdf5(place) as file:
                for source in sources:
                    if reason := _reason_of_source(file, source, has_fill, (*above, own)):
                        return reason
        except DataError as error:
            return f"takes values from another file: {str(error).rstrip('.')}"
    return ""


def _reason_of_source(file: h5py.File, source: _Source, has_fill: bool, above: _Above) -> str:
    label = f"{source.name!r} in {'the same file' if source.file == '.' else source.file}"
    found = file.get(source.name)
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        return f"takes values from {label}, which has only {listed(file)}: write it again, {_CUT}"
    if reason := reason_of_no_values(found, above):
        return f"takes values from {label}, and that {reason}"
    held = _num_selected(source.selection, found.shape)
    if held < source.num_taken and not has_fill:
        return (
            f"takes {source.num_taken:,} values from {label}, which has {held:,} of them: write it to its end, {_CUT}"
        )
    return ""


def _sources(item: h5py.Dataset) -> Iterator[_Source]:
    """Yield the datasets that a virtual one takes values from; ``%b`` in a name stands for the number of a box."""
    for mapping in item.virtual_sources():
        names = mapping.file_name, mapping.dset_name
        if any("%b" in name.replace("%%", "") for name in names):
            _, _, counts, _ = mapping.vspace.get_regular_hyperslab()
            along = counts.index(h5py.h5s.UNLIMITED)
            num_boxes = sum(len(box[along]) for box in _boxes(mapping.vspace, item.shape))
            for number in range(num_boxes):
                file, name = (_filled(name, str(number)) for name in names)
                yield _Source(file, name, 0, mapping.src_space)
        else:
            file, name = (_filled(name, "") for name in names)
            yield _Source(file, name, _num_selected(mapping.vspace, item.shape), mapping.src_space)


def _filled(name: str, number: str) -> str:
    """Return a name of a source with the number of a box for each ``%b``, and ``%`` for ``%%``."""
    return re.sub("%[b%]", lambda found: number if found[0] == "%b" else "%", name)


def _place_of(name: str, file: Path) -> Path | None:
    """Return where HDF5 finds the file of a source that ``file`` names so; None where it does not.

    Source: ``H5F_prefix_open_file`` of HDF5.
    """
    folder, own = file.parent, Path(name).name if os.path.isabs(name) else name
    prefixes = os.environ.get("HDF5_VDS_PREFIX", "")
    tried = [Path(prefix.replace("${ORIGIN}", str(folder))) / own for prefix in prefixes.split(":") if prefix]
    tried += [folder / own, Path(own), Path(os.path.realpath(file)).parent / own]
    if os.path.isabs(name):
        tried.insert(0, Path(name))
    return next((place for place in tried if place.is_file()), None)


def _reason_of_gaps(item: h5py.Dataset) -> str:
    """Return that a virtual dataset has cells in no box, empty if it has none."""
    boxes = [box for mapping in item.virtual_sources() for box in _boxes(mapping.vspace, item.shape)]
    cuts = [
        np.unique(np.concatenate([[0, size], *(box[axis].reshape(-1) for box in boxes)]))
        for axis, size in enumerate(item.shape)
    ]
    shape = [len(places) - 1 for places in cuts]
    if math.prod(shape) > _MOST_PIECES:
        is_covered = sum(map(_num_in, boxes)) >= item.size
    else:
        covered = np.zeros(shape, dtype=bool)  # the pieces of the dataset between the edges of all boxes
        for box in boxes:
            covered[np.ix_(*map(_between, box, cuts))] = True
        is_covered = bool(covered.all())
    return "" if is_covered else "takes only a part of its values from elsewhere: map the rest too, or set a fill value"


def _between(stretches: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Return which pieces between two cuts lie in one of the stretches ``(k, 2)``."""
    firsts = cuts[:-1]
    at = np.searchsorted(stretches[:, 0], firsts, side="right") - 1
    return np.asarray((at >= 0) & (firsts < stretches[at, 1]))


def _num_selected(space: h5py.h5s.SpaceID, shape: tuple[int, ...]) -> int:
    return sum(map(_num_in, _boxes(space, shape)))


def _num_in(box: _Box) -> int:
    return math.prod(int((stretches[:, 1] - stretches[:, 0]).sum()) for stretches in box)


def _boxes(space: h5py.h5s.SpaceID, shape: tuple[int, ...]) -> list[_Box]:
    """Return the places of a selection that lie within a shape."""
    kind = space.get_select_type()
    if kind == h5py.h5s.SEL_ALL:
        return [tuple(np.array([[0, size]]) for size in shape)]
    if kind == h5py.h5s.SEL_NONE or space.get_simple_extent_ndims() != len(shape):
        return []
    if kind == h5py.h5s.SEL_HYPERSLABS and space.is_regular_hyperslab():
        box = tuple(map(_stretches, *space.get_regular_hyperslab(), shape))
        return [box] if all(map(len, box)) else []
    is_of_points = kind == h5py.h5s.SEL_POINTS
    corners = space.get_select_elem_pointlist() if is_of_points else space.get_select_hyper_blocklist()
    corners = corners.reshape(len(corners), -1, len(shape))  # (k, first and last, axis); a point is both
    within = (np.clip([own[0], own[-1] + 1], 0, shape) for own in corners.astype(np.int64))
    return [tuple(ends[None, :, axis] for axis in range(len(shape))) for ends in within if (ends[1] > ends[0]).all()]


def _stretches(start: int, stride: int, count: int, block: int, size: int) -> np.ndarray:
    """Return the stretches ``(k, 2)`` of an axis that HDF5's regular selection takes; count and block may be endless."""
    firsts = start + stride * np.arange(min(count, max(0, -(-(size - start) // stride))))
    return np.stack([firsts, np.minimum(firsts + min(block, size), size)], axis=1)
