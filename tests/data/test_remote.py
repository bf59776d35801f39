"""Data on other machines: little more is fetched than is read; what cannot be is said in a sentence."""

import threading

import fsspec
import h5py
import numpy as np
import pytest
from fsspec.implementations.http import HTTPFile

from matey.data import DataError, Mixture, micro_batches, open_dataset
from matey.data.remote import BLOCK, about
from tests.support import described_files
from tests.support.laws import law
from tests.support.layout_files import write_seed_groups
from tests.support.web_server import serve

FRAME = 4 * 128 * 128


@pytest.fixture(autouse=True)
def nothing_known():
    about.cache_clear()


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    with serve(tmp_path / "served") as server:
        yield server


def write_long(path, num_frames=160):
    """A file of 10 MB, described beside it."""
    with h5py.File(path, "w") as file:
        file["c"] = np.random.default_rng(0).random((num_frames, 128, 128), dtype=np.float32)
    described_files.describe(path.parent, described_files.flow(ends="periodic", system="puffs", fields={"tracer": "c"}))


def test_little_more_than_a_window_is_fetched_of_a_remote_file(server, tmp_path):
    write_long(tmp_path / "served" / "a.h5")
    data, here = open_dataset(f"{server.address}/a.h5"), open_dataset(tmp_path / "served")
    assert (data.system, data.trajectories[0].num_frames) == ("puffs", 160)
    assert server.num_bytes("a.h5") <= 2 * BLOCK
    frames, box = data.read(0, 100, 104), data.read(0, 20, 22, (slice(0, 1), slice(0, 8), slice(0, 128)))
    assert np.array_equal(frames, here.read(0, 100, 104))
    assert np.array_equal(box, here.read(0, 20, 22)[:, :, :, :8])
    fetched = server.num_bytes("a.h5")
    assert fetched <= 4 * FRAME + 6 * BLOCK < (tmp_path / "served" / "a.h5").stat().st_size / 5
    assert np.array_equal(data.read(0, 101, 103), frames[1:3]) and server.num_bytes("a.h5") == fetched


@pytest.mark.processes
def test_workers_read_remote_files(server, tmp_path):
    write_seed_groups(tmp_path / "served" / "swe.h5", "shallow_water")
    streams = []
    for place in (f"{server.address}/swe.h5", tmp_path / "served" / "swe.h5"):
        mixture = Mixture([open_dataset(place)], [(0, 2)], weights=[1], num_frames=3, lead_max=4, seed=5)
        streams.append([*micro_batches(mixture, 0, 4, 2, 2, workers=2, start_method="fork")])
    for (one,), (other,) in zip(*streams, strict=True):
        assert one.history.equal(other.history) and one.target.equal(other.target)


@law("kind", ["Zarr 2", "Zarr 3", "netCDF-4", "HDF5 in groups"], quick=["netCDF-4", "HDF5 in groups"])
def test_each_kind_is_read_from_afar_as_it_is_here(kind, server, tmp_path):
    described_files.write(tmp_path / "served", kind)
    name = described_files.KINDS[kind][0]
    data, here = open_dataset(f"{server.address}/{name}"), open_dataset(tmp_path / "served")
    assert [about.parameters for about in data.trajectories] == [about.parameters for about in here.trajectories]
    assert data.read(1, 0, 2).tobytes() == here.read(1, 0, 2).tobytes()


def test_a_zarr_store_gives_the_chunks_that_are_read_alone(server, tmp_path):
    described_files.write(tmp_path / "served", "Zarr 2")
    data = open_dataset(f"{server.address}/a.zarr")
    data.read(0, 0, 2, (slice(0, 1), slice(0, 8), slice(0, 5)))
    asked = [path.rpartition("/a.zarr/h/")[2] for path, _ in server.asked if "/a.zarr/h/" in path]
    assert [name for name in asked if name[:1].isdecimal()] == ["0.0.0.0"]


def test_a_folder_elsewhere_is_searched():
    memory = fsspec.filesystem("memory")
    with memory.open("/sets/swe/a.h5", "wb") as file, h5py.File(file, "w") as made:
        made["0000/data"] = np.ones((3, 4, 4, 1), np.float32)
        for axis, size in {"t": 3, "x": 4, "y": 4}.items():
            made[f"0000/grid/{axis}"] = np.arange(size, dtype=np.float32)
    assert [str(source) for source in open_dataset("memory://sets").sources] == ["memory://sets/swe/a.h5"]


def test_what_is_not_there_or_not_known_is_a_sentence(server):
    for address, sentence in {
        f"{server.address}/a.h5": "does not exist; check the address",
        "http://nowhere.invalid/a.h5": "nowhere.invalid/a.h5 cannot be reached .*check network, address",
        "gopher://here/a.h5": "is of no protocol that fsspec knows",
        "reference://a": "reference://a cannot be reached",
        "reference::http://127.0.0.1:9/a.json": "is a chain of addresses, which is not followed",
        "zip://a.h5::http://127.0.0.1:9/a.zip": "is a chain of addresses, which is not followed",
    }.items():
        with pytest.raises(DataError, match=sentence):
            open_dataset(address)


def test_a_thread_that_fetches_never_waits_for_the_lock_of_hdf5_by_garbage(server, tmp_path, monkeypatch):
    write_long(tmp_path / "served" / "a.h5")
    data, fetch, ended = open_dataset(f"{server.address}/a.h5"), HTTPFile._fetch_range, []
    file = h5py.File(tmp_path / "served" / "a.h5")

    def fetch_beside_a_thread(*arguments):
        garbage = {"dataset": file["c"]}
        garbage["itself"] = garbage
        del garbage
        # As one of fsspec's threads that finds it in between: objects of h5py are freed under its lock.
        thread = threading.Thread(target=lambda: [[] for _ in range(10_000)], daemon=True)
        thread.start()
        thread.join(20)
        ended.append(not thread.is_alive())
        return fetch(*arguments)

    monkeypatch.setattr(HTTPFile, "_fetch_range", fetch_beside_a_thread)
    with file:
        data.read(0, 100, 104)
    assert ended and all(ended)


def test_a_server_that_sends_no_parts_is_refused_before_it_has_sent_the_whole(server, tmp_path):
    server.sends_parts = False
    write_long(tmp_path / "served" / "a.h5")
    with pytest.raises(DataError, match="a.h5 cannot be reached .*range requests"):
        open_dataset(f"{server.address}/a.h5").read(0, 100, 104)


@pytest.mark.parametrize("kind", ["netCDF-3", "NumPy"])
def test_files_that_are_mapped_into_memory_are_refused_from_afar(kind, server, tmp_path):
    described_files.write(tmp_path / "served", kind)
    with pytest.raises(DataError, match="is not read from afar, as HDF5, netCDF-4 and Zarr are; download it"):
        open_dataset(f"{server.address}/{described_files.KINDS[kind][0]}")
