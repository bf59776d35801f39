"""Reading HDF5: only the frames asked for, from any process, with damage reported in words."""

import multiprocessing
import os
import resource
import subprocess
import sys

import h5py
import numpy as np
import pytest

from matey.data import DataError, open_dataset
from matey.data.hdf5 import _handles
from tests.support.layout_files import write_seed_groups
from tests.support.small_files import write_swe

inherited = []


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


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_processes_read_what_their_parent_reads_while_it_reads(diffusion_reaction_file, start_method):
    trajectories = open_dataset(diffusion_reaction_file)
    expected = read_all(trajectories)
    with multiprocessing.get_context(start_method).Pool(1) as pool:
        pending = [pool.apply_async(read_all, (trajectories,)) for _ in range(4)]
        for _ in range(20):
            np.testing.assert_array_equal(read_all(trajectories), expected)
        for result in pending:
            np.testing.assert_array_equal(result.get(timeout=30), expected)
    np.testing.assert_array_equal(read_all(trajectories), expected)


def opens_its_own(path):
    return all(_handles.get(path) is not file for file in inherited)


def test_a_forked_child_does_not_read_through_the_handle_of_its_parent(shallow_water_file):
    inherited[:] = [_handles.get(shallow_water_file)]
    assert not opens_its_own(shallow_water_file)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(opens_its_own, (shallow_water_file,)).get(timeout=30)
    inherited.clear()


def test_a_quarter_of_the_files_that_may_be_open_are_kept_open(tmp_path):
    _handles.close_all()
    for index in range(28):
        write_seed_groups(tmp_path / f"{index:03d}.h5", "shallow_water", num_frames=(2,))
    trajectories = open_dataset(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most, kept in ((limits[1], 28), (4 * 25, 25)):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
        try:
            for index in [*range(trajectories.num_trajectories), 0]:
                trajectories.read(index, 0, 2)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert len(_handles._files) == kept
        _handles.close_all()


def test_a_file_is_opened_once_to_be_recognised_and_described(tmp_path, monkeypatch):
    path, opened = write_swe(tmp_path / "2D_rdb_NA_NA.h5", 3), []
    real = h5py.h5f.open
    monkeypatch.setattr(h5py.h5f, "open", lambda name, *args, **more: opened.append(name) or real(name, *args, **more))
    assert open_dataset(path).num_trajectories == 3
    assert opened == [os.fsencode(path)]
    path.rename(path.with_name("moved.h5"))  # nothing of it is held open or remembered
    with pytest.raises(DataError, match="does not exist"):
        open_dataset(path)


def test_a_file_whose_program_was_killed_names_what_clears_its_mark(tmp_path):
    path = tmp_path / "a.h5"
    killed = f"import os, h5py; file = h5py.File({str(path)!r}, 'w', libver='latest'); file.flush(); os._exit(0)"
    subprocess.run([sys.executable, "-c", killed], check=True)
    with pytest.raises(DataError, match="already open for write.*; if it was killed, run h5clear -s on the file.$"):
        open_dataset(path)


def wrong_attributes(file):
    """Yield values that a file may hold in the place of the attributes of scales, and their types."""
    lists = np.empty((2, 3), dtype=object)
    for axis in range(3):
        lists[0, axis] = np.array([file["x"].ref], dtype=h5py.ref_dtype)
        lists[1, axis] = np.array([file["x"].regionref[:2]], dtype=h5py.regionref_dtype)
    yield from (
        (3, None),
        ("text", None),
        (np.zeros((3, 3)), None),
        (np.zeros(2000, "u1"), None),
        (h5py.Empty("f4"), None),
    )
    yield np.array([file["x"].ref] * 3, dtype=h5py.ref_dtype), h5py.ref_dtype
    yield lists[0, :1], h5py.vlen_dtype(h5py.ref_dtype)
    yield lists[1], h5py.vlen_dtype(h5py.regionref_dtype)


def test_attributes_of_scales_of_any_type_do_not_crash_the_process(tmp_path):
    for name in ("DIMENSION_LIST", "DIMENSION_LABELS", "NAME", "CLASS", "units"):
        for number in range(8):
            with h5py.File(tmp_path / f"{name}_{number}.h5", "w") as file:
                file["c"], file["x"] = np.zeros((2, 4, 4)), np.arange(4.0)
                file["c"].dims[2].attach_scale(file["x"])
                value, kind = list(wrong_attributes(file))[number]
                item = file["c" if name.startswith("DIM") else "x"]
                item.attrs.create(name, value, dtype=kind)
    read = "[HDF5.arrays(path) and HDF5.numbers(path, name) for path in sorted(Path().iterdir()) for name in 'cx']"
    code = f"from pathlib import Path; from matey.data.hdf5 import HDF5; {read}"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
