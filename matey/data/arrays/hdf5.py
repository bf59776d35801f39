"""Reads arrays in HDF5, and so in netCDF-4; soft links, external links and second names are not followed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py.h5z import filter_avail

from matey.data.arrays.openpmd import constant_of, mesh_of
from matey.data.arrays.packing import READ, packing_of
from matey.data.arrays.stored import FileKind, StoredArray, as_text
from matey.data.axis_names import MOST_COMPONENTS, role_of
from matey.data.hdf5 import claim_of, compressed_chunk, described_hdf5, is_hdf5, read_part
from matey.data.unwritten import reason_of_no_values

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
        if is_openpmd and isinstance(item, h5py.Group) and (value := constant_of(item)):
            found[name] = StoredArray(
                (), np.dtype("V"), problem=f"is {value} in all cells, with no array: leave it out"
            )
        if not isinstance(item, h5py.Dataset) or item.shape is None:
            return
        attributes = {key: item.attrs[key] for key in READ if key in item.attrs}
        if _is_no_variable(item):
            return
        claimed, limit = claim_of(item)
        mesh = mesh_of(item) if is_openpmd else None
        found[name] = StoredArray(
            shape=item.shape,
            dtype=np.dtype(item.dtype),
            axes=_axes(item) or (mesh.axes if mesh else ()),
            scales=_scales(item),
            steps=mesh.steps if mesh else (),
            unit=as_text(item.attrs.get("units")) or (mesh.unit if mesh else ""),
            calendar=as_text(item.attrs.get("calendar")),
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
        is_openpmd = "openPMD" in file.attrs
        file.visititems(add)
        file.visititems_links(add_link)
    return found


def attributes(path: Path, name: str) -> dict[str, Any]:
    """Return the attributes of a file, or of a group or array in it."""
    with described_hdf5(path) as file:
        return dict((file[name] if name else file).attrs)


def _problem(item: h5py.Dataset) -> str:
    """Return why a dataset has no values that can be read, empty if it has some."""
    if problem := reason_of_no_values(item):
        return problem
    if item.size and not item.is_virtual and (missing := _missing_filter(item)) and not _is_plain(item):
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


def _is_plain(item: h5py.Dataset) -> bool:
    """Whether a value can be read all the same: optional filters that were missing are skipped when a file is written."""
    try:
        item[(0,) * item.ndim]
    except OSError:
        return False
    return True


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
    names = [_name_of(dimension) for dimension in item.dims]
    nameless = [number for number, name in enumerate(names) if not name]
    is_component = len(nameless) == 1 and nameless[0] > 0 and item.shape[nameless[0]] <= MOST_COMPONENTS
    return tuple(names) if not nameless or (is_component and len(names) > 2) else ()


def _name_of(dimension: h5py.DimensionManager) -> str:
    names = [
        str(name or "").rpartition("/")[2]
        for name in (*(scale.name for scale in _scales_of(dimension)), dimension.label)
    ]
    return next(filter(role_of, names), next(filter(None, names), ""))


def _scales(item: h5py.Dataset) -> tuple[str, ...]:
    """Return the path of the coordinates of each axis of a dataset, empty where an axis has no numeric ones."""
    return tuple(
        next(
            (
                scale.name.strip("/")
                for scale in sorted(_scales_of(dimension), key=lambda scale: not role_of(scale.name or ""))
                if scale.name and scale.shape == (size,) and scale.dtype.kind in "fiu" and not _is_no_variable(scale)
            ),
            "",
        )
        for size, dimension in zip(item.shape, item.dims, strict=True)
    )


def _scales_of(dimension: h5py.DimensionManager) -> list[h5py.Dataset]:
    """Return the scales of an axis; none where the dataset was copied without them, and refers to what is not in this file."""
    try:
        return list(dimension.values())
    except RuntimeError:
        return []


def _is_no_variable(item: h5py.Dataset) -> bool:
    """Whether a dataset only stands for a dimension of a netCDF file, without coordinates."""
    label = item.attrs.get("NAME", b"")
    return isinstance(label, bytes) and label.startswith(_NO_VARIABLE)


HDF5 = FileKind("HDF5", (".h5", ".hdf5", ".nc", ".nc4", ".mat"), is_hdf5, describe, attributes, read_part)
