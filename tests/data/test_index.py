"""Descriptions kept in a run's folder: used while files are as they were, and nothing but descriptions."""

import os
import pickle
import zlib
from hashlib import sha256

import numpy as np
import pytest

from matey.data import DataError, open_dataset
from matey.data.index import Index
from matey.data.registry import describe
from matey.data.remote.cache import RemoteFile
from matey.data.remote.paths import RemotePath
from matey.data.remote.server import about
from tests.support import layout_files as layouts
from tests.support.small_files import write_swe
from tests.support.web_server import serve

WRITERS = {
    "incompressible": layouts.write_incompressible,
    "compressible": layouts.write_compressible,
    "miniweather": lambda path: layouts.write_miniweather(path, layouts.thermals()),
    "cavity": layouts.write_cavity,
    "the_well": layouts.write_the_well,
    "shallow_water": lambda path: layouts.write_seed_groups(path, "shallow_water"),
}


@pytest.fixture
def described(monkeypatch):
    """Return a list to which the path of every file is appended that is described."""
    paths = []
    monkeypatch.setattr("matey.data.registry.describe", lambda file: paths.append(file.path) or describe(file))
    return paths


def opened(path, index=None):
    index = Index("code", b"" if index is None else index)
    return open_dataset(path, index=index), index.text()


@pytest.mark.parametrize("layout", WRITERS)
def test_what_was_described_earlier_is_read_as_if_described_anew(tmp_path, layout, described):
    path = tmp_path / ("a.nc" if layout == "miniweather" else "a.h5")
    WRITERS[layout](path)
    first, index = opened(path)
    again, _ = opened(path, index)
    assert described == [path]
    assert again.trajectories == first.trajectories and (again.fields, again.units) == (first.fields, first.units)
    assert np.array_equal(again.read(0, 0, 2), first.read(0, 0, 2))


def test_files_of_a_description_are_read_as_if_described_anew(tmp_path, described):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((2, 5, 8, 8), dtype=np.float32))
    (tmp_path / "matey.yaml").write_text(
        "system: waves\naxes: [trajectory, time, y, x]\nfields: {height: {}}\nspacing: {y: 1, x: 1}\n"
        "time_step: 1\nboundary: {y: wall, x: wall}\n"
    )
    first, index = opened(tmp_path)
    again, _ = opened(tmp_path, index)
    assert described == [tmp_path / "a.npy"] and again.trajectories == first.trajectories
    assert np.array_equal(again.read(1, 0, 5), first.read(1, 0, 5))


def test_a_file_that_has_changed_is_described_anew_and_no_other(tmp_path, described):
    paths = [write_swe(tmp_path / f"{name}.h5", 2) for name in "ab"]
    _, index = opened(tmp_path)
    write_swe(paths[1], 3)
    data, index = opened(tmp_path, index)
    assert described == [*paths, paths[1]] and data.num_trajectories == 5
    os.utime(paths[0], ns=(1, 1))
    opened(tmp_path, index)
    assert described[3:] == [paths[0]]


def test_an_index_that_is_damaged_or_of_other_code_is_made_again(tmp_path, described):
    path = write_swe(tmp_path / "a.h5", 2)
    _, index = opened(path)
    for bad in (b"", b"\n", index[:-1], index.replace(b"code", b"other"), index[:90] + b"?" + index[91:]):
        assert opened(path, bad)[1] == index
    assert described == [path] * 6


class Runs:
    """Pickled, it calls `os.mkdir` when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_an_index_written_by_another_hand_runs_nothing(tmp_path, described):
    path = write_swe(tmp_path / "a.h5", 2)
    body = zlib.compress(pickle.dumps({"x": Runs(str(tmp_path / "made"))}))
    opened(path, f"code {sha256(body).hexdigest()}\n".encode() + body)
    assert not (tmp_path / "made").exists() and described == [path]


def test_a_file_of_unknown_layout_is_refused_with_an_index_as_without(tmp_path):
    path = write_swe(tmp_path / "a.h5", 2)
    (tmp_path / "b.h5").write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"b\.h5"):
        opened(tmp_path)


class Makes:
    """Pickled, it makes an object of a class when it is read."""

    def __init__(self, kind, *arguments):
        self.made = kind, arguments

    def __reduce__(self):
        return self.made


def test_an_index_written_by_another_hand_asks_no_server(tmp_path, described):
    path = write_swe(tmp_path / "served" / "a.h5", 2)
    with serve(tmp_path / "served") as server:
        address = f"{server.address}/a.h5"
        for part in (Makes(RemoteFile, address), Makes(type(open_dataset(path)), RemotePath(address))):
            index = Index("code")
            open_dataset(path, index=index)
            entries = {key: (stamp, pickle.dumps(part)) for key, (stamp, _) in index._entries.items()}
            body = zlib.compress(pickle.dumps(entries))
            about.cache_clear()
            opened(path, f"code {sha256(body).hexdigest()}\n".encode() + body)
        assert server.asked == [] and about.cache_info().currsize == 0 and described == [path] * 5
