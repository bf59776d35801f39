"""Fields in files whose layers along z, or along y in the plane, are scattered: what ranks read, and what they then hold."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from matey.config import DataDescription
from matey.data.described import DescribedFiles
from matey.data.located import DataFile
from matey.data.reading import read_windows
from matey.data.reading_parts import read_parts, read_truth_part
from matey.data.registry import open_dataset
from matey.data.windows import Window
from matey.model.as_held import as_held
from matey.model.prepare import prepare
from matey.model.shared_fields import prepare_parts
from matey.nested import tensors_in
from matey.parallel.sequence import SequenceRanks
from matey.parallel.topology import Topology
from matey.tokens.parts import BrickShare, Sharing
from tests.support.laws import law
from tests.support.layout_files import write_compressible
from tests.support.models import VOCABULARY, make_model
from tests.support.parts import Group, check_same

FRAMES = 2
WINDOWS = [Window(0, 1, 1, 2), Window(0, 0, 0, 1)]
CASES = {
    "x y z": ((20, 24, 32), (1, 4, 8, 8), ("open",) * 3),
    "y x z": ((20, 24, 32), (1, 4, 8, 8), ("periodic", "wall", "periodic")),
    "x z y": ((18, 20, 12), (1, 4, 8, 8), ("periodic",) * 3),  # no brick divides an axis
    "x y": ((1, 40, 24), (1, 1, 16, 8), ("open", "periodic", "open")),
}


def written(path, axes, grid, boundary):
    """Write two trajectories of five frames of two fields, and a third that is given, with these axes in the file."""
    names = axes.split()
    sizes = [grid["zyx".index(name)] for name in names]
    description = {
        "system": "gas",
        "files": path.name,
        "axes": ["trajectory", "time", *names],
        "fields": {name: {"array": name} for name in VOCABULARY[1:]},
        "given": {"force": {"array": "force"}},
        "spacing": dict.fromkeys(names, 1.0),
        "time_step": 1.0,
        "boundary": {name: boundary["zyx".index(name)] for name in names},
    }
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for name in (*VOCABULARY[1:], "force"):
            file[name] = random.random((2, 5, *sizes), dtype=np.float32)
    return DescribedFiles(DataDescription.model_validate(description), [DataFile((path,))])


def ranks_of(rank, size):
    return SequenceRanks(Topology(rank, size, size, 3))


def held(data, brick, rank, size):
    """What a rank would hold if it read this itself."""
    return read_parts(
        [data], WINDOWS, FRAMES, lambda samples: Sharing.share_out(samples, brick, size).boxes(samples, rank)
    )


@law("size", [2, 3, 5, 6], quick=[3])
@pytest.mark.parametrize("axes", CASES)
def test_ranks_hold_what_they_would_have_read_themselves(axes, size, tmp_path):
    grid, brick, boundary = CASES[axes]
    data = written(tmp_path / "values.h5", axes, grid, boundary)

    def turned(rank, exchange):
        parts = read_parts([data], WINDOWS, FRAMES, BrickShare(brick, rank, size))
        assert parts[0].samples.is_scattered
        as_held(parts, brick, ranks_of(rank, size), exchange)
        return parts

    for rank, (part,) in enumerate(Group(size).run(turned)):
        (expected,) = held(data, brick, rank, size)
        assert not part.samples.is_scattered and part.num_given == expected.num_given > FRAMES
        places = [[(piece.sample, piece.start) for piece in each.pieces] for each in (part, expected)]
        assert places[0] == places[1]
        for ours, theirs in zip(tensors_in(part.pieces), tensors_in(expected.pieces), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.skipif(not Path("/proc/self/io").is_file(), reason="this system does not count the bytes that are read")
def test_a_rank_reads_its_share_of_a_file_whose_slowest_axis_is_x(tmp_path):
    grid, brick = (32, 32, 64), (1, 8, 8, 8)
    data = written(tmp_path / "values.h5", "x y z", grid, ("open",) * 3)
    data.read(0, 0, 1, (slice(0, 1),) * 3)  # opens the file

    def bytes_of(call):
        before = int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])
        call()
        return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0]) - before

    whole = bytes_of(lambda: read_windows([data], WINDOWS, FRAMES))
    for rank in range(4):
        share = BrickShare(brick, rank, 4)
        assert bytes_of(lambda share=share: read_parts([data], WINDOWS, FRAMES, share)) <= 1.15 / 4 * whole
        # What this is for: to read half of a sample is to read all of it.
        assert bytes_of(lambda rank=rank: held(data, brick, rank, 4)) > 0.9 / 2 * whole


def test_ranks_that_read_whole_samples_send_nothing(tmp_path):
    grid, brick, boundary = CASES["x y z"]
    data = written(tmp_path / "values.h5", "x y z", grid, boundary)
    for rank in range(2):
        (part,) = parts = read_parts([data], WINDOWS, FRAMES, BrickShare(brick, rank, 2))
        as_held(parts, brick, ranks_of(rank, 2), exchange=None)
        assert not parts[0].samples.is_scattered and parts[0].pieces == part.pieces


def test_what_is_prepared_and_compared_is_the_same_as_of_whole_fields(tmp_path):
    data = open_dataset(write_compressible(tmp_path / "flow.h5"))
    assert data.order(0) == (0, 2, 1)
    model = make_model(((1, 1, 4, 4), (1, 1, 2, 2)), torch.float32, fields=data.fields)
    brick, whole = model.config.patches[0], read_windows([data], WINDOWS, FRAMES)

    def prepared(rank, exchange):
        share, ranks = BrickShare(brick, rank, 3), ranks_of(rank, 3)
        truth = [read_truth_part([data], WINDOWS, FRAMES, 2, share)]
        as_held(truth, brick, ranks, exchange)
        return truth[0], prepare_parts(read_parts([data], WINDOWS, FRAMES, share), model.config, ranks, exchange)

    for rank, (truth, ours) in enumerate(Group(3).run(prepared)):
        expected = prepare(whole, model.config, ranks_of(rank, 3))
        check_same(ours, expected)
        for piece in truth.pieces:
            window = WINDOWS[piece.sample]
            at = window.start + FRAMES - 1 + 2
            assert np.array_equal(piece.history, data.read(window.trajectory, at, at + 1, piece.cells))
