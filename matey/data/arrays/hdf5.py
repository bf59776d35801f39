"""Reads arrays in HDF5, and so in netCDF-4; soft links, external links and second names are not followed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py.h5z import filter_avail

from matey.data.arrays.stored import READ, FileKind, StoredArray, as_text, packing_of
from matey.data.coordinates import MOST_COMPONENTS, role_of
from matey.data.hdf5 import (
    attribute_of,
    attributes_of,
    claim_of,
    compressed_chunk,
    described_hdf5,
    is_hdf5,
    read_part,
    reason_of_no_values,
)

_NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"


def describe(path: Path) -> dict[str, StoredArray]:
    """Return the datasets of a file, those in groups as ``group/name``.

    Raises:
        DataError: the file cannot be read, see `matey.data.hdf5.described_hdf5`.
    """
    found: dict[str, StoredArray] = {}
    visited: set[str] = set()

    def add(name: str, item: h5py.HLObject) -> None:
        visited.add(name)
        if not isinstance(item, h5py.Dataset) or item.shape is None:
            return
        attributes = {key: attribute_of(item, key) for key in READ}
        if _is_no_variable(item):
            return
        claimed, limit = claim_of(item)
        found[name] = StoredArray(
            shape=item.shape,
            dtype=np.dtype(item.dtype),
            axes=_axes(item),
            scales=_scales(item),
            unit=as_text(attribute_of(item, "units")),
            calendar=as_text(attribute_of(item, "calendar")),
            packing=packing_of(attributes, np.dtype(item.dtype)),
            problem=_problem(item),
            claimed=claimed,
            limit=limit,
            chunk=compressed_chunk(item),
        )

    def add_link(name: str, link: object) -> None:
        if name not in visited:
            found[name] = StoredArray((), np.dtype("V"), problem=_where(link))

    with described_hdf5(path) as file:
        file.visititems(add)
        file.visititems_links(add_link)
    return found


def attributes(path: Path, name: str) -> dict[str, Any]:
    """Return the attributes of a file, or of a group or array in it."""
    with described_hdf5(path) as file:
        return attributes_of(file[name] if name else file)


def _problem(item: h5py.Dataset) -> str:
    """Return why a dataset has no values that can be read, empty if it has some."""
    if problem := reason_of_no_values(item):
        return problem
    if item.dtype.kind == "O" and not h5py.check_string_dtype(item.dtype):
        return "holds neither numbers nor texts: leave it out"
    if item.size and not item.is_virtual and (missing := _missing_filter(item)):
        return (
            f"is compressed by the filter {missing}, which HDF5 does not have here: pip install hdf5plugin, and set "
            "HDF5_PLUGIN_PATH to hdf5plugin.PLUGIN_PATH; or h5repack -f GZIP=4 IN OUT where it can be read"
        )
    return ""


def _missing_filter(item: h5py.Dataset) -> str:
    """Return the name or number of a filter of a dataset that cannot be undone here, empty if all can."""
    created = item.id.get_create_plist()
    filters = (created.get_filter(number) for number in range(created.get_nfilters()))
    missing = (name.decode("utf-8", "replace") or str(code) for code, _, _, name in filters if not filter_avail(code))
    return next(missing, "")


def _where(link: object) -> str:
    """Return why a name that HDF5 does not visit has no values."""
    if isinstance(link, h5py.ExternalLink):
        return f"is a link to {link.path!r} in {link.filename}, which is not followed: describe that file"
    if isinstance(link, h5py.SoftLink):
        return f"is a link to {link.path.strip('/')!r}, which is not followed: name that"
    return "is the second name of another array: use the first, or h5copy it"


def _axes(item: h5py.Dataset) -> tuple[str, ...]:
    """Return the names of a dataset's axes, from the scales or labels that netCDF-4 and h5py give them.

    A label counts where the names of scales do not tell the kind of axis: Dedalus gives the axis labelled ``x`` the scale
    ``x/1.0``. One axis of components may be without a name where all others have one.
    """
    labels = map(as_text, _of_axes(item, "DIMENSION_LABELS", h5py.check_string_dtype))
    names = [_name_of(*each) for each in zip(_scales_of(item), labels, strict=True)]
    nameless = [number for number, name in enumerate(names) if not name]
    is_component = len(nameless) == 1 and nameless[0] > 0 and item.shape[nameless[0]] <= MOST_COMPONENTS
    return tuple(names) if not nameless or (is_component and len(names) > 2) else ()


def _name_of(scales: Sequence[h5py.Dataset], label: str) -> str:
    names = [str(name or "").rpartition("/")[2] for name in (*(scale.name for scale in scales), label)]
    return next(filter(role_of, names), next(filter(None, names), ""))


def _scales(item: h5py.Dataset) -> tuple[str, ...]:
    """Return the path of the coordinates of each axis of a dataset, empty where an axis has no numeric ones."""
    return tuple(
        next(
            (
                scale.name.strip("/")
                for scale in sorted(scales, key=lambda scale: not role_of(scale.name or ""))
                if scale.name and scale.shape == (size,) and scale.dtype.kind in "fiu" and not _is_no_variable(scale)
            ),
            "",
        )
        for size, scales in zip(item.shape, _scales_of(item), strict=True)
    )


def _scales_of(item: h5py.Dataset) -> list[list[h5py.Dataset]]:
    """Return the scales of each axis; none where the dataset was copied without them, and refers to what is not in this file.

    HDF5's own functions, which ``item.dims`` calls, trust the types of these attributes, and a wrong one corrupts memory.
    """
    try:
        of_axes = [[item.file[each] for each in own] for own in _of_axes(item, "DIMENSION_LIST", _is_references)]
    except (KeyError, RuntimeError, ValueError):
        return [[]] * item.ndim
    return [[*filter(_is_scale, scales)] for scales in of_axes]


def _is_scale(item: h5py.HLObject) -> bool:
    return isinstance(item, h5py.Dataset) and as_text(attribute_of(item, "CLASS")) == "DIMENSION_SCALE"


def _is_references(kind: np.dtype) -> bool:
    each = h5py.check_vlen_dtype(kind)
    return each is not None and h5py.check_ref_dtype(each) is h5py.Reference


def _of_axes(item: h5py.Dataset, name: str, is_right: Callable[[np.dtype], object]) -> Sequence[Any]:
    """Return an attribute's values, one for each axis; empty ones where it is missing, or of another shape or type."""
    found = item.attrs.get_id(name) if name in item.attrs else None
    is_whole = found is not None and found.shape == (item.ndim,) and is_right(found.dtype)
    return item.attrs[name] if is_whole else [""] * item.ndim


def _is_no_variable(item: h5py.Dataset) -> bool:
    """Whether a dataset only stands for a dimension of a netCDF file, without coordinates."""
    label = attribute_of(item, "NAME", b"")
    return isinstance(label, bytes) and label.startswith(_NO_VARIABLE)


HDF5 = FileKind("HDF5", (".h5", ".hdf5", ".nc", ".nc4", ".mat"), is_hdf5, describe, attributes, read_part)
