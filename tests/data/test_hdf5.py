"""Reading HDF5: only the frames asked for, from any process; damage, and files that claim what they do not hold, in words."""

import multiprocessing
import os
import shutil
import subprocess
import sys
from functools import partial

import h5py
import numpy as np
import pytest

from matey.checkpoints.run_files import ShardError
from matey.checkpoints.source import open_shard
from matey.data import DataError, open_dataset
from matey.data.split_record import read_record, read_seen
from tests.support import layout_files as layouts
from tests.support.described_files import flow
from tests.support.layout_files import write_seed_groups
from tests.support.small_files import write_swe


def read_all(trajectories):
    return [trajectories.read(index, 0, 11) for index in range(trajectories.num_trajectories)]


@pytest.fixture
def damaged_file(tmp_path):
    """A file of one chunk per frame in which the chunk of frame 8 of 0001 is garbled."""
    path = write_seed_groups(tmp_path / "a.h5", "diffusion_reaction")
    with h5py.File(path, "a") as file:
        data = file["0001/data"][:]
        del file["0001/data"]
        file["0001"].create_dataset("data", data=data, chunks=(1, *data.shape[1:]), compression="lzf")
        file.flush()
        chunk = file["0001/data"].id.get_chunk_info(8)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    path.write_bytes(content)
    return path


def test_a_window_is_read_without_touching_other_frames(damaged_file, diffusion_reaction_file):
    corrupt, sound = open_dataset(damaged_file), open_dataset(diffusion_reaction_file)
    for start, stop in ((5, 8), (9, 11)):
        np.testing.assert_array_equal(corrupt.read(1, start, stop), sound.read(1, start, stop))


def test_damaged_frames_are_named_when_they_are_read(damaged_file):
    with pytest.raises(DataError, match=r"a\.h5, 0001/data: cannot be read .*copy it again"):
        open_dataset(damaged_file).read(1, 7, 9)


def test_processes_read_what_their_parent_reads_while_it_reads(diffusion_reaction_file):
    trajectories = open_dataset(diffusion_reaction_file)
    expected = read_all(trajectories)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        pending = [pool.apply_async(read_all, (trajectories,)) for _ in range(4)]
        for _ in range(20):
            np.testing.assert_array_equal(read_all(trajectories), expected)
        for result in pending:
            np.testing.assert_array_equal(result.get(timeout=30), expected)
    np.testing.assert_array_equal(read_all(trajectories), expected)


def test_a_file_whose_program_was_killed_names_what_clears_its_mark(tmp_path):
    path = tmp_path / "a.h5"
    killed = f"import os, h5py; file = h5py.File({str(path)!r}, 'w', libver='latest'); file.flush(); os._exit(0)"
    subprocess.run([sys.executable, "-c", killed], check=True)
    with pytest.raises(DataError, match="already open for write.*; if that was killed, run h5clear -s on the file.$"):
        open_dataset(path)


def test_attributes_of_scales_of_any_type_do_not_crash_the_process(tmp_path):
    for number in range(5):
        for name, attributes in (("c", ("DIMENSION_LIST", "DIMENSION_LABELS")), ("x", ("NAME", "CLASS", "units"))):
            with h5py.File(tmp_path / f"{name}_{number}.h5", "w") as file:
                file["c"], file["x"] = np.zeros((2, 4, 4)), np.arange(4.0)
                file["c"].dims[2].attach_scale(file["x"])
                references = np.array([file["x"].ref] * 3, dtype=h5py.ref_dtype)
                for each in attributes:
                    file[name].attrs[each] = (3, "text", np.zeros((3, 3)), h5py.Empty("f4"), references)[number]
    read = "[HDF5.arrays(path) and HDF5.numbers(path, name) for path in sorted(Path().iterdir()) for name in 'cx']"
    code = f"from pathlib import Path; from matey.data.hdf5 import HDF5; {read}"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def replace(path, write):
    """Put another file in the place of one, as programs do that never leave half a file."""
    other = path.with_name(f"new_{path.name}")
    write(other)
    os.replace(other, path)


def write_long(path, num_frames):
    return write_swe(path, 1, num_frames, seed=num_frames)


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    path = write_swe(tmp_path / "a.h5", 1, seed=0)
    data = open_dataset(path)
    before = data.read(0, 0, 12)
    replace(path, partial(write_swe, num_trajectories=1, seed=1))
    expected = open_dataset(write_swe(tmp_path / "b.h5", 1, seed=1)).read(0, 0, 12)
    assert not np.array_equal(before, expected)
    np.testing.assert_array_equal(data.read(0, 0, 12), expected)
    replace(path, partial(write_long, num_frames=20))
    data = open_dataset(path)
    assert data.trajectories[0].num_frames == 20 and len(data.read(0, 0, 20)) == 20


def test_a_file_that_was_copied_over_is_described_as_it_is(tmp_path):
    """HDF5 would give what it knows of the file that is still open, which is the same one to the system."""
    path, longer = write_long(tmp_path / "a.h5", 12), write_long(tmp_path / "b.h5", 20)
    open_dataset(path).read(0, 0, 12)
    shutil.copyfile(longer, path)
    np.testing.assert_array_equal(open_dataset(path).read(0, 0, 20), open_dataset(longer).read(0, 0, 20))


def write_cavity_array(path, num_frames):
    np.save(path, np.ones((num_frames, 8, 12, 4)))


@pytest.mark.parametrize(("name", "write"), [("a.h5", write_long), ("numpy_Bx_0.1_Re_10.npy", write_cavity_array)])
def test_a_file_that_became_shorter_was_changed(tmp_path, name, write):
    path = tmp_path / name
    write(path, num_frames=12)
    data = open_dataset(path)
    replace(path, partial(write, num_frames=5))
    with pytest.raises(DataError, match=r"was changed while it was read: expected .*\(12, .*got \(5, .*; start again"):
        data.read(0, 0, 12)


def test_values_outside_of_a_file_are_not_read(tmp_path):
    path = write_swe(tmp_path / "a.h5", 1)
    (tmp_path / "secret").write_bytes(bytes(2**16))
    outside = [("secret", 0, h5py.h5f.UNLIMITED)]
    with h5py.File(path, "a") as file:
        attributes = dict(file["0000/data"].attrs)
        del file["0000/data"]
        file.create_dataset("0000/data", (12, 16, 16, 1), "f4", external=outside).attrs.update(attributes)
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
    "times of a seed": ("0001/grid/t", lambda path: write_swe(path, 2)),
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
