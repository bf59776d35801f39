"""Spreads and reading of windows."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from matey.config import DataDescription
from matey.data import DataError, Window, open_dataset, read_rollouts, read_windows, spread_windows
from matey.data.described import DataFile, DescribedFiles
from matey.data.reading import read_box, read_parts
from tests.support.described_files import flow
from tests.support.layout_files import coded_value, write_seed_groups
from tests.support.parts import share_in


@pytest.fixture
def sets(shallow_water_file, diffusion_reaction_file):
    return [open_dataset(shallow_water_file), open_dataset(diffusion_reaction_file)]


def first_value(trajectory, frame):
    return coded_value(trajectory, frame, 0, 0, 0)


def test_history_ends_right_before_the_target_counts_its_lead(sets):
    (batch,) = read_windows(sets, [Window(0, 1, 2, 1), Window(0, 2, 0, 5)], num_frames=3)
    assert batch.history.shape == (2, 3, 1, 1, 8, 12) and batch.target.shape == (2, 1, 1, 8, 12)
    assert batch.history[:, :, 0, 0, 0, 0].tolist() == [
        [first_value(1, frame) for frame in (2, 3, 4)],
        [first_value(2, frame) for frame in (0, 1, 2)],
    ]
    assert batch.target[:, 0, 0, 0, 0].tolist() == [first_value(1, 5), first_value(2, 7)]
    assert batch.lead_time.tolist() == [1, 5] and batch.lead_time.dtype == torch.float32
    assert (batch.system, batch.fields) == ("shallow_water", ("water_height",))
    assert batch.spacing == pytest.approx((1.0, 0.25, 0.5)) and batch.periodic == (False, False, False)


def test_a_part_of_a_window_is_read_as_it_lies_in_the_whole_and_may_go_round(sets):
    windows = [Window(0, 1, 2, 1), Window(0, 2, 0, 5)]
    (batch,) = read_windows(sets, windows, num_frames=3)
    boxes = [(0, (slice(0, 1), slice(2, 5), slice(0, 12))), (1, (slice(0, 1), slice(6, 11), slice(8, 30)))]
    (part,) = read_parts(sets, windows, 3, lambda samples: [boxes])
    assert part.samples.window == (3, *batch.grid) and part.samples.number == 2
    for piece, (sample, (_, y, x)) in zip(part.pieces, boxes, strict=True):
        assert (piece.sample, piece.start) == (sample, (0, y.start, x.start))
        rows, columns = (torch.arange(side.start, side.stop) % size for side, size in ((y, 8), (x, 12)))
        assert torch.equal(piece.history, batch.history[sample][..., rows, :][..., columns])
        assert torch.equal(piece.target, batch.target[sample][..., rows, :][..., columns])


def test_windows_of_one_system_share_a_batch_and_keep_their_order(sets):
    windows = [Window(1, 0, 4, 1), Window(0, 0, 0, 1), Window(1, 2, 1, 2), Window(0, 1, 3, 3)]
    batches = read_windows(sets, windows, num_frames=2)
    assert [batch.system for batch in batches] == ["diffusion_reaction", "shallow_water"]
    assert [batch.lead_time.tolist() for batch in batches] == [[1, 2], [1, 3]]
    assert batches[0].history[:, 0, 0, 0, 0, 0].tolist() == [first_value(0, 4), first_value(2, 1)]


def test_spread_windows_are_even_distinct_and_always_the_same(sets):
    windows = spread_windows(sets[0], [0, 2], num_frames=3, lead=2, count=6, set_index=4)
    assert windows == spread_windows(sets[0], [0, 2], num_frames=3, lead=2, count=6, set_index=4)
    assert len(set(windows)) == 6 and {(w.set_index, w.lead) for w in windows} == {(4, 2)}
    assert [w.trajectory for w in windows] == [0, 0, 0, 2, 2, 2]
    # 14 windows fit, 7 in each trajectory; one from each sixth of them.
    numbers = [7 * (w.trajectory // 2) + w.start for w in windows]
    assert all(14 * i // 6 <= number < 14 * (i + 1) // 6 for i, number in enumerate(numbers))


def test_spread_windows_meet_trajectories_of_one_length_at_many_times(tmp_path):
    ensemble = open_dataset(write_seed_groups(tmp_path / "twenty.h5", "shallow_water", num_frames=(11,) * 20))
    windows = spread_windows(ensemble, range(20), num_frames=2, lead=1, count=20)
    assert len({w.trajectory for w in windows}) == 20
    assert len({w.start for w in windows}) > 5


def test_a_trajectory_shorter_than_a_window_is_named(sets):
    with pytest.raises(
        DataError, match=r"h5, trajectory 0001: expected at least 13 frames, 3 of .* got 11; ask for fewer"
    ):
        spread_windows(sets[0], [1], num_frames=3, lead=1, count=4, horizon=10)


def test_rollout_truth_is_the_frames_after_the_history(sets):
    windows = [Window(0, 0, 1, 1), Window(1, 1, 0, 1), Window(0, 2, 4, 2)]
    water, reaction = read_rollouts(sets, windows, num_frames=2, horizon=3)
    assert water.truth.shape == (2, 3, 1, 1, 8, 12) and reaction.truth.shape == (1, 3, 2, 1, 8, 12)
    assert water.truth[:, :, 0, 0, 0, 0].tolist() == [
        [first_value(0, frame) for frame in (3, 4, 5)],
        [first_value(2, frame) for frame in (6, 7, 8)],
    ]
    torch.testing.assert_close(water.truth[0, 0], water.batch.target[0])
    torch.testing.assert_close(water.truth[1, 1], water.batch.target[1])


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
