"""What readers of HDF5 layouts share: how they recognise a file, check its shapes, and read a generator's settings in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import yaml

from matey.data.hdf5 import attribute_of, described_hdf5, is_hdf5
from matey.data.trajectories import DataError, Reader, TrajectorySet
from matey.data.unwritten import check_values
from matey.mistakes import one_line

# The pure-Python loader takes ten times as long, which shows at 1000 groups a file.
_YamlLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def hdf5_reader(layout: str, holds: Callable[[h5py.File], bool], open: Callable[[Path], TrajectorySet]) -> Reader:
    """Return the reader of a layout of HDF5; ``holds`` tells from the content of a file whether it has this layout."""

    def recognises(path: Path) -> bool:
        if not is_hdf5(path):
            return False
        with described_hdf5(path) as file:
            return holds(file)

    return Reader(layout, (".h5", ".hdf5"), recognises, open)


def axis_sizes(file: h5py.File, axes: Mapping[str, str], system: str) -> dict[str, int]:
    """Return the length of each axis that the datasets of a file share.

    Args:
        file: the file.
        axes: the axes of each dataset in order, each a name or a fixed length, such as ``"t y x 2"``.
        system: name of the system that the file is read as; the message cites it.

    Raises:
        DataError: a dataset is missing, was never written, holds no numbers, or its shape does not fit those before it.
    """
    sizes: dict[str, int] = {}
    for name, pattern in axes.items():
        item = file.get(name)
        check_values(item)
        shape = item.shape if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu" else ()
        expected = [int(axis) if axis.isdigit() else sizes.get(axis, axis) for axis in pattern.split()]
        fits = len(shape) == len(expected) and 0 not in shape
        if not fits or any(e not in (s, a) for e, s, a in zip(expected, shape, pattern.split(), strict=True)):
            came = f"{item.shape} of {item.dtype}" if isinstance(item, h5py.Dataset) else f"only {', '.join(file)}"
            raise DataError(
                f"{file.filename}, {name}: expected numbers of shape ({', '.join(map(str, expected))}), axes {pattern}, "
                f"as for {system}, got {came}; write the file again in this layout."
            )
        sizes.update(zip(pattern.split(), shape, strict=True))
    return sizes


def read_config(item: h5py.Group) -> dict[str, Any]:
    """Return the mapping in PDEBench's attribute ``config`` of a file or group, empty if there is none.

    Raises:
        DataError: the attribute is text that is not YAML.
    """
    text = attribute_of(item, "config")
    if isinstance(text, bytes):
        text = text.decode()  # also numpy's bytes_, which h5py gives for fixed-length strings and YAML refuses
    if not isinstance(text, str):
        return {}
    try:
        config = yaml.load(text, Loader=_YamlLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(
            f"{item.file.filename}, group {item.name}: expected YAML in the attribute 'config', got what cannot be "
            f"parsed ({one_line(error)}); write it again or delete it."
        ) from error
    return config if isinstance(config, dict) else {}


def numbers(entries: Mapping[str, Any], keys: Iterable[str]) -> dict[str, float]:
    """Return the entries that are numbers; OmegaConf writes ``???`` for one never set, YAML reads ``1e-3`` as text."""
    found = {}
    for key in keys:
        try:
            found[key] = float(entries[key])
        except (KeyError, TypeError, ValueError):
            continue
    return found
