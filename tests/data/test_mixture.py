"""The training stream: pure, fair to the weights, the same on any number of ranks; and how windows are spread and read."""

from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from matey.data import (
    DataError,
    Mixture,
    Window,
    micro_batches,
    open_dataset,
    read_rollout,
    read_windows,
    spread_windows,
)
from matey.data.reading import read_parts, sound_windows
from matey.data.splits import split_groups
from matey.train.ahead import on_any_of
from tests.support.described_files import flow
from tests.support.laws import law
from tests.support.layout_files import NUM_X, NUM_Y, coded_value, write_seed_groups
from tests.support.parts import Group, share_in


@pytest.fixture
def sets(shallow_water_file, diffusion_reaction_file):
    return [open_dataset(shallow_water_file), open_dataset(diffusion_reaction_file)]


@pytest.fixture
def mixture(sets):
    return Mixture(sets, [(0, 2), (1,)], weights=(3, 1), num_frames=3, lead_max=4, seed=5)


def samples(batches):
    """Every sample of some FieldBatches as (system, first value of the history, lead): says which window it was."""
    return [
        (batch.system, float(history[0, 0, 0, 0, 0]), float(lead))
        for batch in batches
        for history, lead in zip(batch.history, batch.lead_time, strict=True)
    ]


def test_a_global_batch_depends_on_seed_step_and_size_alone(sets, mixture):
    expected = [mixture.global_batch(step, 8) for step in range(4)]
    np.random.seed(0)
    torch.manual_seed(0)
    again = Mixture(sets, [(0, 2), (1,)], weights=(6, 2), num_frames=3, lead_max=4, seed=5)
    assert [again.global_batch(step, 8) for step in (3, 0)] == [expected[3], expected[0]]
    other = Mixture(sets, [(0, 2), (1,)], weights=(3, 1), num_frames=3, lead_max=4, seed=6)
    assert other.global_batch(0, 8) != expected[0] != expected[1]


def test_windows_drawn_by_themselves_are_those_of_the_whole_batch(mixture):
    for run_length in (1, 4):
        whole = mixture.global_batch(7, 40, run_length)
        parts = [mixture.global_batch(7, 40, run_length, range(first, first + 5)) for first in range(0, 40, 5)]
        assert [window for part in parts for window in part] == whole


def test_windows_are_of_training_trajectories_and_inside_them(tmp_path):
    lengths = (30,) * 10
    trajectories = open_dataset(write_seed_groups(tmp_path / "a.h5", "shallow_water", num_frames=lengths))
    split = split_groups([[n] for n in range(10)], (0.6, 0.2, 0.2), seed=0)
    mixture = Mixture([trajectories], [split.train], weights=[1], num_frames=3, lead_max=4, seed=0)
    windows = [window for step in range(200) for window in mixture.global_batch(step, 16)]
    assert {window.trajectory for window in windows} == set(split.train)
    assert {window.lead for window in windows} == {1, 2, 3, 4}
    assert {window.start + 3 - 1 + window.lead for window in windows} == set(range(3, 30))
    assert {window.start for window in windows if window.lead == 4} == set(range(24))


def test_lead_is_limited_by_what_a_short_trajectory_allows(sets):
    mixture = Mixture(sets[:1], [(0,)], weights=[1], num_frames=9, lead_max=50, seed=0)
    windows = [window for step in range(50) for window in mixture.global_batch(step, 4)]
    assert {(window.start, window.lead) for window in windows} == {(0, 1), (1, 1), (0, 2)}


@pytest.mark.parametrize(
    ("micro_batch", "accumulation", "num_ranks"), [(8, 1, 1), (4, 1, 2), (2, 1, 4), (4, 2, 1), (2, 2, 2), (1, 2, 4)]
)
def test_a_step_holds_the_same_samples_however_it_is_cut(mixture, micro_batch, accumulation, num_ranks):
    (whole,) = micro_batches(mixture, 7, 1, micro_batch=8, accumulation=1, rank=0, num_ranks=1)
    cut = []
    for rank in range(num_ranks):
        parts = list(micro_batches(mixture, 7, 1, micro_batch, accumulation, rank, num_ranks))
        assert [sum(batch.num_samples for batch in part) for part in parts] == [micro_batch] * accumulation
        cut += [sample for part in parts for sample in samples(part)]
    assert sorted(cut) == sorted(samples(whole))


def test_resuming_at_a_step_goes_on_with_what_would_have_come(mixture):
    through = [samples(part) for part in micro_batches(mixture, 0, 5, 2, 2, rank=1, num_ranks=2)]
    resumed = [samples(part) for part in micro_batches(mixture, 3, 2, 2, 2, rank=1, num_ranks=2)]
    assert len(through) == 10 and resumed == through[6:]


