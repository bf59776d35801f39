"""Files that hold something else than they claim, or nothing: refused in a sentence."""

import os

import h5py
import numpy as np
import pytest

from matey.checkpoints.run_files import ShardError
from matey.checkpoints.source import open_shard
from matey.data import DataError, open_dataset
from matey.data.split_record import read_record, read_seen
from tests.support import layout_files as layouts
from tests.support.described_files import flow
from tests.support.small_files import write_swe


def replace_dataset(path, name, shape, **storage):
    """Put a dataset of a large shape that was never written in the place of another."""
    with h5py.File(path, "a") as file:
        attributes, dtype = dict(file[name].attrs), file[name].dtype
        del file[name]
        file.create_dataset(name, shape=shape, dtype=dtype, **storage).attrs.update(attributes)
    return path


def test_values_outside_of_a_file_are_not_read(tmp_path):
    path = write_swe(tmp_path / "a.h5", 1)
    (tmp_path / "secret").write_bytes(bytes(2**16))
    outside = [("secret", 0, h5py.h5f.UNLIMITED)]
    replace_dataset(path, "0000/data", (12, 16, 16, 1), external=outside)
    with pytest.raises(DataError, match="keeps its values in other files, and any file could be named there"):
        open_dataset(path)


def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="pipe.csv cannot be read .*a pipe or a device, not a file"):
        read_record(tmp_path / "pipe.csv")
    assert read_seen(tmp_path / "pipe.csv") == frozenset()
    np.save(tmp_path / "u.npy", np.zeros((3, 8, 8), "f4"))
    table = {"Re": {"table": str(tmp_path / "pipe.csv")}}
    with pytest.raises(DataError, match="pipe.csv cannot be read .*a pipe or a device, not a file"):
        open_dataset(tmp_path / "u.npy", flow(fields={"u": {}}, time_step=0.5, parameters=table))
    with pytest.raises(ShardError, match="pipe.csv"):
        open_shard(tmp_path / "pipe.csv")


UNWRITTEN = {
    "the well": ("t0_fields/height", layouts.write_the_well),
    "the well's masks": ("boundary_conditions/below/mask", layouts.write_the_well),
    "times of a seed": ("0001/grid/t", lambda path: write_swe(path, 2)),
    "compressible": ("pressure", layouts.write_compressible),
    "a force": ("force", layouts.write_incompressible),
    "cavity": ("magnetic", layouts.write_cavity),
    "thermals": ("theta", lambda path: layouts.write_miniweather_netcdf4(path, layouts.thermals())),
}


@pytest.mark.parametrize("name", UNWRITTEN)
def test_readers_of_layouts_refuse_zeros_that_nobody_wrote(tmp_path, name):
    dataset, write = UNWRITTEN[name]
    path = write(tmp_path / ("a.nc" if name == "thermals" else "a.hdf5"))
    with h5py.File(path, "a") as file:
        item, attributes = file[dataset], dict(file[dataset].attrs)
        shape, dtype = item.shape, item.dtype
        del file[dataset]
        file.create_dataset(dataset, shape, dtype)
        for key, value in attributes.items():
            if key not in ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME"):
                file[dataset].attrs[key] = value
    with pytest.raises(DataError, match=rf"a\.\w+, /?{dataset}: was never written to: write it again"):
        open_dataset(path)
