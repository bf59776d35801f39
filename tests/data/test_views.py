"""Views of a set: trajectories cut in time, blocks of which are held out; and coarser ones, from whatever part is read."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from matey.data import DataError, Mixture, TrajectorySet, open_dataset, read_windows, split_set, spread_windows
from matey.data.split_record import RecordedParts, record_split, seen_text, split_as_recorded, trained_on
from matey.data.splits import fingerprints
from matey.data.trajectories import Coordinates
from matey.data.views import CoarsenedTrajectories, Span, TimeBlocks
from matey.data.windows import Window
from tests.support.described_files import flow

SHARES = (0.7, 0.1, 0.2)
CUTS = [(0, 13), (14, 15), (16, 19)]
DESCRIPTION = flow(system="les", fields={"a": {}})


def long_run(num_trajectories=1, num_frames=20, **more):
    """Trajectories whose values tell their trajectory and frame, so that what was read shows where it came from."""
    n, t, y, x = np.ogrid[:num_trajectories, :num_frames, :3, :4]
    values = (1000 * n + t + 0.01 * y + 0.001 * x).astype("f4")
    set_ = TrajectorySet.from_arrays("les", {"a": values}, spacing=(1, 1), boundary=("wall", "wall"), **more)
    return values, set_


def test_blocks_hold_the_frames_of_their_trajectory_in_order():
    values, whole = long_run(2)
    blocks = TimeBlocks.by_shares(whole, SHARES)
    assert [about.name for about in blocks.trajectories] == [
        f"{n}, frames {first} to {last}" for n in (0, 1) for first, last in CUTS
    ]
    for number, about in enumerate(blocks.trajectories):
        first, last = CUTS[number % 3]
        assert about.num_frames == last - first + 1 and about.split == ("train", "valid", "test")[number % 3]
        read = blocks.read(number, 0, about.num_frames, (slice(0, 1), slice(1, 3), slice(0, 2)))
        np.testing.assert_array_equal(read[:, 0, 0], values[number // 3, first : last + 1, 1:3, 0:2])
    assert blocks.sources == whole.sources and blocks.fields == ("a",)


@pytest.mark.parametrize("num_frames", [3, 4, 10, 17, 1000, 1001])
@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.5, 0.5, 0.0), (1.0, 0.0, 0.0), (0.34, 0.33, 0.33)])
def test_every_frame_is_in_one_block_and_every_part_asked_for_has_one(num_frames, shares):
    _, whole = long_run(num_frames=num_frames)
    spans = [Span.named(about.name) for about in TimeBlocks.by_shares(whole, shares).trajectories]
    assert len(spans) == sum(share > 0 for share in shares)
    assert [frame for s in spans for frame in range(s.first, s.last + 1)] == list(range(num_frames))


def test_no_window_for_training_reads_a_frame_that_is_held_out():
    _, whole = long_run(2)
    blocks = TimeBlocks.by_shares(whole, SHARES)
    split = split_set(blocks, SHARES, seed=0)
    mixture = Mixture([blocks], [split.train], [1.0], num_frames=3, lead_max=4)
    for window in mixture.global_batch(0, 500):
        moved = mixture.further(window, 100)
        end = window.start + 3 + moved.lead
        assert blocks.read(window.trajectory, window.start, end)[:, 0].max() % 1000 < CUTS[0][1] + 0.1
    test = spread_windows(blocks, split.test, 2, 2, 100)
    assert {window.start for window in test} == {0}, "4 frames leave room for one window of 2 and a lead of 2"


def test_a_given_field_and_times_are_cut_along():
    wind = np.random.default_rng(0).normal(size=(1, 20, 3, 4))
    depth = np.random.default_rng(1).normal(size=(1, 3, 4))
    _, whole = long_run(given={"wind": wind, "depth": depth})
    whole._read_coordinates = lambda axis, numbers: (Coordinates(np.arange(20.0), "s") for _ in numbers)
    blocks = TimeBlocks.by_shares(whole, SHARES)
    np.testing.assert_allclose(blocks.read_given(2, 1, 3)[:, 0, 0], wind[0, 17:19], rtol=1e-6)
    np.testing.assert_allclose(blocks.with_given(["depth"]).read_given(2, 1, 3)[:, 0, 0], depth, rtol=1e-6)
    np.testing.assert_array_equal(blocks.coordinates("time", [2]).values, np.arange(16.0, 20.0))
    np.testing.assert_array_equal(blocks.coordinates("x", [2]).values, np.arange(20.0))


@pytest.mark.parametrize("stated", [(0,), (1,), (0, 1)])
def test_cutting_what_its_files_mean_for_a_part_is_refused(stated):
    _, whole = long_run(2)
    whole.trajectories = tuple(
        replace(about, split="valid") if number in stated else about for number, about in enumerate(whole.trajectories)
    )
    with pytest.raises(
        DataError, match=f"trajectory {stated[0]}: .* for valid; leave out split_by, or put .* into another set"
    ):
        TimeBlocks.by_shares(whole, SHARES)


def test_a_trajectory_shorter_than_the_parts_is_refused():
    _, whole = long_run(num_frames=2)
    with pytest.raises(DataError, match=r"memory, trajectory 0: expected at least 3 frames to cut in time, .* got 2;"):
        TimeBlocks.by_shares(whole, SHARES)
    with pytest.raises(DataError, match="none negative and summing to 1"):
        TimeBlocks.by_shares(whole, (0.5, 0.1, 0.1))


@pytest.fixture
def described(tmp_path):
    """A function that writes a long run of so many frames, in the same place, and opens it."""

    def write(folder="data", num_frames=20):
        values = np.random.default_rng(0).normal(size=(num_frames, 3, 4)).astype("f4")
        (tmp_path / folder).mkdir(exist_ok=True)
        np.save(tmp_path / folder / "les.npy", values)
        return open_dataset(tmp_path / folder / "les.npy", DESCRIPTION)

    return write


def record(data, shares=SHARES):
    split = split_set(data, shares, 0)
    prints = [fingerprints(data, range(data.num_trajectories))]
    seen = frozenset(seen_text(prints, [split.train]).split())
    return split, record_split([data], [split], prints, shares, 0, None), seen


def test_a_record_knows_blocks_again_and_how_to_cut(described):
    whole = described()
    blocks = TimeBlocks.by_shares(whole, SHARES)
    split, then, _ = record(blocks)
    parts = RecordedParts(then)
    assert split_as_recorded(parts, blocks, 0) == split
    for data in (whole, described("copy")):
        again = parts.cut_as_then(data, SHARES)
        assert parts.parts_of(again) == ["train", "valid", "test"]
    assert RecordedParts(record(whole, (1.0, 0.0, 0.0))[1]).cut_as_then(whole, SHARES) is whole


def test_a_record_cuts_a_simulation_that_has_got_longer_where_it_was_cut(described):
    _, then, seen = record(TimeBlocks.by_shares(described(), SHARES))
    longer = RecordedParts(then).cut_as_then(described(num_frames=30), SHARES)
    assert [about.name for about in longer.trajectories] == [f"les, frames {first} to {last}" for first, last in CUTS]
    assert RecordedParts(then).parts_of(longer) == ["train", "valid", "test"]
    assert trained_on(longer, range(3), seen, then) == [0]
    shorter = described(num_frames=18)
    assert RecordedParts(then).cut_as_then(shorter, SHARES) is shorter


def test_a_trajectory_that_the_record_does_not_know_stays_whole_beside_others(described, tmp_path):
    _, then, _ = record(TimeBlocks.by_shares(described(), SHARES))
    np.save(tmp_path / "data" / "new.npy", np.random.default_rng(2).normal(size=(50, 3, 4)).astype("f4"))
    described(num_frames=30)
    both = RecordedParts(then).cut_as_then(open_dataset(tmp_path / "data", DESCRIPTION), SHARES)
    assert RecordedParts(then).parts_of(both) == ["train", "valid", "test", None]
    assert [about.num_frames for about in both.trajectories] == [14, 2, 4, 50]


def test_frames_that_were_trained_on_are_known_however_the_rest_is_cut(described):
    whole = described()
    _, then, seen = record(TimeBlocks.by_shares(whole, SHARES))
    for shares, trained in (
        (SHARES, [0]),
        ((0.5, 0.2, 0.3), [0, 1]),
        ((0.5, 0.3, 0.2), [0, 1]),
        ((0.9, 0.05, 0.05), [0]),
    ):
        blocks = TimeBlocks.by_shares(whole, shares)
        assert trained_on(blocks, range(3), seen, then) == trained, shares
        assert trained_on(blocks, range(3), frozenset(), then) == trained, "by the record alone"
        assert trained_on(blocks, range(3), seen, None) == [0, 1, 2], "nothing tells how far it was trained on"
    assert trained_on(whole, [0], seen, then) == trained_on(whole, [0], seen, None) == [0]
    _, of_all, seen = record(whole, (1.0, 0.0, 0.0))
    assert trained_on(TimeBlocks.by_shares(whole, SHARES), range(3), seen, of_all) == [0, 1, 2]


def noise(shape=(2, 7, 8, 12), boundary=("wall", "periodic"), **more):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    spacing = [0.25, 0.5, 1.0][: len(shape) - 2]
    return values, TrajectorySet.from_arrays("noise", {"a": values}, spacing=spacing, boundary=boundary, **more)


def test_frames_and_means_are_those_of_the_data():
    values, source = noise(time_step=0.1)
    coarse = CoarsenedTrajectories(source, frames=3, cells=2)
    about = coarse.trajectories[1]
    assert (about.num_frames, about.grid, about.spacing) == (3, (1, 4, 6), (1.0, 0.5, 1.0))
    assert about.time_step == pytest.approx(0.3) and about.boundary == source.trajectories[1].boundary
    expected = np.empty((3, 4, 6))
    for frame in range(3):
        for y in range(4):
            for x in range(6):
                expected[frame, y, x] = values[1, 3 * frame, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean()
    np.testing.assert_allclose(coarse.read(1, 0, 3)[:, 0, 0], expected, rtol=1e-5, atol=1e-7)
    cells = (slice(0, 1), slice(1, 3), slice(4, 6))
    np.testing.assert_array_equal(coarse.read(1, 1, 3, cells), coarse.read(1, 0, 3)[1:, :, *cells])
    assert about.label == "memory, trajectory 1 (every 3 frames, means of 2 cells along each axis)"
    assert coarse.fields == ("a",)


@pytest.mark.parametrize(("shape", "cells"), [((1, 2, 32, 64), 8), ((1, 2, 8, 16, 16), 4), ((1, 2, 24, 24, 24), 2)])
def test_means_in_a_box_are_those_of_the_whole_grid_to_the_last_bit(shape, cells):
    _, source = noise(shape, boundary=["periodic"] * (len(shape) - 2))
    coarse = CoarsenedTrajectories(source, cells=cells)
    whole = coarse.read(0, 0, 2)
    sides = [(slice(0, size), slice(size - 1, size), slice(size // 2, size)) for size in coarse.trajectories[0].grid]
    for box in product(*sides):
        np.testing.assert_array_equal(coarse.read(0, 0, 2, box), whole[:, :, *box])


def test_what_is_given_is_coarsened_likewise():
    constant, varying = (np.random.default_rng(1).normal(size=shape) for shape in ((2, 8, 12), (2, 7, 8, 12)))
    _, source = noise(given={"depth": constant, "wind": varying})
    coarse = CoarsenedTrajectories(source, frames=2, cells=4)
    (batch,) = read_windows([coarse], [Window(0, 1, 1, 1)], num_frames=2)
    blocks = varying[1].reshape(7, 2, 4, 3, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(batch.given[0, :, 1, 0], blocks[[2, 4, 6]], rtol=1e-5, atol=1e-6)
    depth = constant[1].reshape(2, 4, 3, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(batch.given[0, :, 0, 0], [depth] * 3, rtol=1e-5, atol=1e-6)
    assert batch.grid == (1, 2, 3)


def test_a_grid_that_does_not_divide_is_refused():
    _, source = noise((1, 3, 6, 8))
    with pytest.raises(DataError, match=r"divides into blocks of 4 cells along each axis, got 1 x 6 x 8;"):
        CoarsenedTrajectories(source, cells=4)