def test_targets_move_on_as_asked_for_or_to_the_end_of_the_trajectory(mixture):
    plain = micro_batches(mixture, 1, 10, 3, 2, rank=1, num_ranks=2)
    moved = micro_batches(mixture, 1, 10, 3, 2, rank=1, num_ranks=2, further=lambda number: number % 5)
    lead_max = 0
    for number, (before, after) in enumerate(zip(plain, moved, strict=True), start=2):
        for was, came in zip(before, after, strict=True):
            assert torch.equal(was.history, came.history)
            last, target = (frames[:, 0, 0, 0, 0] // (NUM_X * NUM_Y) % 50 for frames in (came.last, came.target))
            assert torch.equal(came.lead_time, target - last)
            assert torch.equal(target, (last + was.lead_time + number % 5).clamp(max=10))
            lead_max = max(lead_max, came.lead_time.max())
    assert lead_max > 4


def test_a_trajectory_too_short_to_train_on_is_named(sets):
    with pytest.raises(DataError, match=r"h5, trajectory 0000: expected at least 12 frames, 11 of history and 1"):
        Mixture(sets[:1], [(0,)], weights=[1], num_frames=11, lead_max=1, seed=0)


def sizes(tmp_path, num_frames):
    return [
        open_dataset(write_seed_groups(tmp_path / f"{index}.h5", "shallow_water", num_frames=frames))
        for index, frames in enumerate(num_frames)
    ]


@pytest.mark.parametrize(
    ("temperature", "weights", "shares"),
    [
        (0, (1, 1), (1 / 2, 1 / 2)),
        (1, (1, 1), (16 / 20, 4 / 20)),
        (1, (1, 4), (1 / 2, 1 / 2)),
    ],
)
def test_the_share_of_a_set_is_its_weight_times_a_power_of_its_windows(tmp_path, temperature, weights, shares):
    """With 3 frames of history and one to follow, 11 frames hold 8 windows and 7 frames hold 4."""
    sets = sizes(tmp_path, [(11, 11, 11), (7,)])
    mixture = Mixture(sets, [(0, 2), (0,)], weights, num_frames=3, lead_max=1, seed=0, temperature=temperature)
    assert mixture.shares == pytest.approx(shares)
    counts = Counter(window.set_index for step in range(150) for window in mixture.global_batch(step, 4))
    assert counts[0] / 600 == pytest.approx(shares[0], abs=0.02)


def test_micro_batches_of_the_same_system_hold_one_and_the_shares_stay(mixture):
    systems = []
    for rank in range(2):
        for part in micro_batches(mixture, 0, 25, 4, 2, rank, num_ranks=2, same_system=True):
            (batch,) = part
            assert batch.num_samples == 4
            systems.append(batch.system)
    assert Counter(systems)["shallow_water"] / 100 == pytest.approx(3 / 4, abs=0.01)


@pytest.fixture
def spoilt(tmp_path):
    """Two trajectories of 11 frames, the first of which is bad in frames 4 and after."""
    path = write_seed_groups(tmp_path / "spoilt.h5", "shallow_water", num_frames=(11, 11))
    with h5py.File(path, "a") as file:
        file["0000/data"][4:, 3, 2] = np.nan
    return Mixture([open_dataset(path)], [(0, 1)], weights=[1], num_frames=3, lead_max=2, seed=1)


@law(("micro_batch", "accumulation", "num_ranks"), [(8, 1, 1), (2, 2, 2), (1, 4, 2)], quick=[(2, 2, 2)])
def test_bad_windows_are_skipped_alike_however_a_step_is_cut(spoilt, micro_batch, accumulation, num_ranks):
    drawn = [window for step in range(8) for window in spoilt.global_batch(step, 8)]
    (whole,) = [[samples(part) for part in micro_batches(spoilt, 0, 8, 8, 1, 0, 1, bad_values="skip")]]
    cut = [
        sample
        for rank in range(num_ranks)
        for part in micro_batches(spoilt, 0, 8, micro_batch, accumulation, rank, num_ranks, bad_values="skip")
        for sample in samples(part)
    ]
    came = [sample for part in whole for sample in part]
    assert len(came) == 64 and sorted(cut) == sorted(came)
    assert np.isfinite([first for _, first, _ in came]).all()
    bad = [w.trajectory == 0 and w.start + 2 + w.lead >= 4 for w in drawn]
    kept = [(coded_value(w.trajectory, w.start, 0, 0, 0), w.lead) for w, b in zip(drawn, bad, strict=True) if not b]
    assert 0 < sum(bad) < 64 and not Counter(kept) - Counter((first, lead) for _, first, lead in came)


@law("size", [2, 3], quick=[3])
def test_ranks_that_read_parts_skip_the_windows_that_one_process_skips(spoilt, size):
    how = {"bad_values": "skip", "further": lambda number: number % 3}
    whole = list(micro_batches(spoilt, 0, 8, 4, **how))

    def of_rank(rank, exchange):
        share = share_in((1, 1, 2, 4), rank, size)
        on_any = partial(on_any_of, SimpleNamespace(size=size), exchange)
        parts = micro_batches(
            spoilt, 0, 8, 4, share=share, on_any=on_any, finish=lambda number, it: (number, it), **how
        )
        return list(parts)

    for parts in Group(size).run(of_rank):
        assert [number for number, _ in parts] == list(range(8))
        for (part,), (batch,) in zip((it for _, it in parts), whole, strict=True):
            assert torch.equal(part.samples.lead_time, batch.lead_time) and part.pieces
            for piece in part.pieces:
                z, y, x = piece.cells
                assert torch.equal(piece.history, batch.history[piece.sample][..., z, y, x])
                assert torch.equal(piece.target, batch.target[piece.sample][..., z, y, x])


def test_windows_of_a_wholly_bad_set_end_the_run_with_its_name(tmp_path):
    path = write_seed_groups(tmp_path / "bad.h5", "shallow_water", num_frames=(6,))
    with h5py.File(path, "a") as file:
        file["0000/data"][...] = np.inf
    mixture = Mixture([open_dataset(path)], [(0,)], weights=[1], num_frames=3, lead_max=1, seed=0)
    with pytest.raises(DataError, match=r"bad\.h5, .* but none of 100 drawn from shallow_water is; repair"):
        next(micro_batches(mixture, 0, 1, 2, 1, 0, 1, bad_values="skip"))


@pytest.mark.parametrize("at_once", [1, 200, 2**26])
def test_windows_chosen_for_validation_leave_out_bad_ones(spoilt, at_once, monkeypatch):
    monkeypatch.setattr("matey.data.reading.AT_ONCE", at_once)
    windows = spread_windows(spoilt.sets[0], (0, 1), num_frames=3, lead=1, count=100)
    sound = sound_windows(spoilt.sets, windows, num_frames=3)
    assert sound == [w for w in windows if w.trajectory == 1 or w.start == 0]
    with pytest.raises(DataError, match=r"spoilt\.h5: expected windows free of NaN .*from shallow_water is; repair"):
        sound_windows(spoilt.sets, windows[2:4], num_frames=3)


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
    batch, truth = read_rollout(sets, [Window(0, 0, 1, 1), Window(0, 2, 4, 2)], num_frames=2, horizon=3)
    assert truth.shape == (2, 3, 1, 1, 8, 12)
    assert truth[:, :, 0, 0, 0, 0].tolist() == [
        [first_value(0, frame) for frame in (3, 4, 5)],
        [first_value(2, frame) for frame in (6, 7, 8)],
    ]
    torch.testing.assert_close(truth[0, 0], batch.target[0])
    torch.testing.assert_close(truth[1, 1], batch.target[1])


FRAMES, FIELDS = 4, 2
WINDOW = Window(0, 0, 0, 1)


def bytes_read():
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])


