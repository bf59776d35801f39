"""Datasets that HDF5 reads as zeros which nobody wrote are refused, in described files and in published layouts."""

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t

from matey.data import DataError, open_dataset
from matey.data.unwritten import reason_of_no_values
from tests.support import layout_files as layouts
from tests.support.small_files import write_swe

SHAPE = (4, 6)


def write_source(path, name="data", shape=SHAPE, maxshape=None):
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=np.ones(shape, "f4"), maxshape=maxshape)


def write_virtual(path, boxes, name="u", shape=SHAPE, fill=None, mode="w"):
    """Write a virtual dataset of boxes ``(place, file, dataset)``, each filled by a dataset of its own shape."""
    layout = h5py.VirtualLayout(shape, "f4")
    for place, file, dataset in boxes:
        layout[place] = h5py.VirtualSource(file, dataset, np.empty(shape)[place].shape)
    with h5py.File(path, mode) as file:
        file.create_virtual_dataset(name, layout, fillvalue=fill)


def reason(path, name="u"):
    with h5py.File(path) as file:
        return reason_of_no_values(file[name])


ALL = np.s_[:, :]


@pytest.fixture
def path(tmp_path):
    write_source(tmp_path / "source.h5")
    return tmp_path / "a.h5"


def test_a_virtual_dataset_with_all_of_its_sources_has_values(path):
    write_virtual(path, [(ALL, "source.h5", "data")])
    write_virtual(path, [(ALL, ".", "u")], name="again", mode="a")
    write_virtual(path, [(ALL, str(path.with_name("source.h5")), "data")], name="absolute", mode="a")
    assert [reason(path, name) for name in ("u", "again", "absolute")] == [""] * 3


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([(ALL, "gone.h5", "data")], "takes values from gone.h5, which is not there: put it back, or cut this out"),
        (
            [(ALL, "source.h5", "heat")],
            "takes values from 'heat' in source.h5, which has only data: write it again, or",
        ),
        (
            [(np.s_[:3], "source.h5", "data")],
            "takes only a part of its values from elsewhere: map the rest too, or set",
        ),
        ([], "takes only a part of its values"),
        ([(ALL, ".", "u")], "and that takes values from itself: write it again"),
        ([(ALL, "text.h5", "data")], "takes values from another file: .*text.h5 is not an HDF5 file"),
        ([(ALL, "empty.h5", "data")], "from 'data' in empty.h5, and that was never written to: write it again"),
        (
            [(ALL, "chain.h5", "data")],
            "from 'data' in chain.h5, and that takes values from gone.h5, which is not there",
        ),
    ],
)
def test_a_virtual_dataset_without_some_of_its_values_says_which(path, boxes, words):
    path.with_name("text.h5").write_text("no data")
    with h5py.File(path.with_name("empty.h5"), "w") as file:
        file.create_dataset("data", SHAPE, "f4")
    write_virtual(path.with_name("chain.h5"), [(ALL, "gone.h5", "data")], name="data")
    write_virtual(path, boxes)
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(reason(path))


@pytest.mark.parametrize(
    ("places", "is_whole"),
    [
        ([np.s_[::2], np.s_[1::2]], True),
        ([np.s_[:, 1:3], np.s_[:, [0, 3, 4, 5]]], True),
        ([np.s_[:2, :3], np.s_[2:, :3], np.s_[:2, 3:], np.s_[2:, 3:]], True),
        ([np.s_[:3], np.s_[1:]], True),
        ([np.s_[:3], np.s_[:3]], False),
        ([np.s_[:2], np.s_[1:3]], False),
        ([np.s_[:, :5], np.s_[:, [0, 2, 4]]], False),
        ([np.s_[::2], np.s_[1::2, :5]], False),
    ],
)
def test_boxes_count_as_the_cells_that_they_cover_together(path, places, is_whole):
    boxes = []
    for number, place in enumerate(places):
        write_source(path.with_name(f"{number}.h5"), shape=np.empty(SHAPE)[place].shape)
        boxes.append((place, f"{number}.h5", "data"))
    write_virtual(path, boxes)
    assert (reason(path) == "") is is_whole
    write_virtual(path, boxes, fill=np.nan)
    assert reason(path) == "", "a fill value that the user chose says what the other cells hold"


