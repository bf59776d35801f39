"""Headers that claim more than their file can hold are refused before anything of that size is read or listed."""

import json
import os

import h5py
import numpy as np
import pytest
import zarr

from matey.checkpoints.run_files import ShardError
from matey.checkpoints.source import open_shard
from matey.data import DataError, open_dataset, stored
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


CHUNKS = {"chunks": (1, 16, 16, 1), "compression": "gzip"}


@pytest.mark.parametrize(
    ("name", "shape", "storage"),
    [
        ("0000/data", (10**10, 16, 16, 1), CHUNKS),
        ("0000/data", (12, 10**5, 10**5, 1), {}),
        ("0000/grid/t", (10**12,), {"chunks": (100,)}),
        ("0000/data", (12, 16, 16, 1), {"chunks": (1, 2**14, 2**14, 1), "maxshape": (None,) * 4}),
    ],
)
def test_a_shape_that_the_file_cannot_hold_is_refused(tmp_path, name, shape, storage):
    path = replace_dataset(write_swe(tmp_path / "a.h5", 1), name, shape, **storage)
    with pytest.raises(DataError, match=rf"a.h5, /{name}: a shape of .* claims [\d,]+ bytes, and the file has [\d,]+;"):
        open_dataset(path)


def test_a_well_with_a_billion_trajectories_that_share_all_fields_is_refused(tmp_path):
    path = layouts.write_the_well(tmp_path / "data" / "test" / "a.hdf5")
    with h5py.File(path, "a") as file:
        file.attrs["n_trajectories"] = 10**9
    with pytest.raises(DataError, match="a.hdf5: claims 1,000,000,000 trajectories, and the file has"):
        open_dataset(path)


@pytest.mark.parametrize("storage", [{"chunks": (25, 64, 64, 1), "compression": "gzip"}, {"chunks": (1, 64, 64, 1)}])
def test_strong_compression_and_frames_not_written_yet_are_no_false_claims(tmp_path, monkeypatch, storage):
    monkeypatch.setattr(stored, "_LEAST_BYTES", 0)
    path = tmp_path / "a.h5"
    with (
        h5py.File(write_swe(tmp_path / "full.h5", 1, num_frames=100, resolution=64)) as full,
        h5py.File(path, "w") as file,
    ):
        full.copy("0000/grid", file, "0000/grid")
        data = file.create_dataset("0000/data", shape=(100, 64, 64, 1), dtype="f4", **storage)
        num_written = 100 if "compression" in storage else 2
        data[:num_written] = np.ones((num_written, 64, 64, 1), "f4")
    assert path.stat().st_size < 1_638_400 / 20
    assert open_dataset(path).trajectories[0].num_frames == 100


@pytest.mark.parametrize("shape", ["(-1, 8, 8)", "(True, 8, 8)"])
def test_a_shape_of_an_array_that_is_none_is_a_sentence(tmp_path, shape):
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + bytes(4096)
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError, match="a.npy cannot be read as a NumPy array"):
        open_dataset(tmp_path / "a.npy")


def test_values_outside_of_a_file_are_not_read(tmp_path):
    path = write_swe(tmp_path / "a.h5", 1)
    (tmp_path / "secret").write_bytes(bytes(2**16))
    outside = [("secret", 0, h5py.h5f.UNLIMITED)]
    replace_dataset(path, "0000/data", (12, 16, 16, 1), external=outside)
    with pytest.raises(DataError, match="keeps its values in other files, and any file could be named there"):
        open_dataset(path)


@pytest.mark.parametrize("kind", ["pipe", "chunks"])
def test_a_store_with_something_else_in_the_place_of_a_chunk_is_refused(tmp_path, kind):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    group.create_array("u", shape=(3, 8, 8), chunks=(1, 8, 8), dtype="f4")[:] = 1
    chunk, about = tmp_path / "a.zarr" / "u" / "1.0.0", tmp_path / "a.zarr" / "u" / ".zarray"
    chunk.unlink()
    {"pipe": lambda: os.mkfifo(chunk), "chunks": chunk.touch}[kind]()
    if kind == "chunks":
        about.write_text(json.dumps(json.loads(about.read_text()) | {"chunks": [0, 0, 0]}))
    description = flow(fields={"u": "u"}, time_step=0.5)
    words = {"pipe": "it is a pipe", "chunks": "division by zero"}[kind]
    with pytest.raises(DataError, match=f"a.zarr cannot be read as Zarr .*{words}"):
        open_dataset(tmp_path / "a.zarr", description).read(0, 0, 3)


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