def test_a_rank_reads_its_share_of_a_contiguous_file(tmp_path):
    values = np.random.default_rng(0).random((FIELDS, FRAMES + 1, 64, 64, 64), dtype=np.float32)
    with h5py.File(tmp_path / "values.h5", "w") as file:
        file["values"] = values
    fields = {f"field_{number}": {"array": "values", "index": number} for number in range(FIELDS)}
    data = open_dataset(tmp_path / "values.h5", flow("component time z y x", "open", fields=fields))
    data.read(0, 0, 1, (slice(0, 1),) * 3)  # opens the file
    before = bytes_read()
    (batch,) = read_windows([data], [WINDOW], FRAMES)
    whole = bytes_read() - before
    assert whole == pytest.approx(values.nbytes, rel=0.01)
    for rank in range(4):
        before = bytes_read()
        (part,) = read_parts([data], [WINDOW], FRAMES, share_in((1, 8, 8, 8), rank, 4))
        assert bytes_read() - before <= 1.15 / 4 * whole
        for piece in part.pieces:
            cells = [slice(at, at + size) for at, size in zip(piece.start, piece.target.shape[1:], strict=True)]
            assert np.array_equal(piece.history, batch.history[0][:, :, *cells])
            assert np.array_equal(piece.target, batch.target[0][:, *cells])