def write_endless(path, boxes, shape):
    """Write a virtual dataset that grows along its first axis, of boxes ``(columns, file, frames of a source)``."""
    with h5py.File(path, "w", libver="latest") as file:
        made = h5p.create(h5p.DATASET_CREATE)
        for columns, name, source in boxes:
            space = h5s.create_simple(shape, (h5s.UNLIMITED, shape[1]))
            size = columns.stop - columns.start
            space.select_hyperslab((0, columns.start), (h5s.UNLIMITED, 1), (1, 1), (1, size))
            made.set_virtual(space, name.encode(), b"data", source)
        whole = h5s.create_simple(shape, (h5s.UNLIMITED, shape[1]))
        h5d.create(file.id, b"u", h5t.py_create(np.dtype("f4")), whole, dcpl=made)


def test_a_source_shorter_than_the_others_of_a_growing_dataset_is_named(path):
    endless = h5s.create_simple((1, 3), (h5s.UNLIMITED, 3))
    endless.select_hyperslab((0, 0), (h5s.UNLIMITED, 1), (1, 1), (1, 3))
    for name, num_frames in (("long", 5), ("short", 3), ("as_long", 5)):
        write_source(path.with_name(f"{name}.h5"), shape=(num_frames, 3), maxshape=(None, 3))
    for other, words in (("as_long", ""), ("short", "takes 15 values from 'data' in short.h5, which has 9 of them")):
        write_endless(path, [(slice(0, 3), "long.h5", endless), (slice(3, 6), f"{other}.h5", endless)], (1, 6))
        assert reason(path).partition(":")[0] == words


def test_a_file_that_is_missing_from_a_numbered_series_is_named(path):
    frame = h5s.create_simple((1, 3))
    for name in ("a0", "a1", "a2", "b0", "b1", "b2"):
        write_source(path.with_name(f"{name}.h5"), shape=(1, 3))
    write_endless(path, [(slice(0, 3), "a%b.h5", frame), (slice(3, 6), "b%b.h5", frame)], (1, 6))
    assert reason(path) == ""
    path.with_name("b2.h5").unlink()
    assert "takes values from b2.h5, which is not there" in reason(path)


LAYOUTS = {
    "the well": ("t0_fields/height", layouts.write_the_well),
    "the well's times": ("dimensions/time", layouts.write_the_well),
    "the well's scalars": ("scalars/viscosity", layouts.write_the_well),
    "the well's masks": ("boundary_conditions/below/mask", layouts.write_the_well),
    "a group per seed": ("0000/data", lambda path: write_swe(path, 2)),
    "times of a seed": ("0001/grid/t", lambda path: write_swe(path, 2)),
    "compressible": ("pressure", layouts.write_compressible),
    "incompressible": ("particles", layouts.write_incompressible),
    "a force": ("force", layouts.write_incompressible),
    "cavity": ("magnetic", layouts.write_cavity),
    "thermals": ("theta", lambda path: layouts.write_miniweather_netcdf4(path, layouts.thermals())),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("kind", ["never written", "virtual"])
def test_readers_of_layouts_refuse_zeros_that_nobody_wrote(tmp_path, name, kind):
    dataset, write = LAYOUTS[name]
    path = write(tmp_path / ("a.nc" if name == "thermals" else "a.hdf5"))
    with h5py.File(path, "a") as file:
        item, attributes = file[dataset], dict(file[dataset].attrs)
        shape, dtype = item.shape, item.dtype
        del file[dataset]
        if kind == "virtual":
            layout = h5py.VirtualLayout(shape, dtype)
            layout[...] = h5py.VirtualSource("gone.h5", "data", shape)
            file.create_virtual_dataset(dataset, layout)
        else:
            file.create_dataset(dataset, shape, dtype)
        for key, value in attributes.items():
            if key not in ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME"):
                file[dataset].attrs[key] = value
    words = "was never written to: write it again" if kind == "never written" else "takes values from gone.h5, which is"
    with pytest.raises(DataError, match=rf"a\.\w+, /?{dataset}: {words}"):
        open_dataset(path)
