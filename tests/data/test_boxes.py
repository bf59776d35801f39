"""Boxes of cells that a rank reads: how much of a file, and how often a chunk."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from matey.config import DataDescription
from matey.data.boxes import read_boxes, unpacked_cells
from matey.data.described import DescribedFiles
from matey.data.located import DataFile
from matey.data.reading import read_windows
from matey.data.reading_parts import read_parts
from matey.data.windows import Window
from matey.tokens.parts import MOST_AT_CHUNKS, BrickShare, Sharing
from tests.support.described_files import flow
from tests.support.laws import law

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


def read_by(data, rank, ways, brick=(1, 8, 8, 8)):
    return read_parts([data], [WINDOW], FRAMES, BrickShare(brick, rank, ways))[0]


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


def test_a_rank_reads_its_share_where_its_boxes_are_parts_of_layers(tmp_path):
    grid = (32, 96, 96)
    data = written(tmp_path / "values.h5", grid)
    data.read(0, 0, 1, (slice(0, 1),) * 3)  # opens the file
    for rank in range(4):
        before = bytes_read()
        part = read_by(data, rank, 4, brick=(1, 16, 16, 16))
        assert bytes_read() - before <= 1.15 / 4 * 4 * FIELDS * (FRAMES + 1) * np.prod(grid)
        same_as_whole(data, part)


def counted(data, monkeypatch):
    boxes, read = [], data.read
    monkeypatch.setattr(data, "read", lambda *args: (boxes.extend(args[3:]), read(*args))[1])
    return boxes


@pytest.fixture(scope="module")
def in_one_chunk(tmp_path_factory):
    """Data whose fields are a single compressed chunk each."""
    path = tmp_path_factory.mktemp("boxes") / "values.h5"
    return written(path, chunks=(1, 1, *GRID), compression="gzip", compression_opts=1)


@law("rank", range(3), quick=[1])
def test_boxes_of_a_rank_that_share_compressed_chunks_are_read_in_one_go(in_one_chunk, monkeypatch, rank):
    data = in_one_chunk
    assert data.chunk(0) == GRID
    boxes = counted(data, monkeypatch)
    part = read_by(data, rank, 3)
    assert len(part.pieces) > 1 and len(boxes) == 2  # of the history, and of the target
    same_as_whole(data, part)


def layers_unpacked(boxes, depth):
    """Layers of chunks that reads touch, each as often as it is read."""
    return sorted(layer for z, *_ in boxes for layer in range(z.start // depth, -(-z.stop // depth)))


def test_ranks_unpack_each_chunk_once_where_their_parts_can_end_with_chunks(tmp_path, monkeypatch):
    data = written(tmp_path / "values.h5", chunks=(1, 1, 8, 64, 64), compression="lzf")
    boxes = counted(data, monkeypatch)
    parts = [read_by(data, rank, 3) for rank in range(3)]
    assert layers_unpacked(boxes, 8) == sorted(2 * list(range(8)))  # of the history, and of the target
    numbers = [sum(piece.target[0].numel() for piece in part.pieces) for part in parts]
    assert sum(numbers) == np.prod(GRID) and max(numbers) <= MOST_AT_CHUNKS / 3 * np.prod(GRID)
    for rank, part in enumerate(parts):  # as later steps take it
        assert Sharing.share_out([part.samples], (1, 8, 8, 8), 3).number_of(0, rank) == numbers[rank] / 8**3
        same_as_whole(data, part)


def test_no_rank_reads_much_more_than_its_part_for_the_sake_of_chunks(tmp_path, monkeypatch):
    data = written(tmp_path / "values.h5", chunks=(1, 1, 16, 64, 64), compression="lzf")
    boxes = counted(data, monkeypatch)
    parts = [read_by(data, rank, 3) for rank in range(3)]
    numbers = [sum(piece.target[0].numel() for piece in part.pieces) for part in parts]
    assert sum(numbers) == np.prod(GRID) and max(numbers) <= 1.05 / 3 * np.prod(GRID)
    assert layers_unpacked(boxes, 16) == sorted(2 * [0, 1, 1, 2, 2, 3])
    samples, layer = [part.samples for part in parts[:1]], 16 * 64 * 64
    of_ranks = [unpacked_cells(BrickShare((1, 8, 8, 8), rank, 3)(samples)[0], (16, 64, 64), GRID) for rank in range(3)]
    assert of_ranks == [2 * layer, 2 * layer, 2 * layer]


@pytest.mark.parametrize(
    "how",
    [{"chunks": (1, 1, 8, 16, 16), "compression": "gzip"}, {"chunks": (1, 1, 16, 16, 16)}, {}],
    ids=["small chunks", "uncompressed chunks", "contiguous"],
)
def test_boxes_that_share_no_compressed_chunk_are_read_by_themselves(tmp_path, monkeypatch, how):
    data = written(tmp_path / "values.h5", (16, 16, 16), **how)
    boxes = counted(data, monkeypatch)
    part = read_by(data, 1, 4, brick=(1, 2, 4, 4) if "compression" not in how else (1, 8, 4, 4))
    assert len(boxes) == 2 * len(part.pieces)
    same_as_whole(data, part)


def test_boxes_far_apart_are_not_read_with_all_that_lies_between(tmp_path, monkeypatch):
    data = written(tmp_path / "values.h5", chunks=(1, 1, *GRID), compression="lzf")
    boxes = counted(data, monkeypatch)
    layers = [(slice(first, first + 1), slice(0, 64), slice(0, 64)) for first in (0, 1, 2, 60, 62)]
    found = read_boxes(data, 0, 0, 1, layers)
    assert [(box[0].start, box[0].stop) for box in boxes] == [(0, 3), (60, 63)]
    assert all(np.array_equal(values, data.read(0, 0, 1, box)) for values, box in zip(found, layers, strict=True))
