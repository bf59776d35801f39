"""Boxes of cells that a rank reads: how much of a file, and how often a chunk."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from matey.config import DataDescription
from matey.data.described import DataFile, DescribedFiles
from matey.data.reading import read_box, read_parts, read_windows
from matey.data.windows import Window
from tests.support.described_files import flow
from tests.support.parts import share_in

GRID, FRAMES, FIELDS = (64, 64, 64), 4, 2
WINDOW = Window(0, 0, 0, 1)


def described(path):
    fields = {f"field_{number}": {"array": "values", "index": number} for number in range(FIELDS)}
    description = flow("component time z y x", "open", files=path.name, fields=fields)
    return DescribedFiles(DataDescription.model_validate(description), [DataFile((path,))])


def written(path, grid=GRID, **how):
    values = np.random.default_rng(0).random((FIELDS, FRAMES + 1, *grid), dtype=np.float32)
    with h5py.File(path, "w") as file:
        file.create_dataset("values", data=values, **how)
    return described(path)


def bytes_read():
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])


def read_by(data, rank, ways, coarsest=(1, 8, 8, 8)):
    return read_parts([data], [WINDOW], FRAMES, share_in(coarsest, rank, ways))[0]


def same_as_whole(data, part):
    (whole,) = read_windows([data], [WINDOW], FRAMES)
    for piece in part.pieces:
        z, y, x = (slice(first, first + size) for first, size in zip(piece.start, piece.target.shape[1:], strict=True))
        assert np.array_equal(piece.history, whole.history[0, ..., z, y, x])
        assert np.array_equal(piece.target, whole.target[0, ..., z, y, x])


def test_a_rank_reads_its_share_of_a_contiguous_file(tmp_path):
    data = written(tmp_path / "values.h5")
    data.read(0, 0, 1, (slice(0, 1),) * 3)  # opens the file
    before = bytes_read()
    read_windows([data], [WINDOW], FRAMES)
    whole = bytes_read() - before
    assert whole == pytest.approx(4 * FIELDS * (FRAMES + 1) * np.prod(GRID), rel=0.01)
    for rank in range(4):
        before = bytes_read()
        part = read_by(data, rank, 4)
        assert bytes_read() - before <= 1.15 / 4 * whole
        same_as_whole(data, part)


def test_a_box_that_goes_around_a_domain_is_read_at_both_ends(tmp_path):
    data = written(tmp_path / "values.h5", (4, 6, 8), chunks=(1, 1, 4, 6, 8), compression="lzf")
    whole = data.read(0, 0, 2, (slice(0, 4), slice(0, 6), slice(0, 8)))
    found = read_box(data, 0, 0, 2, (slice(0, 4), slice(-2, 3), slice(6, 11)))
    assert np.array_equal(
        found, np.take(np.take(whole, range(-2, 3), axis=3, mode="wrap"), range(6, 11), axis=4, mode="wrap")
    )
